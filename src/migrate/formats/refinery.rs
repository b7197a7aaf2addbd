//! refinery: `V1__<name>.sql` and `U1__<name>.sql`, also in subfolders. A `U` is no undo: it is a
//! migration that may be applied late.

use super::folder::{Folder, base, leading_digits};
use super::{Draft, Layout, Part, Scheme, TRANSACTION};
use crate::migrate::source::SourceError;

/// Whether refinery runs a file after a newer one, too.
pub fn may_be_late(file: &str) -> bool {
    base(file).starts_with('U')
}

/// Reads it.
pub fn read(folder: &Folder) -> Result<Layout, SourceError> {
    let (mut drafts, mut ignored) = (Vec::new(), Vec::new());
    for file in folder.names() {
        let parts = base(file).strip_prefix(['V', 'U']).map(leading_digits);
        let parts = parts.and_then(|(digits, rest)| Some((digits, rest.strip_prefix("__")?)));
        let Some((digits, rest)) = parts.filter(|(digits, _)| !digits.is_empty()) else {
            ignored.push(file.to_owned());
            continue;
        };
        if rest.ends_with(".rs") {
            let message =
                "this migration is in Rust, which is no SQL: run refinery itself (spec.migrations.source.job)";
            return Err(SourceError::file(file, message));
        }
        let Some(name) = rest.strip_suffix(".sql") else {
            ignored.push(file.to_owned());
            continue;
        };
        let version = Scheme::Number.version(digits);
        let version = version.ok_or_else(|| SourceError::file(file, "its version is too large"))?;
        let part = Part { file: file.to_owned(), sql: folder.text(file)?, sum: None, run: TRANSACTION };
        drafts.push(Draft::up_only(version, name.to_owned(), part));
    }
    Ok(Layout { drafts, scheme: Scheme::Number, ignored })
}
