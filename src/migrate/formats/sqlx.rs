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
        if version < 0 {
            let message = "its version is below 0, which sqlx allows and the ledger does not: give it a number from 0";
            return Err(SourceError::file(file, message));
        }
        let sql = folder.text(file)?;
        if let Some(line) = other_direction(&sql) {
            let message = "this line looks like the mark of a part that reverts, of a tool that is not known here: sqlx \
                           would run the whole file. Give the parts files of their own, .up.sql and .down.sql";
            return Err(SourceError::line(file, line, message));
        }
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

/// The line of a comment that consists of words with which tools mark the part of a file that reverts.
fn other_direction(sql: &str) -> Option<u32> {
    const MARKS: [&str; 3] = ["down", "undo", "rollback"];
    const BESIDE: [&str; 8] = ["migration", "migrate", "micrate", "rambler", "shmig", "sql", "section", "script"];
    let is_mark = |line: &str| {
        let Some(comment) = line.trim_start().strip_prefix("--") else { return false };
        let lower = comment.to_ascii_lowercase();
        let words: Vec<&str> =
            lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
        words.iter().any(|word| MARKS.contains(word))
            && words.iter().all(|word| MARKS.contains(word) || BESIDE.contains(word))
    };
    let at = sql.lines().position(is_mark)?;
    u32::try_from(at + 1).ok()
}

#[cfg(test)]
mod tests {
    use super::other_direction;

    #[test]
    fn a_mark_of_the_part_that_reverts_is_found() {
        for sql in
            ["CREATE TABLE a ();\n-- Down Migration\nDROP TABLE a;", "x;\n-- //@UNDO\ny;", "x;\n -- +micrate Down\n"]
        {
            assert_eq!(other_direction(sql), Some(2), "{sql}");
        }
        for sql in ["-- slows down the import\nx;", "SELECT 'down';", "-- the rollback of 2019 left these rows"] {
            assert_eq!(other_direction(sql), None, "{sql}");
        }
    }
}
