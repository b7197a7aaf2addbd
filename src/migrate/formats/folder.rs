//! The files of a folder, by their paths in it.

use std::collections::BTreeMap;

use crate::migrate::source::{BYTE_ORDER_MARK, SourceError};

/// Files by path, in the order of their bytes.
pub struct Folder {
    files: BTreeMap<String, Vec<u8>>,
}

impl Folder {
    /// A folder with these files.
    pub fn new(files: BTreeMap<String, Vec<u8>>) -> Self {
        Self { files }
    }

    /// The paths.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Whether there is such a file.
    pub fn has(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// The text of a file, without a byte order mark.
    ///
    /// # Errors
    /// If it is not text in UTF-8.
    pub fn text(&self, name: &str) -> Result<String, SourceError> {
        let content = self.files.get(name).cloned().unwrap_or_default();
        let line_at =
            |bytes: &[u8]| u32::try_from(bytes.iter().filter(|byte| **byte == b'\n').count() + 1).unwrap_or(u32::MAX);
        if let Some(position) = content.iter().position(|byte| *byte == 0) {
            let message = "it contains a NUL byte: it is not text (saved as UTF-16?); save it as UTF-8";
            return Err(SourceError::line(name, line_at(&content[..position]), message));
        }
        let text = String::from_utf8(content).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            SourceError::line(name, line_at(&error.as_bytes()[..valid]), "it is not UTF-8: save it as UTF-8")
        })?;
        Ok(match text.strip_prefix(BYTE_ORDER_MARK) {
            Some(rest) => rest.to_owned(),
            None => text,
        })
    }

    /// The bytes of a file.
    pub fn bytes(&self, name: &str) -> &[u8] {
        self.files.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether a file has this word; false for one that is no text.
    pub fn mentions(&self, name: &str, word: &str) -> bool {
        std::str::from_utf8(self.bytes(name)).is_ok_and(|text| text.contains(word))
    }
}

/// The file's own name.
pub fn base(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, base)| base)
}

/// A text without its ending, whatever case that has.
pub fn strip_ending<'a>(name: &'a str, ending: &str) -> Option<&'a str> {
    let (stem, end) = name.split_at_checked(name.len().checked_sub(ending.len())?)?;
    end.eq_ignore_ascii_case(ending).then_some(stem)
}

/// Whether a file is one of SQL, by its name.
pub fn is_sql(path: &str) -> bool {
    strip_ending(path, ".sql").is_some()
}

/// The digits at the start of a name, and the rest.
pub fn leading_digits(name: &str) -> (&str, &str) {
    let end = name.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(name.len());
    name.split_at(end)
}
