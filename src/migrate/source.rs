//! A set of files as an ordered list of migrations, whatever tool they were written for ([`super::formats`]).
//! It does no I/O: the operator validates a ConfigMap with it before it creates a Job, and the Job
//! parses the same files.

use std::collections::HashMap;
use std::fmt;

use sha2::{Digest, Sha256};

use super::formats;
use super::lexer::Statement;
use super::version::{Scheme, Version};
use crate::api::conditions::reason;
use crate::api::{MigrationFormat, SchemaVersion};
use crate::contract::migration::{IGNORED, IGNORED_NAME, Policy, SourceReport, hash};
use crate::migrate::outcome::cut;

/// The first line of a file that is run outside of a transaction.
const NO_TRANSACTION: &str = "no-transaction";
/// Its optional suffix: the file may be run again after an interruption.
const IDEMPOTENT: &str = "idempotent";

/// The byte order mark that some editors write.
pub(super) const BYTE_ORDER_MARK: char = '\u{feff}';

/// The migrations of one revision, in execution order; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationSet {
    /// The hash of all file names and contents, hexadecimal.
    pub revision: String,
    /// The migrations, the lowest version first.
    pub migrations: Vec<Migration>,
    /// The tool whose files these are; never `Auto`.
    pub format: MigrationFormat,
    /// How the place of a version follows from its text.
    pub scheme: Scheme,
    /// The files that are no migrations and were passed over, by name.
    pub ignored: Vec<String>,
    /// The places of the migrations in the list, by their numbers.
    index: HashMap<i64, usize>,
}

impl MigrationSet {
    /// A set of migrations of different versions, in execution order.
    pub(super) fn new(
        format: MigrationFormat,
        scheme: Scheme,
        migrations: Vec<Migration>,
        ignored: Vec<String>,
    ) -> Self {
        let index = migrations.iter().enumerate().map(|(at, migration)| (migration.version.number, at)).collect();
        let revision = revision(format, &migrations);
        Self { revision, migrations, format, scheme, ignored, index }
    }

    /// The newest version; of those that have an order.
    pub fn newest(&self) -> Option<&Version> {
        self.migrations.iter().rev().find(|migration| migration.kind != Kind::Repeatable).map(|one| &one.version)
    }

    /// The text of the newest version.
    pub fn newest_version(&self) -> SchemaVersion {
        self.newest().map_or(SchemaVersion::from(0), |version| version.text.clone())
    }

    /// The version that a declared one means: that of a migration, or one between them. A text may
    /// leave out the name that is part of the version, as in `0003` for `0003_users`.
    pub fn version(&self, declared: &SchemaVersion) -> Option<Version> {
        let text = declared.as_str();
        let meant = self.scheme.version(text);
        let number =
            meant.as_ref().map_or_else(|| Version::new(declared.clone(), String::new()).number, |one| one.number);
        if let Some(at) = self.index.get(&number) {
            return Some(self.migrations[*at].version.clone());
        }
        let begins = |one: &&Migration| {
            one.version.text.as_str().strip_prefix(text).is_some_and(|rest| rest.starts_with(['_', '-']))
        };
        let mut beginning = self.migrations.iter().filter(begins);
        match (beginning.next(), beginning.next()) {
            (Some(one), None) => Some(one.version.clone()),
            _ => meant,
        }
    }

    /// The number of the migration that has exactly this version.
    pub fn exact(&self, text: &str) -> Option<i64> {
        let meant = self.scheme.version(text).map(|version| version.number);
        let number = meant.unwrap_or_else(|| Version::new(SchemaVersion::new(text), String::new()).number);
        self.index.contains_key(&number).then_some(number)
    }

    /// The place of a version among these; none if it is unknown.
    pub fn place(&self, version: &Version) -> Option<String> {
        if let Some(at) = self.index.get(&version.number) {
            return Some(self.migrations[*at].version.ordinal.clone());
        }
        self.scheme.version(version.text.as_str()).map(|version| version.ordinal)
    }

    /// What the tool does with a pending file that is older than the newest applied one, for a message.
    pub fn late(&self, file: &str) -> &'static str {
        formats::late(self.format, file)
    }

    /// The migration of a version.
    pub fn of(&self, number: i64) -> Option<&Migration> {
        self.index.get(&number).map(|at| &self.migrations[*at])
    }

    /// The migrations that a policy wants.
    ///
    /// # Errors
    /// The target, if no migration has this version.
    pub fn target(&self, policy: &Policy) -> Result<Target, SchemaVersion> {
        let Some(declared) = &policy.target_version else { return Ok(Target::Newest) };
        if declared.is_none() {
            return Ok(Target::Nothing);
        }
        let version = self.version(declared).filter(|version| self.index.contains_key(&version.number));
        let version = version.ok_or_else(|| declared.clone())?;
        Ok(Target::UpTo { is_newest: self.newest() == Some(&version), version })
    }

    /// The same, for a database in which it is run only to see what it makes: there nothing that was
    /// applied before must be doubted.
    pub fn undoubted(&self) -> Self {
        let mut set = self.clone();
        set.migrations.iter_mut().for_each(|migration| migration.doubt = None);
        set
    }

    /// A description for the ledger.
    pub fn report(&self) -> SourceReport {
        SourceReport {
            format: self.format.name().to_owned(),
            ignored: self.ignored.iter().take(IGNORED).map(|name| cut(name, IGNORED_NAME)).collect(),
            ignored_count: i64::try_from(self.ignored.len()).unwrap_or(i64::MAX),
        }
    }
}

/// The migrations that the schema shall have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// All.
    Newest,
    /// None.
    Nothing,
    /// Those up to a version, which may be the newest.
    UpTo {
        /// The version.
        version: Version,
        /// Whether no migration is newer: then the repeatable ones are wanted, too.
        is_newest: bool,
    },
}

impl Target {
    /// Whether a version belongs to it.
    pub fn wants(&self, version: &Version) -> bool {
        match self {
            Self::Newest => true,
            Self::Nothing => false,
            Self::UpTo { is_newest, .. } if is_repeatable(version) => *is_newest,
            Self::UpTo { version: target, .. } => version <= target,
        }
    }
}

/// One migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// Its version.
    pub version: Version,
    /// Its name: what follows the version in the file's name.
    pub name: String,
    /// When it is run.
    pub kind: Kind,
    /// The file that applies it.
    pub up: MigrationFile,
    /// How the up file is run.
    pub mode: Mode,
    /// The file that reverts it.
    pub down: Option<MigrationFile>,
    /// How the down file is run.
    pub down_mode: Mode,
    /// Why it must not be applied; one that is applied already is none the worse for it.
    pub doubt: Option<SourceError>,
    /// Its name in the tool's own table, if that follows from no other part.
    pub key: Option<String>,
}

/// When a migration is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Once, at its place.
    Versioned,
    /// After all others, and again when its text has changed.
    Repeatable,
    /// Once, on an empty database, in place of those up to its version.
    Baseline,
}

/// The start of the text of a repeatable migration's version.
pub(super) const REPEATABLE: &str = "R__";
/// The start of its place, which is after every version. A folder of Prisma may have such a text, too.
pub(super) const LAST: char = '~';

/// Whether a version is that of a repeatable migration.
pub fn is_repeatable(version: &Version) -> bool {
    version.text.as_str().starts_with(REPEATABLE) && version.ordinal.starts_with(LAST)
}

/// The place of a version among those of a tool, which has this name in the spec; none if it is none of
/// that tool.
pub fn place(format: Option<&str>, version: &SchemaVersion) -> Option<String> {
    formats::place(format, version.as_str())
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
    /// The text as the tool reads it, if BEGIN and COMMIT around all of it were left out.
    pub written: Option<String>,
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

    /// Whether a ledger's checksum is that of this text with another option in the file beside it.
    pub fn has_other_option(&self, checksum: &str) -> bool {
        let text = self.written.as_deref().unwrap_or(&self.sql);
        formats::BESIDE.iter().any(|option| sha256(unix_lines(&format!("{option}{text}")).as_bytes()) == checksum)
    }
}

/// A text with LF at the end of each line, the last one too.
pub(super) fn unix_lines(sql: &str) -> String {
    let mut lines = sql.replace("\r\n", "\n");
    if !lines.ends_with('\n') {
        lines.push('\n');
    }
    lines
}

pub(super) fn sha256(bytes: &[u8]) -> String {
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

    pub(super) fn set(message: impl Into<String>) -> Self {
        Self { file: None, line: None, message: message.into() }
    }

    pub(super) fn file(file: &str, message: impl Into<String>) -> Self {
        Self { file: Some(file.to_owned()), line: None, message: message.into() }
    }

    pub(super) fn line(file: &str, line: u32, message: impl Into<String>) -> Self {
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

/// Parses files as migrations: names and contents, in any order. The tool is recognised.
///
/// # Errors
/// If there is none, or one of them is not a migration; the first by name is reported.
pub fn parse(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Result<MigrationSet, SourceError> {
    read(files, MigrationFormat::Auto)
}

/// Parses files of a tool as migrations: names and contents, in any order.
///
/// # Errors
/// If there is none, one of them is not a migration, or they do not fit together.
pub fn read(
    files: impl IntoIterator<Item = (String, Vec<u8>)>,
    format: MigrationFormat,
) -> Result<MigrationSet, SourceError> {
    formats::read(files.into_iter().collect(), format)
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
/// different inputs of the hash. The layout of Servicedb itself has the hash of versions that knew no
/// other; of those of tools, the options beside a file count, too, since another option may let a
/// refused file run.
fn revision(format: MigrationFormat, migrations: &[Migration]) -> String {
    let options: Vec<String> = migrations.iter().map(options).collect();
    let files = migrations.iter().flat_map(|migration| std::iter::once(&migration.up).chain(&migration.down));
    let mut parts: Vec<&str> = files.flat_map(|file| [file.name.as_str(), &file.checksum]).collect();
    if format != MigrationFormat::Servicedb {
        parts.insert(0, format.name());
        parts.extend(options.iter().map(String::as_str));
    }
    hash(&parts)
}

/// How a migration is run, as far as its text does not say so.
fn options(migration: &Migration) -> String {
    let mode = |mode| match mode {
        Mode::Transaction => "transaction",
        Mode::NoTransaction { idempotent: false } => "none",
        Mode::NoTransaction { idempotent: true } => "idempotent",
    };
    let kind = match migration.kind {
        Kind::Versioned => "versioned",
        Kind::Repeatable => "repeatable",
        Kind::Baseline => "baseline",
    };
    let doubted = if migration.doubt.is_some() { "doubted" } else { "" };
    let key = migration.key.as_deref().unwrap_or_default();
    format!("{} {} {kind} {doubted} {key}", mode(migration.mode), mode(migration.down_mode))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(files: &[(&str, &str)]) -> Result<MigrationSet, SourceError> {
        let files = files.iter().map(|(name, content)| ((*name).to_owned(), content.as_bytes().to_vec()));
        read(files, MigrationFormat::Servicedb)
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
        let read: Vec<_> =
            set.migrations.iter().map(|m| (m.version.number, m.name.as_str(), m.down.is_some())).collect();
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
        let read: Vec<_> =
            set.migrations.iter().map(|m| (m.version.number, m.name.as_str(), m.down.is_some())).collect();
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
        let versions: Vec<i64> = set.migrations.iter().map(|migration| migration.version.number).collect();
        assert_eq!(versions, [1, 2, 10, 20_260_102_030_405]);
        assert_eq!(set.newest_version(), 20_260_102_030_405.into());
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
            (&[("README.md", ""), ("1_a/notes.txt", ""), ("data/1.sql", "")], "there are no migrations"),
            (&[("1_a.sql", "")], "1_a.sql: it ends neither"),
            (&[("1_a/notes.sql", "")], "1_a/notes.sql: a migration's folder has"),
            (&[("1_a.up.pgsql", "")], "1_a.up.pgsql: it ends neither"),
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
