//! sqlx: `<number>_<name>.sql`, or `.up.sql` with `.down.sql`.

use std::collections::BTreeMap;

use super::build::taken;
use super::folder::Folder;
use super::{Draft, Kind, Layout, Part, Run, Scheme, TRANSACTION, Version};
use crate::migrate::source::SourceError;

/// How a file begins that is run without a transaction.
const BARE: &str = "-- no-transaction";

/// Reads it.
pub fn read(folder: &Folder) -> Result<Layout, SourceError> {
    let (mut ups, mut downs) = (BTreeMap::new(), BTreeMap::new());
    let mut ignored = Vec::new();
    for file in folder.names() {
        let parts = file.split_once('_').filter(|(_, rest)| rest.ends_with(".sql") && !file.contains('/'));
        let Some((version, rest)) = parts else {
            ignored.push(file.to_owned());
            continue;
        };
        let Ok(version) = version.parse::<i64>() else {
            let message = "sqlx refuses all files with this one: name it <number>_<name>.sql";
            return Err(SourceError::file(file, message));
        };
        let sql = folder.text(file)?;
        let run = if sql.starts_with(BARE) { Run::Query } else { TRANSACTION };
        let part = Part { file: file.to_owned(), sql, sum: None, run };
        let (name, side) = if let Some(name) = rest.strip_suffix(".down.sql") {
            (name, &mut downs)
        } else {
            (rest.strip_suffix(".up.sql").or(rest.strip_suffix(".sql")).unwrap_or(rest), &mut ups)
        };
        if let Some((_, first)) = side.insert(version, (name.to_owned(), part)) {
            return Err(taken(&version.to_string(), &first.file, file));
        }
    }
    let mut drafts = Vec::with_capacity(ups.len());
    for (number, (name, up)) in ups {
        let (version, down) = (Version::of_number(number), downs.remove(&number).map(|(_, part)| part));
        drafts.push(Draft { version, name, kind: Kind::Versioned, up, down, doubt: None, key: None });
    }
    if let Some((version, (_, down))) = downs.pop_first() {
        let message = format!("no file applies version {version}, which this file reverts");
        return Err(SourceError::file(&down.file, message));
    }
    Ok(Layout { drafts, scheme: Scheme::Number, ignored })
}
