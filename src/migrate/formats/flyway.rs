//! Flyway: `V1.2__<name>.sql`, also in subfolders; `U` reverts, `R` is repeated, `B` stands for all up
//! to its version on an empty database.

use std::collections::BTreeMap;

use super::build::taken;
use super::folder::{Folder, base, is_sql, strip_ending};
use super::marks::line_of;
use super::{Draft, Kind, Layout, NO_TRANSACTION, Part, Run, Scheme, Version};
use crate::api::SchemaVersion;
use crate::migrate::source::{LAST, REPEATABLE, SourceError};

/// The files that Flyway runs around migrations.
const CALLBACKS: [&str; 5] = ["before", "after", "beforeEach", "afterEach", "createSchema"];
/// What the name of a file with options has behind that of the migration.
const CONF: &str = ".conf";
/// What the checksum of a file without a transaction begins with.
pub const BARE: &str = "-- executeInTransaction=false\n";

/// Reads it.
pub fn read(folder: &Folder) -> Result<Layout, SourceError> {
    let mut drafts = Vec::new();
    let mut undo: BTreeMap<i64, Part> = BTreeMap::new();
    let mut ignored = Vec::new();
    let has_conf = folder.names().any(|file| file.ends_with(CONF));
    for file in folder.names() {
        let Some(Name { prefix, version, name }) = parse(file)? else {
            if !is_conf(folder, file) {
                ignored.push(file.to_owned());
            }
            continue;
        };
        let sql = folder.text(file)?;
        let Conf { run, replaces, sum } =
            if has_conf { conf(folder, &format!("{file}{CONF}"), &sql)? } else { Conf::default() };
        let doubt = placeholder(file, &sql, false).filter(|_| replaces);
        let part = Part { file: file.to_owned(), sql, sum, run };
        let (version, kind) = match (prefix, version) {
            ('R', _) => {
                let text = SchemaVersion::new(format!("{REPEATABLE}{name}"));
                (Version::new(text, format!("{LAST}{name}")), Kind::Repeatable)
            }
            ('B', Some(of)) => {
                // After the version itself, and before the next one below it.
                let text = SchemaVersion::new(format!("B{of}"));
                (Version::new(text, format!("{}-", of.ordinal)), Kind::Baseline)
            }
            ('U', Some(of)) => {
                let text = of.to_string();
                if let Some(first) = undo.insert(of.number, part) {
                    return Err(taken(&text, &first.file, file));
                }
                continue;
            }
            (_, Some(of)) => (of, Kind::Versioned),
            (_, None) => continue,
        };
        drafts.push(Draft { version, name, kind, up: part, down: None, doubt, key: None });
    }
    for draft in drafts.iter_mut().filter(|draft| draft.kind == Kind::Versioned) {
        draft.down = undo.remove(&draft.version.number);
    }
    if let Some((_, part)) = undo.pop_first() {
        let message = "no V file has the version that this file undoes; if it is refinery's, whose U is no undo, say so \
                       in spec.migrations.source.format";
        return Err(SourceError::file(&part.file, message));
    }
    Ok(Layout { drafts, scheme: Scheme::Parts, ignored })
}

struct Name {
    prefix: char,
    version: Option<Version>,
    name: String,
}

/// The parts of a name; none if it is no migration's.
fn parse(file: &str) -> Result<Option<Name>, SourceError> {
    let name = base(file);
    let (stem, sql) = match strip_ending(name, ".sql") {
        Some(stem) => (stem, true),
        None => (name.split_once('.').map_or(name, |(stem, _)| stem), false),
    };
    let mut characters = stem.chars();
    let Some(prefix) = characters.next() else { return Ok(None) };
    let rest = characters.as_str();
    let looks =
        matches!(prefix, 'V' | 'v' | 'U' | 'u' | 'B' | 'b') && rest.starts_with(|one: char| one.is_ascii_digit());
    let repeats = matches!(prefix, 'R' | 'r') && rest.starts_with("__");
    if !sql {
        let code = [".java", ".class", ".kt", ".py", ".sh", ".ps1", ".bat", ".cmd"];
        if (looks || repeats) && rest.contains("__") && code.iter().any(|ending| name.ends_with(ending)) {
            let message =
                "this migration is a program, which is no SQL: run Flyway itself (spec.migrations.source.job)";
            return Err(SourceError::file(file, message));
        }
        return Ok(None);
    }
    if matches!(prefix, 'a' | 'b' | 'c') && CALLBACKS.iter().any(|event| is_callback(stem, event)) {
        let message = "Flyway runs this callback around its migrations, and Servicedb runs none: put its statements into \
                       a migration, or a repeatable one (R__…), and remove the file";
        return Err(SourceError::file(file, message));
    }
    if !looks && !repeats {
        return Ok(None);
    }
    let refuse = |problem: &str| {
        let message =
            format!("{problem}, so Flyway leaves this file out and does not say so: name it V1.2__<name>.sql");
        Err(SourceError::file(file, message))
    };
    if prefix.is_ascii_lowercase() {
        return refuse("its name begins with a small letter");
    }
    let (version, description) = rest.split_once("__").unwrap_or((rest, ""));
    let description = description.replace('_', " ");
    if repeats {
        return Ok(Some(Name { prefix, version: None, name: description }));
    }
    match Scheme::Parts.version(&version.replace('_', ".")) {
        Some(version) => Ok(Some(Name { prefix, version: Some(version), name: description })),
        None => refuse("there is no '__' between a version of numbers and the name"),
    }
}

/// Whether a file is a callback, as in `beforeMigrate__x.sql`.
fn is_callback(stem: &str, event: &str) -> bool {
    let name = stem.split_once("__").map_or(stem, |(name, _)| name);
    name == "createSchema"
        || name.strip_prefix(event).is_some_and(|rest| {
            [
                "Migrate",
                "Versioned",
                "Repeatables",
                "Validate",
                "Baseline",
                "Clean",
                "Connect",
                "Info",
                "Repair",
                "Undo",
                "Each",
            ]
            .iter()
            .any(|of| rest.starts_with(of))
        })
}

fn is_conf(folder: &Folder, file: &str) -> bool {
    strip_ending(file, CONF).is_some_and(|of| is_sql(of) && folder.has(of))
}

struct Conf {
    run: Run,
    replaces: bool,
    sum: Option<String>,
}

impl Default for Conf {
    fn default() -> Self {
        Self { run: Run::Statements, replaces: true, sum: None }
    }
}

/// The options of a file, in one beside it.
fn conf(folder: &Folder, path: &str, sql: &str) -> Result<Conf, SourceError> {
    let mut conf = Conf::default();
    if !folder.has(path) {
        return Ok(conf);
    }
    let text = folder.text(path)?;
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once('=').map_or((line, ""), |(key, value)| (key.trim(), value.trim()));
        match (key, value) {
            ("executeInTransaction", "false") => conf.run = NO_TRANSACTION,
            ("placeholderReplacement", "false") => conf.replaces = false,
            ("executeInTransaction" | "placeholderReplacement", "true") => {}
            ("encoding", value) if value.eq_ignore_ascii_case("UTF-8") => {}
            _ => {
                let number = u32::try_from(at + 1).unwrap_or(u32::MAX);
                let message = format!("this option of Flyway is not known here: {line}");
                return Err(SourceError::line(path, number, message));
            }
        }
    }
    if conf.run == NO_TRANSACTION {
        conf.sum = Some(format!("{BARE}{sql}"));
    }
    Ok(conf)
}

/// A placeholder that Flyway would replace. `own`: the files may be no Flyway's at all.
pub fn placeholder(file: &str, sql: &str, own: bool) -> Option<SourceError> {
    let found = |line: &str| {
        line.split("${").skip(1).any(|rest| {
            rest.split_once('}').is_some_and(|(name, _)| {
                !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte))
            })
        })
    };
    if !sql.contains("${") {
        return None;
    }
    let line = line_of(sql, found)?;
    let way = if own {
        "set spec.migrations.source.format: Servicedb if it is meant as it stands, or write the value"
    } else {
        "write the value, or, if it is meant as it stands, put placeholderReplacement=false into a file of the same name \
         with .conf behind"
    };
    let message =
        format!("Flyway replaces this placeholder by a value of its configuration, which Servicedb has not: {way}");
    Some(SourceError::line(file, line, message))
}
