//! refinery: `V1__<name>.sql` and `U1__<name>.sql`, also in subfolders. A `U` is no undo: it is a
//! migration that may be applied late.

use super::folder::{Folder, base, is_sql, leading_digits};
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
        let Some((digits, rest)) = parts(file) else {
            if looks(file) {
                let message = "refinery leaves this file out: name it V1__<name>.sql, or U1__<name>.sql, with a whole \
                               number and letters, digits and '_' in the name";
                return Err(SourceError::file(file, message));
            }
            ignored.push(file.to_owned());
            continue;
        };
        if rest.ends_with(".rs") {
            let message =
                "this migration is in Rust, which is no SQL: run refinery itself (spec.migrations.source.job)";
            return Err(SourceError::file(file, message));
        }
        let name = rest.trim_end_matches(".sql");
        let version = Scheme::Number.version(digits);
        let version = version.ok_or_else(|| SourceError::file(file, "its version is too large"))?;
        let part = Part { file: file.to_owned(), sql: folder.text(file)?, sum: None, run: TRANSACTION };
        drafts.push(Draft::up_only(version, name.to_owned(), part));
    }
    Ok(Layout { drafts, scheme: Scheme::Number, ignored })
}

/// The number and what follows `__`; none if refinery leaves the file out.
fn parts(file: &str) -> Option<(&str, &str)> {
    let (digits, rest) = leading_digits(base(file).strip_prefix(['V', 'U'])?);
    let rest = rest.strip_prefix("__").filter(|_| !digits.is_empty())?;
    let name = rest.strip_suffix(".sql").or(rest.strip_suffix(".rs"))?;
    let is_word = |one: char| one.is_alphanumeric() || one == '_';
    (!name.is_empty() && name.chars().all(is_word)).then_some((digits, rest))
}

/// Whether a file is meant as a migration.
fn looks(file: &str) -> bool {
    let name = base(file).strip_prefix(['V', 'U', 'v', 'u']);
    is_sql(file) && name.is_some_and(|rest| rest.starts_with(|one: char| one.is_ascii_digit()))
}
