//! Parses a set of files as an ordered list of migrations. It does no I/O: the operator validates
//! a ConfigMap with it before it creates a Job, and the Job parses the same files.

use std::collections::BTreeMap;
use std::fmt;

use sha2::{Digest, Sha256};

use super::lexer::{self, Statement};
use crate::api::conditions::reason;
use crate::contract::migration::hash;

/// The first line of a file that is run outside of a transaction.
const NO_TRANSACTION: &str = "no-transaction";
/// Its optional suffix: the file may be run again after an interruption.
const IDEMPOTENT: &str = "idempotent";

/// The byte order mark that some editors write.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The migrations of one revision, in the order of their versions; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationSet {
    /// The hash of all file names and contents, hexadecimal.
    pub revision: String,
    /// The migrations, the lowest version first.
    pub migrations: Vec<Migration>,
}

impl MigrationSet {
    /// The newest version.
    pub fn newest_version(&self) -> i64 {
        self.migrations.last().map_or(0, |migration| migration.version)
    }
}

/// One migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// Its version.
    pub version: i64,
    /// Its name: what follows the version in the file's name.
    pub name: String,
    /// The file that applies it.
    pub up: MigrationFile,
    /// How the up file is run.
    pub mode: Mode,
    /// The file that reverts it.
    pub down: Option<MigrationFile>,
}

/// How a migration is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In one transaction, which also writes the ledger.
    Transaction,
    /// One statement at a time, each separately (`-- no-transaction`).
    NoTransaction {
        /// Whether the file may be run again after an interruption
        /// (`-- no-transaction idempotent`).
        idempotent: bool,
    },
}

/// A file of a migration. `Debug` omits the SQL, because it may contain secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct MigrationFile {
    /// The file's name.
    pub name: String,
    /// Its text, without a byte order mark.
    pub sql: String,
    /// The SHA-256 of its text with LF at the end of each line, the last one too, hexadecimal:
    /// another way to end lines is no change of a migration.
    pub checksum: String,
}

impl MigrationFile {
    /// Whether a ledger's checksum is this file's. Ledgers of earlier versions have the SHA-256 of
    /// the bytes, however their lines ended.
    pub fn has_checksum(&self, checksum: &str) -> bool {
        if self.checksum == checksum {
            return true;
        }
        let lines = unix_lines(&self.sql);
        let bare = lines.strip_suffix('\n').unwrap_or(&lines);
        // Unchanged, for a file with mixed line ends; then with each line end.
        let texts: [&str; 5] = [&self.sql, &lines, bare, &lines.replace('\n', "\r\n"), &bare.replace('\n', "\r\n")];
        texts.iter().any(|text| {
            sha256(text.as_bytes()) == checksum || sha256(format!("{BYTE_ORDER_MARK}{text}").as_bytes()) == checksum
        })
    }
}

/// A text with LF at the end of each line, the last one too.
fn unix_lines(sql: &str) -> String {
    let mut lines = sql.replace("\r\n", "\n");
    if !lines.ends_with('\n') {
        lines.push('\n');
    }
    lines
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

impl fmt::Debug for MigrationFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("MigrationFile")
            .field("name", &self.name)
            .field("checksum", &self.checksum)
            .finish_non_exhaustive()
    }
}

/// Why a set of files is not a valid set of migrations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceError {
    /// The invalid file, if it is a single one.
    pub file: Option<String>,
    /// The line in it, from 1.
    pub line: Option<u32>,
    /// The problem and the remedy.
    pub message: String,
}

impl SourceError {
    /// The condition reason for this error.
    pub fn reason(&self) -> &'static str {
        reason::INVALID_MIGRATIONS
    }

    fn set(message: impl Into<String>) -> Self {
        Self { file: None, line: None, message: message.into() }
    }

    fn file(file: &str, message: impl Into<String>) -> Self {
        Self { file: Some(file.to_owned()), line: None, message: message.into() }
    }

    fn line(file: &str, line: u32, message: impl Into<String>) -> Self {
        Self { file: Some(file.to_owned()), line: Some(line), message: message.into() }
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(formatter, "{file}:{line}: {}", self.message),
            (Some(file), None) => write!(formatter, "{file}: {}", self.message),
            (None, _) => formatter.write_str(&self.message),
        }
    }
}

impl std::error::Error for SourceError {}

/// Parses files as migrations: names and contents, in any order.
///
/// # Errors
/// If there is none, or one of them is not a migration; the first by name is reported.
pub fn parse(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Result<MigrationSet, SourceError> {
    let files: BTreeMap<String, Vec<u8>> = files.into_iter().collect();
    let mut ups: BTreeMap<i64, (String, MigrationFile)> = BTreeMap::new();
    let mut downs: BTreeMap<i64, (String, MigrationFile)> = BTreeMap::new();
    for (file_name, content) in files {
        let FileName { version, name, direction } = file_name_parts(&file_name)?;
        let sql = text(&file_name, content)?;
        let read = MigrationFile { checksum: sha256(unix_lines(&sql).as_bytes()), sql, name: file_name.clone() };
        check(&read)?;
        let side = match direction {
            Direction::Up => &mut ups,
            Direction::Down => &mut downs,
        };
        if let Some((_, first)) = side.insert(version, (name, read)) {
            let message =
                format!("version {version} is taken by {}: give each migration a version of its own", first.name);
            return Err(SourceError::file(&file_name, message));
        }
    }

    let mut migrations = Vec::with_capacity(ups.len());
    for (version, (name, up)) in ups {
        let down = match downs.remove(&version) {
            Some((down_name, down)) if down_name != name => {
                let message = format!("it reverts version {version}, but the file that applies it is {}", up.name);
                return Err(SourceError::file(&down.name, message));
            }
            down => down.map(|(_, file)| file),
        };
        migrations.push(Migration { version, name, mode: mode(&up.sql), up, down });
    }
    if let Some((version, (_, down))) = downs.pop_first() {
        return Err(SourceError::file(
            &down.name,
            format!("no .up.sql file applies version {version}, which this file reverts"),
        ));
    }
    if migrations.is_empty() {
        return Err(SourceError::set("there are no migrations: expected files <version>_<name>.up.sql"));
    }
    Ok(MigrationSet { revision: revision(&migrations), migrations })
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

fn text(file_name: &str, content: Vec<u8>) -> Result<String, SourceError> {
    let line_at =
        |bytes: &[u8]| u32::try_from(bytes.iter().filter(|byte| **byte == b'\n').count() + 1).unwrap_or(u32::MAX);
    if let Some(position) = content.iter().position(|byte| *byte == 0) {
        let message = "it contains a NUL byte: it is not text (saved as UTF-16?); save it as UTF-8";
        return Err(SourceError::line(file_name, line_at(&content[..position]), message));
    }
    let sql = String::from_utf8(content).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        SourceError::line(file_name, line_at(&error.as_bytes()[..valid]), "it is not UTF-8: save it as UTF-8")
    })?;
    Ok(match sql.strip_prefix(BYTE_ORDER_MARK) {
        Some(rest) => rest.to_owned(),
        None => sql,
    })
}

/// Refuses statements that would leave the file's transaction or session.
fn check(file: &MigrationFile) -> Result<(), SourceError> {
    let statements =
        lexer::statements(&file.sql).map_err(|error| SourceError::line(&file.name, error.line, error.message))?;
    for statement in &statements {
        if let Some(problem) = forbidden(statement) {
            return Err(SourceError::line(&file.name, statement.line, problem));
        }
    }
    Ok(())
}

/// The reason why a statement must not run in a session that holds the migration lock, if there is one.
pub fn forbidden(statement: &Statement<'_>) -> Option<&'static str> {
    const TRANSACTION: &str = "transaction control is not allowed: each file already is one transaction, recorded with it; \
                               remove it, or make '-- no-transaction' the first line to run each statement by itself";
    let starts = |words: &[&str]| statement.starts_with(words);
    let to_savepoint = starts(&["ROLLBACK", "TO"])
        || starts(&["ROLLBACK", "WORK", "TO"])
        || starts(&["ROLLBACK", "TRANSACTION", "TO"]);
    let controls = ["BEGIN", "COMMIT", "END", "ABORT", "ROLLBACK"].iter().any(|word| starts(&[word]))
        || starts(&["START", "TRANSACTION"])
        || starts(&["PREPARE", "TRANSACTION"]);
    if controls && !to_savepoint {
        return Some(TRANSACTION);
    }
    if starts(&["COPY"]) && (statement.contains(&["FROM", "STDIN"]) || statement.contains(&["TO", "STDOUT"])) {
        return Some("COPY with STDIN or STDOUT needs psql: use INSERT");
    }
    if starts(&["DISCARD"]) {
        return Some(
            "DISCARD would drop the migration lock: remove it, the session's settings are reset after each file",
        );
    }
    None
}

/// How a file is run, according to its first line.
pub fn mode(sql: &str) -> Mode {
    let first = sql.lines().next().unwrap_or_default();
    let words: Vec<&str> = first.strip_prefix("--").unwrap_or_default().split_whitespace().collect();
    match words[..] {
        [NO_TRANSACTION] => Mode::NoTransaction { idempotent: false },
        [NO_TRANSACTION, IDEMPOTENT] => Mode::NoTransaction { idempotent: true },
        _ => Mode::Transaction,
    }
}

/// Names are hashed with an end mark and contents by their own hashes, so different sets have
/// different inputs of the hash.
fn revision(migrations: &[Migration]) -> String {
    let files = migrations.iter().flat_map(|migration| std::iter::once(&migration.up).chain(&migration.down));
    let parts: Vec<&str> = files.flat_map(|file| [file.name.as_str(), &file.checksum]).collect();
    hash(&parts)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(files: &[(&str, &str)]) -> Result<MigrationSet, SourceError> {
        parse(files.iter().map(|(name, content)| ((*name).to_owned(), content.as_bytes().to_vec())))
    }

    #[test]
    fn another_way_to_end_lines_is_no_change() {
        let text = |lines: &str| set(&[("1_a.up.sql", lines)]).expect("valid");
        let written =
            ["SELECT 1;\nSELECT 2;\n", "SELECT 1;\r\nSELECT 2;\r\n", "SELECT 1;\nSELECT 2;", "SELECT 1;\r\nSELECT 2;"];
        for before in written {
            for now in written {
                assert_eq!(text(before).revision, text(now).revision);
                // Ledgers of earlier versions have the checksum of the bytes.
                let file = &text(now).migrations[0].up;
                assert!(file.has_checksum(&sha256(before.as_bytes())), "{before:?} {now:?}");
                assert!(file.has_checksum(&sha256(format!("\u{feff}{before}").as_bytes())), "{before:?} {now:?}");
            }
        }
        let mixed = "SELECT 1;\r\nSELECT 2;\n";
        assert!(text(mixed).migrations[0].up.has_checksum(&sha256(mixed.as_bytes())));
        assert!(!text("SELECT 1;\nSELECT  2;\n").migrations[0].up.has_checksum(&sha256(written[0].as_bytes())));
        assert!(!text("SELECT 1;\n\nSELECT 2;\n").migrations[0].up.has_checksum(&sha256(written[0].as_bytes())));
    }

    #[test]
    fn plain_names_are_read_as_they_are() {
        let set = set(&[
            ("V2__add_index.sql", "SELECT 2"),
            ("V0001__create.sql", "SELECT 1"),
            ("U2__add_index.sql", "SELECT -2"),
            ("3_mixed.up.sql", "SELECT 3"),
        ])
        .expect("valid");
        let read: Vec<_> = set.migrations.iter().map(|m| (m.version, m.name.as_str(), m.down.is_some())).collect();
        assert_eq!(read, [(1, "create", false), (2, "add_index", true), (3, "mixed", false)]);
    }

    #[test]
    fn a_folder_is_a_migration() {
        let set = set(&[
            ("2026-01-02-030405_users/up.sql", "SELECT 2"),
            ("2026-01-02-030405_users/down.sql", "SELECT -2"),
            ("1_first/up.sql", "SELECT 1"),
        ])
        .expect("valid");
        let read: Vec<_> = set.migrations.iter().map(|m| (m.version, m.name.as_str(), m.down.is_some())).collect();
        assert_eq!(read, [(1, "first", false), (20_260_102_030_405, "users", true)]);
    }

    #[test]
    fn versions_order_as_numbers() {
        let set = set(&[
            ("10_c.up.sql", "SELECT 3"),
            ("0002_b.x-y.up.sql", "SELECT 2"),
            ("0002_b.x-y.down.sql", "SELECT -2"),
            ("1_a.up.sql", "SELECT 1"),
            ("20260102030405_d.up.sql", ""),
        ])
        .expect("valid");
        let versions: Vec<i64> = set.migrations.iter().map(|migration| migration.version).collect();
        assert_eq!(versions, [1, 2, 10, 20_260_102_030_405]);
        assert_eq!(set.newest_version(), 20_260_102_030_405);
        assert_eq!(set.migrations[1].name, "b.x-y");
        assert_eq!(set.migrations[1].down.as_ref().expect("kept").name, "0002_b.x-y.down.sql");
    }

    #[test]
    fn the_revision_follows_names_and_contents_alone() {
        let one = set(&[("1_a.up.sql", "SELECT 1"), ("2_b.up.sql", "SELECT 2")]).expect("valid");
        let same = set(&[("2_b.up.sql", "SELECT 2"), ("1_a.up.sql", "SELECT 1")]).expect("valid");
        assert_eq!(one, same);
        assert_eq!(one.revision.len(), 64);
        for other in [
            vec![("1_a.up.sql", "SELECT 1"), ("2_b.up.sql", "SELECT 2 ")],
            vec![("1_a.up.sql", "SELECT 1"), ("2_c.up.sql", "SELECT 2")],
            vec![("1_a.up.sql", "SELECT 1"), ("2_b.up.sql", "SELECT 2"), ("2_b.down.sql", "")],
            vec![("1_a.up.sql", "SELECT 1")],
        ] {
            assert_ne!(set(&other).expect("valid").revision, one.revision, "{other:?}");
        }
        // `printf 'abc\n' | sha256sum`.
        let checksum = "edeaaff3f1774ad2888673770c6d64097e391bc362d7d6fb34982ddf0efd18cb";
        for same in ["abc\n", "abc", "abc\r\n", "\u{feff}abc\n"] {
            assert_eq!(set(&[("1_a.up.sql", same)]).expect("valid").migrations[0].up.checksum, checksum, "{same:?}");
        }
    }

    #[test]
    fn the_first_line_opts_out_of_the_transaction() {
        let cases = [
            ("-- no-transaction\nSELECT 1", Mode::NoTransaction { idempotent: false }),
            ("\u{feff}--no-transaction \r\nSELECT 1", Mode::NoTransaction { idempotent: false }),
            ("-- no-transaction idempotent\n", Mode::NoTransaction { idempotent: true }),
            ("SELECT 1;\n-- no-transaction", Mode::Transaction),
            ("-- no-transactions are needed\n", Mode::Transaction),
        ];
        for (sql, expected) in cases {
            assert_eq!(set(&[("1_a.up.sql", sql)]).expect(sql).migrations[0].mode, expected, "{sql}");
        }
    }

    #[test]
    fn bad_files_are_named() {
        let cases: &[(&[(&str, &str)], &str)] = &[
            (&[], "there are no migrations"),
            (&[("README.md", "")], "README.md: it ends neither"),
            (&[("1_a.sql", "")], "1_a.sql: it ends neither"),
            (&[("1_a/notes.txt", "")], "1_a/notes.txt: a migration's folder has"),
            (&[("2026-1_a.up.sql", "")], "2026-1_a.up.sql: its version is not"),
            (&[("1_a.UP.sql", "")], "1_a.UP.sql: it ends neither"),
            (&[("x_a.up.sql", "")], "x_a.up.sql: its version is not a whole number"),
            (&[("-1_a.up.sql", "")], "-1_a.up.sql: its version is not a whole number"),
            (&[("_a.up.sql", "")], "_a.up.sql: its version is not a whole number"),
            (&[("1.up.sql", "")], "1.up.sql: it has no '_'"),
            (&[("1_.up.sql", "")], "1_.up.sql: it has no name"),
            (&[("1_a b.up.sql", "")], "1_a b.up.sql: its name has characters"),
            (&[("9223372036854775808_a.up.sql", "")], "its version is too large"),
            (&[("0001_a.up.sql", ""), ("1_b.up.sql", "")], "1_b.up.sql: version 1 is taken by 0001_a.up.sql"),
            (&[("1_a.up.sql", ""), ("2_b.down.sql", "")], "2_b.down.sql: no .up.sql file applies version 2"),
            (&[("1_a.up.sql", ""), ("1_b.down.sql", "")], "1_b.down.sql: it reverts version 1, but"),
            (&[("1_a.up.sql", "SELECT 1;\n\\i x.sql")], "1_a.up.sql:2: a backslash command"),
            (&[("1_a.up.sql", "a\n\0")], "1_a.up.sql:2: it contains a NUL"),
            (&[("1_a.up.sql", "SELECT 'x")], "1_a.up.sql:1: the string that opens here"),
        ];
        for (files, expected) in cases {
            let error = set(files).expect_err(expected);
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!(error.reason(), reason::INVALID_MIGRATIONS);
        }
        let latin1 = parse([("1_a.up.sql".to_owned(), b"SELECT 1;\nSELECT '\xe9'".to_vec())]).expect_err("not UTF-8");
        assert_eq!((latin1.line, latin1.to_string().contains("UTF-8")), (Some(2), true));
    }

    #[test]
    fn transaction_control_is_refused_with_its_line() {
        for (sql, line) in [
            ("BEGIN;\nSELECT 1;\nCOMMIT;", 1),
            ("SELECT 1;\n-- done\n/* yes */ COMMIT;", 3),
            ("SELECT 1;commit", 1),
            ("SELECT 1;\nstart /* x */ transaction;", 2),
            ("SELECT 1;\n\nEND", 3),
            ("ABORT", 1),
            ("ROLLBACK", 1),
            ("ROLLBACK AND CHAIN", 1),
            ("COMMIT PREPARED 'x'", 1),
            ("PREPARE TRANSACTION 'x'", 1),
            ("-- no-transaction\nBEGIN; SELECT 1; COMMIT", 2),
            ("DISCARD ALL", 1),
            ("SELECT 1;\nCOPY t (a) FROM stdin;\n1\n", 2),
            ("COPY t TO STDOUT", 1),
        ] {
            let error = set(&[("1_a.up.sql", sql)]).expect_err(sql);
            assert_eq!(error.line, Some(line), "{sql}: {error}");
        }
    }

    #[test]
    fn similar_statements_are_accepted() {
        for sql in [
            "DO $$ BEGIN PERFORM 1; COMMIT; END $$;",
            "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $f$ BEGIN RETURN 1; END; $f$;",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; END; SELECT 1",
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN; RETURN NEW; END;';",
            "CREATE TABLE \"commit\" (\"begin\" int, rollback int); SELECT rollback FROM \"commit\"",
            "\"commit\";",
            "-- COMMIT;\n/* BEGIN; */ SELECT 'COMMIT; ROLLBACK;'",
            "SAVEPOINT a; ROLLBACK TO SAVEPOINT a; ROLLBACK WORK TO a; RELEASE a",
            "PREPARE p AS SELECT 1; COPY t FROM '/tmp/x'",
            "ALTER TABLE t ADD COLUMN start timestamptz",
        ] {
            if let Err(error) = set(&[("1_a.up.sql", sql)]) {
                panic!("{sql}: {error}");
            }
        }
    }

    #[test]
    fn debug_output_has_no_sql() {
        let set = set(&[("1_a.up.sql", "SELECT 'canary'")]).expect("valid");
        assert!(!format!("{set:?}").contains("canary"));
    }
}
