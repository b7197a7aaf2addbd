//! Supabase: `<digits>_<name>.sql`, in the order of the digits as text.

use super::folder::{Folder, is_sql, leading_digits, strip_ending};
use super::{Draft, Layout, Part, Run, Scheme};
use crate::migrate::source::SourceError;

/// Reads it.
pub fn read(folder: &Folder) -> Result<Layout, SourceError> {
    let (mut drafts, mut ignored) = (Vec::new(), Vec::new());
    for file in folder.names() {
        let (digits, rest) = leading_digits(file);
        let name = rest.strip_prefix('_').and_then(|name| strip_ending(name, ".sql"));
        let version =
            Scheme::Text.version(digits).filter(|_| !digits.is_empty() && is_sql(file) && !file.contains('/'));
        let (Some(name), Some(version)) = (name, version) else {
            ignored.push(file.to_owned());
            continue;
        };
        let part = Part { file: file.to_owned(), sql: folder.text(file)?, sum: None, run: Run::Split };
        drafts.push(Draft::up_only(version, name.to_owned(), part));
    }
    Ok(Layout { drafts, scheme: Scheme::Text, ignored })
}
