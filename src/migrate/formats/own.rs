//! Servicedb's own layout: `<version>_<name>.up.sql` and `.down.sql`, `V<version>__<name>.sql` and
//! `U<version>__<name>.sql`, or folders `<version>_<name>` with `up.sql` and `down.sql`. Versions are
//! whole numbers.

use std::collections::BTreeMap;

use super::build::taken;
use super::folder::{Folder, base, is_sql, leading_digits};
use super::{Draft, Kind, Layout, Part, Run, Scheme, Version};
use crate::migrate::source::{SourceError, mode};

/// Reads it.
pub fn read(folder: &Folder) -> Result<Layout, SourceError> {
    let mut ups: BTreeMap<i64, (String, Part)> = BTreeMap::new();
    let mut downs: BTreeMap<i64, (String, Part)> = BTreeMap::new();
    let mut ignored = Vec::new();
    for file in folder.names() {
        if is_beside(file) {
            ignored.push(file.to_owned());
            continue;
        }
        let FileName { version, name, direction } = file_name_parts(file)?;
        let sql = folder.text(file)?;
        let part = Part { file: file.to_owned(), run: Run::As(mode(&sql)), sql, sum: None };
        let side = match direction {
            Direction::Up => &mut ups,
            Direction::Down => &mut downs,
        };
        if let Some((_, first)) = side.insert(version, (name, part)) {
            return Err(taken(&version.to_string(), &first.file, file));
        }
    }
    let mut drafts = Vec::with_capacity(ups.len());
    for (version, (name, up)) in ups {
        let down = match downs.remove(&version) {
            Some((down_name, down)) if down_name != name => {
                let message = format!("it reverts version {version}, but the file that applies it is {}", up.file);
                return Err(SourceError::file(&down.file, message));
            }
            down => down.map(|(_, part)| part),
        };
        drafts.push(Draft {
            version: Version::of_number(version),
            name,
            kind: Kind::Versioned,
            up,
            down,
            doubt: None,
            key: None,
        });
    }
    if let Some((version, (_, down))) = downs.pop_first() {
        let message = format!("no .up.sql file applies version {version}, which this file reverts");
        return Err(SourceError::file(&down.file, message));
    }
    Ok(Layout { drafts, scheme: Scheme::Number, ignored })
}

/// Whether a file is nothing that could be meant as a migration: of another kind, or data in a folder.
fn is_beside(file: &str) -> bool {
    if let Some((folder, rest)) = file.split_once('/') {
        let (digits, name) = leading_digits(folder);
        let of_a_migration = !digits.is_empty() && name.starts_with(['_', '-']) && !rest.contains('/');
        // Flyway has migrations in subfolders.
        let prefixed = base(file).starts_with(['V', 'U', 'R', 'B']) && base(file).contains("__");
        let meant = of_a_migration || prefixed || matches!(base(file), "up.sql" | "down.sql");
        return !meant || !is_sql(file);
    }
    let named = [".up.", ".down."].iter().any(|part| file.contains(part));
    let numbered = !leading_digits(file).0.is_empty();
    !is_sql(file) && (!named || !numbered)
}

enum Direction {
    Up,
    Down,
}

struct FileName {
    version: i64,
    name: String,
    direction: Direction,
}

fn file_name_parts(file_name: &str) -> Result<FileName, SourceError> {
    let refuse = |problem: &str| {
        let message = format!(
            "{problem}: a migration's file is named <version>_<name>.up.sql, such as 0001_create_users.up.sql, or \
             V<version>__<name>.sql, such as V1__create_users.sql, or is up.sql in a folder <version>_<name>"
        );
        Err(SourceError::file(file_name, message))
    };
    let folder = file_name.split_once('/');
    let (stem, direction, separator) = if let Some((folder, file)) = folder {
        match file {
            "up.sql" => (folder, Direction::Up, "_"),
            "down.sql" => (folder, Direction::Down, "_"),
            _ => return refuse("a migration's folder has only up.sql and down.sql"),
        }
    } else if let Some(stem) = file_name.strip_suffix(".up.sql") {
        (stem, Direction::Up, "_")
    } else if let Some(stem) = file_name.strip_suffix(".down.sql") {
        (stem, Direction::Down, "_")
    } else if let Some(stem) = file_name.strip_suffix(".sql")
        && let Some((prefix @ ("V" | "U"), stem)) = stem.split_at_checked(1)
    {
        (stem, if prefix == "V" { Direction::Up } else { Direction::Down }, "__")
    } else {
        return refuse("it ends neither with .up.sql nor with .down.sql, and does not begin with V or U");
    };
    let Some((digits, name)) = stem.split_once(separator) else {
        return refuse(&format!("it has no '{separator}' between version and name"));
    };
    // Folders of other tools write a timestamp in parts, as in 2026-01-02-030405.
    let digits = if folder.is_some() { &digits.replace('-', "") } else { digits };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return refuse("its version is not a whole number");
    }
    let Ok(version) = digits.parse::<i64>() else {
        return refuse("its version is too large (the largest is 9223372036854775807)");
    };
    if version == 0 {
        return refuse("version 0 is the schema without any migration");
    }
    if name.is_empty() {
        return refuse("it has no name after the version");
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')) {
        return refuse("its name has characters other than letters, digits, '_', '-' and '.'");
    }
    Ok(FileName { version, name: name.to_owned(), direction })
}
