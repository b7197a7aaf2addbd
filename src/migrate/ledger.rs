//! The ledger in the database: the applied migrations, and the statements that write it.
//!
//! Statements qualify all names, since a migration may have changed the search path, and every
//! change notifies the agent.

use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::outcome::cut;
use super::source::{Migration, MigrationSet, Mode, mode};
use super::step::{Direction, Step};
use super::version::{Version, padded};
use crate::api::{MigrationState, SchemaVersion};
use crate::contract::migration::{LEDGER_CHANNEL, LEDGER_DDL, SourceReport};
use crate::postgres::literal;

/// How many bytes of an error the ledger keeps: it also goes into the resource's status.
const ERROR_LIMIT: usize = 1024;
/// The error of a completed migration whose down file was started and did not finish.
const ROLLING_BACK: &str = "rolling back";

/// The content of the ledger.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ledger {
    /// The migrations, the lowest version first.
    pub rows: Vec<Row>,
    /// The last completed revision.
    pub revision: Option<String>,
    /// Whether a team's own tool migrated the schema.
    pub by_tool: bool,
    /// The source of the migrations that were run last.
    pub source: Option<SourceReport>,
}

impl Ledger {
    /// Whether no migration was ever completed in it: the schema may be another tool's.
    pub fn is_untouched(&self) -> bool {
        let completed = self.rows.iter().any(|row| row.state == MigrationState::Completed);
        !completed && (self.revision.is_none() || self.by_tool)
    }

    /// Gives the rows the places that the versions have in a set: another file may be in between by
    /// now.
    pub fn arrange(&mut self, set: &MigrationSet) {
        for row in &mut self.rows {
            if let Some(ordinal) = set.place(&row.version).filter(|ordinal| *ordinal != row.version.ordinal) {
                (row.version.ordinal, row.moved) = (ordinal, true);
            }
        }
        self.rows.sort_by(|one, other| one.version.cmp(&other.version));
    }
}

/// One migration in the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its version.
    pub version: Version,
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: MigrationState,
    /// The checksum of the file that was run.
    pub checksum: String,
    /// How its stored down file is run, if it has one.
    pub down: Option<Mode>,
    /// Whether the down file was started and did not finish.
    pub half_reverted: bool,
    /// Whether the ledger has an error for it.
    pub has_error: bool,
    /// Whether its place is another one than the ledger has.
    pub moved: bool,
}

/// Creates the ledger if it is missing, and reads it.
///
/// # Errors
/// Any error of the server.
pub async fn open(client: &Client) -> Result<Ledger, tokio_postgres::Error> {
    read(client, LEDGER_DDL, TODAY).await
}

/// Reads the ledger, which may not exist; changes nothing.
///
/// # Errors
/// Any error of the server.
pub async fn look(client: &Client) -> Result<Ledger, tokio_postgres::Error> {
    let columns = "SELECT attname::pg_catalog.text FROM pg_catalog.pg_attribute \
                   WHERE attrelid = pg_catalog.to_regclass('servicedb.migrations') AND attname IN ('version', 'version_text')";
    match client.query(columns, &[]).await?.len() {
        0 => Ok(Ledger::default()),
        1 => read(client, "", EARLIER).await,
        _ => read(client, "", TODAY).await,
    }
}

/// The last completed revision, from a ledger of any version.
///
/// # Errors
/// Any error of the server; a missing ledger is an error, too.
pub async fn revision(client: &Client) -> Result<Option<String>, tokio_postgres::Error> {
    let row = client.query_opt("SELECT revision FROM servicedb.revision", &[]).await?;
    Ok(row.map(|row| row.get(0)))
}

/// The columns that a ledger of an earlier version lacks.
const TODAY: &str = "version_text, ordinal, down_mode";
/// In their place.
const EARLIER: &str = "NULL, NULL, NULL";

/// Reads it after these statements, in one round trip.
async fn read(client: &Client, first: &str, columns: &str) -> Result<Ledger, tokio_postgres::Error> {
    // Of a down file, which may be long, only the first line, which sets how it is run.
    let statements = format!(
        "{first}\n\
         SELECT version, name, status, checksum, pg_catalog.split_part(down_sql, E'\\n', 1), error = '{ROLLING_BACK}', \
         error IS NOT NULL, {columns} \
         FROM servicedb.migrations;\n\
         SELECT revision, pg_catalog.to_jsonb(r) ->> 'version' IS NOT NULL, pg_catalog.to_jsonb(r) ->> 'source' \
         FROM servicedb.revision r"
    );
    let mut ledger = Ledger::default();
    for message in client.simple_query(&statements).await? {
        let SimpleQueryMessage::Row(row) = message else { continue };
        if row.len() == 3 {
            ledger.revision = row.get(0).map(str::to_owned);
            ledger.by_tool = row.get(1) == Some("t");
            ledger.source = row.get(2).and_then(|json| serde_json::from_str(json).ok());
        } else {
            ledger.rows.extend(read_row(&row));
        }
    }
    ledger.rows.sort_by(|one, other| one.version.cmp(&other.version));
    Ok(ledger)
}

/// The columns are NOT NULL and constrained by the ledger's own definition.
fn read_row(row: &SimpleQueryRow) -> Option<Row> {
    let state = match row.get(2)? {
        "completed" => MigrationState::Completed,
        "executing" => MigrationState::Executing,
        "failed" => MigrationState::Failed,
        _ => MigrationState::Pending,
    };
    let number = row.get(0)?;
    let text = SchemaVersion::new(row.get(7).unwrap_or(number));
    let ordinal = row.get(8).map_or_else(|| padded(number), str::to_owned);
    let down = row.get(4).map(|line| down_mode(row.get(9), mode(line)));
    Some(Row {
        version: Version { number: number.parse().ok()?, text, ordinal },
        name: row.get(1)?.to_owned(),
        state,
        checksum: row.get(3)?.to_owned(),
        down,
        half_reverted: state == MigrationState::Completed && row.get(5) == Some("t"),
        has_error: row.get(6) == Some("t"),
        moved: false,
    })
}

/// How a down file is run: as the ledger says, or as its first line does. Where both say that it runs
/// without a transaction, the line counts, which a person may have corrected.
fn down_mode(stored: Option<&str>, by_line: Mode) -> Mode {
    match stored.filter(|text| !text.is_empty()).map(|text| mode(&format!("-- {text}"))) {
        None => by_line,
        Some(Mode::NoTransaction { .. }) if by_line != Mode::Transaction => by_line,
        Some(stored) => stored,
    }
}

/// What [`down_mode`] reads: nothing if the first line of the text says the same.
fn mode_text(mode: Mode, by_line: Mode) -> &'static str {
    match mode {
        _ if mode == by_line => "NULL",
        Mode::Transaction => "'transaction'",
        Mode::NoTransaction { idempotent: false } => "'no-transaction'",
        Mode::NoTransaction { idempotent: true } => "'no-transaction idempotent'",
    }
}

/// A down file stored in the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct DownFile {
    /// The version that it reverts.
    pub version: Version,
    /// How it is run.
    pub mode: Mode,
    /// Its name.
    pub name: String,
    /// Its text.
    pub sql: String,
}

/// The stored down files of migrations, in this order.
///
/// # Errors
/// Any error of the server; a migration without one is an error, too.
pub async fn down_files(client: &Client, rows: &[&Row]) -> Result<Vec<DownFile>, tokio_postgres::Error> {
    let mut files = Vec::with_capacity(rows.len());
    for row in rows {
        let query = "SELECT down_file, down_sql FROM servicedb.migrations WHERE version = $1 AND down_sql IS NOT NULL";
        let stored = client.query_one(query, &[&row.version.number]).await?;
        let (version, mode) = (row.version.clone(), row.down.unwrap_or(Mode::Transaction));
        files.push(DownFile { version, mode, name: stored.get(0), sql: stored.get(1) });
    }
    Ok(files)
}

/// The statements that record new migrations as pending.
pub fn announce(migrations: &[&Migration]) -> String {
    let values = |migration: &&Migration| {
        let (name, checksum) = (literal(&migration.name), literal(&migration.up.checksum));
        format!("({}, {name}, {checksum}, 'pending', {})", migration.version.number, placed(&migration.version))
    };
    let rows: Vec<String> = migrations.iter().map(values).collect();
    format!(
        "INSERT INTO servicedb.migrations (version, name, checksum, status, version_text, ordinal) VALUES\n{};\n",
        rows.join(",\n")
    )
}

/// The text and the place of a version, as values of a row.
fn placed(version: &Version) -> String {
    format!("{}, {}", literal(version.text.as_str()), literal(&version.ordinal))
}

/// The statements that remove migrations that were recorded and never completed.
pub fn withdraw(versions: &[i64]) -> String {
    format!("DELETE FROM servicedb.migrations WHERE status <> 'completed' AND version IN ({});\n", list(versions))
}

/// The statements that record another place of versions.
pub fn move_to(versions: &[&Version]) -> String {
    let rows: Vec<String> =
        versions.iter().map(|version| format!("({}, {})", version.number, placed(version))).collect();
    format!(
        "UPDATE servicedb.migrations AS m SET version_text = v.version_text, ordinal = v.ordinal \
         FROM (VALUES {}) AS v (version, version_text, ordinal) WHERE m.version = v.version;\n",
        rows.join(", ")
    )
}

/// The statements that clear the error of completed migrations.
pub fn whole_again(versions: &[i64]) -> String {
    format!("UPDATE servicedb.migrations SET error = NULL WHERE version IN ({});\n", list(versions))
}

fn list(versions: &[i64]) -> String {
    versions.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
}

/// The statements that record migrations that another tool has applied.
pub fn baseline(migrations: &[&Migration]) -> String {
    let mut statements = String::new();
    for migration in migrations {
        statements += &format!("{}\n", upsert(migration, "completed", "duration_ms = 0"));
    }
    statements
}

/// The statement that notifies the agent of a changed ledger.
pub fn notify() -> String {
    format!("NOTIFY {LEDGER_CHANNEL};")
}

/// The statements that mark a step as started: two of them, which the runner relies on.
pub fn begun(step: &Step<'_>) -> String {
    let mark = match step.direction {
        Direction::Up(migration) => upsert(migration, "executing", "duration_ms = NULL"),
        Direction::Down => {
            format!("UPDATE servicedb.migrations SET error = '{ROLLING_BACK}' WHERE version = {};", step.version.number)
        }
    };
    format!("{mark} {}", notify())
}

fn upsert(migration: &Migration, status: &str, more: &str) -> String {
    let (down_file, down_sql, down_mode) = match &migration.down {
        Some(down) => (literal(&down.name), literal(&down.sql), mode_text(migration.down_mode, mode(&down.sql))),
        None => ("NULL".to_owned(), "NULL".to_owned(), "NULL"),
    };
    format!(
        "INSERT INTO servicedb.migrations (version, name, checksum, status, down_file, down_sql, down_mode, version_text, \
         ordinal) \
         VALUES ({}, {}, {}, '{status}', {down_file}, {down_sql}, {down_mode}, {}) \
         ON CONFLICT (version) DO UPDATE SET name = EXCLUDED.name, checksum = EXCLUDED.checksum, \
         status = EXCLUDED.status, down_file = EXCLUDED.down_file, down_sql = EXCLUDED.down_sql, \
         down_mode = EXCLUDED.down_mode, version_text = EXCLUDED.version_text, ordinal = EXCLUDED.ordinal, \
         started_at = pg_catalog.clock_timestamp(), error = NULL, {more};",
        migration.version.number,
        literal(&migration.name),
        literal(&migration.up.checksum),
        placed(&migration.version),
    )
}

/// The statements that mark a step as done, for the transaction that did it.
pub fn done(step: &Step<'_>) -> String {
    let mark = match step.direction {
        Direction::Up(_) => format!(
            "UPDATE servicedb.migrations SET status = 'completed', error = NULL, duration_ms = \
             (extract(epoch FROM pg_catalog.clock_timestamp() - started_at) * 1000)::pg_catalog.int8 \
             WHERE version = {};",
            step.version.number
        ),
        Direction::Down => format!("DELETE FROM servicedb.migrations WHERE version = {};", step.version.number),
    };
    format!("{mark} {}", notify())
}

/// The statements that mark a step as failed, after it was rolled back. A migration that could not
/// be reverted is applied as before, with the error.
pub fn failed(step: &Step<'_>, error: &str, duration_ms: u64) -> String {
    let error = literal(&cut(error, ERROR_LIMIT));
    let mark = match step.direction {
        Direction::Up(migration) => format!(
            "INSERT INTO servicedb.migrations (version, name, checksum, status, error, started_at, duration_ms, \
             version_text, ordinal) \
             VALUES ({version}, {name}, {checksum}, 'failed', {error}, \
             pg_catalog.clock_timestamp() - interval '{duration_ms} milliseconds', {duration_ms}, {placed}) \
             ON CONFLICT (version) DO UPDATE SET name = EXCLUDED.name, checksum = EXCLUDED.checksum, \
             status = EXCLUDED.status, error = EXCLUDED.error, started_at = EXCLUDED.started_at, \
             duration_ms = EXCLUDED.duration_ms;",
            version = migration.version.number,
            placed = placed(&migration.version),
            name = literal(&migration.name),
            checksum = literal(&migration.up.checksum),
        ),
        // Without a transaction it may be partly reverted: then the mark is kept.
        Direction::Down if step.mode == Mode::Transaction => {
            format!("UPDATE servicedb.migrations SET error = {error} WHERE version = {};", step.version.number)
        }
        Direction::Down => String::new(),
    };
    format!("{mark} {}", notify())
}

/// The statements that mark a step as not started, after it was rolled back for another cause than
/// an error of its own.
pub fn postponed(step: &Step<'_>) -> String {
    let change = match step.direction {
        Direction::Up(_) => "status = 'pending', duration_ms = NULL",
        Direction::Down => "error = NULL",
    };
    format!("UPDATE servicedb.migrations SET {change} WHERE version = {}; {}", step.version.number, notify())
}

/// The statement that records that no revision is complete. The row is kept: it distinguishes a
/// schema that was rolled back from one that another tool has created.
pub fn incomplete() -> &'static str {
    "UPDATE servicedb.revision SET revision = '';\n"
}

/// The statements that record that a revision has reached its target. `version` is the schema's
/// version according to a team's own tool, empty if unknown; with migrations from files the rows
/// have it, and `source` describes them.
pub fn complete_revision(goal: &str, version: Option<&str>, source: Option<&SourceReport>) -> String {
    let text = |text: Option<&str>| text.map_or_else(|| "NULL".to_owned(), literal);
    // A document of strings and numbers can always be serialised.
    let source = source.map(|source| serde_json::to_string(source).unwrap_or_default());
    let (goal, version, source) = (literal(goal), text(version), text(source.as_deref()));
    format!(
        "INSERT INTO servicedb.revision (revision, version, source) VALUES ({goal}, {version}, {source}) \
         ON CONFLICT (only_row) DO UPDATE SET revision = EXCLUDED.revision, version = EXCLUDED.version, \
         source = EXCLUDED.source, completed_at = pg_catalog.clock_timestamp(); {}",
        notify()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_down_file_is_run_as_it_was_stored_unless_its_line_was_corrected() {
        const BARE: Mode = Mode::NoTransaction { idempotent: false };
        const AGAIN: Mode = Mode::NoTransaction { idempotent: true };
        for mode in [Mode::Transaction, BARE, AGAIN] {
            for by_line in [Mode::Transaction, BARE, AGAIN] {
                let text = mode_text(mode, by_line);
                let stored = (text != "NULL").then(|| text.trim_matches('\''));
                // Two lines that differ in no more than being idempotent are those of a correction.
                let expected = if mode != Mode::Transaction && by_line != Mode::Transaction { by_line } else { mode };
                assert_eq!(down_mode(stored, by_line), expected, "{text} {by_line:?}");
            }
        }
        assert_eq!(down_mode(Some("no-transaction"), AGAIN), AGAIN);
        assert_eq!(down_mode(None, AGAIN), AGAIN);
    }
}
