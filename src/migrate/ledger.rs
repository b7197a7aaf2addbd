//! The ledger in the database: what was applied, and what a set of migrations still needs.
//!
//! Statements name everything with its schema, since a migration may have moved the
//! search path, and every change tells the agent.

use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::outcome::{Stopped, cut};
use super::source::{Migration, MigrationSet, Mode};
use crate::api::MigrationState;
use crate::api::conditions::reason;
use crate::contract::migration::{LEDGER_CHANNEL, LEDGER_DDL};
use crate::postgres::literal;

/// How many bytes of an error the ledger keeps: it also goes into the resource's status.
const ERROR_LIMIT: usize = 1024;

/// What the database says of its migrations.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ledger {
    /// The migrations, the lowest version first.
    pub rows: Vec<Row>,
    /// The revision that was last found complete.
    pub revision: Option<String>,
}

/// One migration in the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its version.
    pub version: i64,
    /// Its name.
    pub name: String,
    /// Where it is.
    pub state: MigrationState,
    /// The checksum of the file that was run.
    pub checksum: String,
}

/// What there is to do.
#[derive(Debug, PartialEq)]
pub struct Plan<'a> {
    /// The migrations to apply, in order.
    pub pending: Vec<&'a Migration>,
    /// Versions that the ledger does not know yet.
    unknown: Vec<&'a Migration>,
    /// Versions in the ledger that never were completed and that the source has no more.
    withdrawn: Vec<i64>,
}

/// Makes sure that there is a ledger, and reads it.
///
/// # Errors
/// Whatever the server said.
pub async fn open(client: &Client) -> Result<Ledger, tokio_postgres::Error> {
    let statements = format!(
        "{LEDGER_DDL}\n\
         SELECT version, name, status, checksum FROM servicedb.migrations ORDER BY version;\n\
         SELECT revision FROM servicedb.revision"
    );
    let mut ledger = Ledger::default();
    for message in client.simple_query(&statements).await? {
        let SimpleQueryMessage::Row(row) = message else { continue };
        if row.len() == 1 {
            ledger.revision = row.get(0).map(str::to_owned);
        } else {
            ledger.rows.extend(read_row(&row));
        }
    }
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
    let version = row.get(0)?.parse().ok()?;
    Some(Row { version, name: row.get(1)?.to_owned(), state, checksum: row.get(3)?.to_owned() })
}

/// Compares a set of migrations with the ledger.
///
/// # Errors
/// If the two contradict one another: then nothing may run.
pub fn plan<'a>(set: &'a MigrationSet, ledger: &Ledger) -> Result<Plan<'a>, Stopped> {
    let in_source = |version: i64| set.migrations.iter().find(|migration| migration.version == version);
    let in_ledger = |version: i64| ledger.rows.iter().find(|row| row.version == version);
    let completed = || ledger.rows.iter().filter(|row| row.state == MigrationState::Completed);

    for row in completed() {
        if let Some(migration) = in_source(row.version).filter(|migration| migration.up.checksum != row.checksum) {
            let message = format!(
                "this migration was applied and its file was edited afterwards: restore the file as it was applied \
                 (its SHA-256 then was {}), and put the change into a new migration",
                row.checksum
            );
            return Err(Stopped::refused(reason::CHECKSUM_MISMATCH, Some(&migration.up.name), message));
        }
    }

    let newest_completed = completed().next_back().map(|row| row.version);
    let missing: Vec<&Row> = completed().filter(|row| in_source(row.version).is_none()).collect();
    if !missing.is_empty() {
        return Err(refuse_missing(&missing, newest_completed, set.newest_version()));
    }

    let pending: Vec<&Migration> = set
        .migrations
        .iter()
        .filter(|migration| in_ledger(migration.version).is_none_or(|row| row.state != MigrationState::Completed))
        .collect();
    if let (Some(first), Some(newest)) = (pending.first(), newest_completed)
        && first.version < newest
    {
        let message = format!(
            "version {} was never applied, but the newer version {newest} was: give the migration a version above {newest}",
            first.version
        );
        return Err(Stopped::refused(reason::OUT_OF_ORDER, Some(&first.up.name), message));
    }
    for migration in &pending {
        if let Some(row) = in_ledger(migration.version).filter(|row| may_be_half_done(migration, row)) {
            return Err(refuse_half_done(migration, row));
        }
    }
    Ok(Plan {
        unknown: pending.iter().copied().filter(|migration| in_ledger(migration.version).is_none()).collect(),
        withdrawn: ledger.rows.iter().map(|row| row.version).filter(|version| in_source(*version).is_none()).collect(),
        pending,
    })
}

fn refuse_missing(missing: &[&Row], newest_completed: Option<i64>, newest_in_source: i64) -> Stopped {
    const SHOWN: usize = 5;
    let mut names: Vec<String> =
        missing.iter().take(SHOWN).map(|row| format!("{} ({})", row.version, row.name)).collect();
    if missing.len() > SHOWN {
        names.push(format!("and {} more", missing.len() - SHOWN));
    }
    let names = names.join(", ");
    if newest_completed.is_some_and(|newest| newest > newest_in_source) {
        let message = format!(
            "the database is ahead of the source, whose newest version is {newest_in_source}; applied and not in the \
             source: {names}. Declare the migrations that belong to this database"
        );
        return Stopped::refused(reason::AHEAD_OF_SOURCE, None, message);
    }
    let message = format!("applied to the database and missing in the source: {names}. Put the files back");
    Stopped::refused(reason::MIGRATIONS_MISSING, None, message)
}

/// A file in a transaction leaves nothing when it is interrupted. One without may: unless it
/// says that it is safe to run again, somebody has to look. After a failure that is told,
/// an edited file shows that somebody did.
fn may_be_half_done(migration: &Migration, row: &Row) -> bool {
    if migration.mode != (Mode::NoTransaction { idempotent: false }) {
        return false;
    }
    match row.state {
        MigrationState::Executing => true,
        MigrationState::Failed => row.checksum == migration.up.checksum,
        MigrationState::Pending | MigrationState::Completed => false,
    }
}

fn refuse_half_done(migration: &Migration, row: &Row) -> Stopped {
    let happened = if row.state == MigrationState::Failed { "failed" } else { "was interrupted" };
    let message = format!(
        "this migration runs without a transaction and {happened}, so it may be half done. Look at what it left; then \
         make it safe to run again (IF NOT EXISTS, DROP INDEX CONCURRENTLY IF EXISTS first) with the first line \
         '-- no-transaction idempotent'; or, if all of it is there, run: \
         UPDATE servicedb.migrations SET status = 'completed' WHERE version = {}",
        migration.version
    );
    Stopped::refused(reason::MIGRATION_FAILED, Some(&migration.up.name), message)
}

impl Plan<'_> {
    /// The statements that bring the list of pending migrations into the ledger, if it lacks any.
    pub fn announce(&self) -> Option<String> {
        let mut statements = String::new();
        if !self.withdrawn.is_empty() {
            let versions: Vec<String> = self.withdrawn.iter().map(i64::to_string).collect();
            statements += &format!(
                "DELETE FROM servicedb.migrations WHERE status <> 'completed' AND version IN ({});\n",
                versions.join(", ")
            );
        }
        if !self.unknown.is_empty() {
            let rows: Vec<String> = self.unknown.iter().map(|migration| values(migration, "pending")).collect();
            statements += &format!(
                "INSERT INTO servicedb.migrations (version, name, checksum, status) VALUES\n{};\n",
                rows.join(",\n")
            );
        }
        (!statements.is_empty()).then(|| format!("{statements}NOTIFY {LEDGER_CHANNEL};"))
    }
}

/// The statements that mark a migration as executing.
pub fn executing(migration: &Migration) -> String {
    format!(
        "INSERT INTO servicedb.migrations (version, name, checksum, status) VALUES {} \
         ON CONFLICT (version) DO UPDATE SET name = EXCLUDED.name, checksum = EXCLUDED.checksum, \
         status = EXCLUDED.status, started_at = pg_catalog.clock_timestamp(), duration_ms = NULL, error = NULL; \
         NOTIFY {LEDGER_CHANNEL};",
        values(migration, "executing")
    )
}

/// The statements that mark a migration as completed, for the transaction that did it.
pub fn completed(migration: &Migration) -> String {
    format!(
        "UPDATE servicedb.migrations SET status = 'completed', error = NULL, duration_ms = \
         (extract(epoch FROM pg_catalog.clock_timestamp() - started_at) * 1000)::pg_catalog.int8 WHERE version = {}; \
         NOTIFY {LEDGER_CHANNEL};",
        migration.version
    )
}

/// The statements that mark a migration as failed, after all of it was rolled back.
pub fn failed(migration: &Migration, error: &str, duration_ms: u64) -> String {
    format!(
        "INSERT INTO servicedb.migrations (version, name, checksum, status, error, started_at, duration_ms) \
         VALUES ({version}, {name}, {checksum}, 'failed', {error}, \
         pg_catalog.clock_timestamp() - interval '{duration_ms} milliseconds', {duration_ms}) \
         ON CONFLICT (version) DO UPDATE SET name = EXCLUDED.name, checksum = EXCLUDED.checksum, \
         status = EXCLUDED.status, error = EXCLUDED.error, started_at = EXCLUDED.started_at, \
         duration_ms = EXCLUDED.duration_ms; NOTIFY {LEDGER_CHANNEL};",
        version = migration.version,
        name = literal(&migration.name),
        checksum = literal(&migration.up.checksum),
        error = literal(&cut(error, ERROR_LIMIT)),
    )
}

/// The statements that mark a migration as pending again, after all of it was rolled back
/// without being its fault.
pub fn postponed(migration: &Migration) -> String {
    format!(
        "UPDATE servicedb.migrations SET status = 'pending', duration_ms = NULL WHERE version = {}; \
         NOTIFY {LEDGER_CHANNEL};",
        migration.version
    )
}

/// The statements that record a revision as complete.
pub fn complete_revision(revision: &str) -> String {
    format!(
        "INSERT INTO servicedb.revision (revision) VALUES ({}) ON CONFLICT (only_row) DO UPDATE \
         SET revision = EXCLUDED.revision, completed_at = pg_catalog.clock_timestamp(); NOTIFY {LEDGER_CHANNEL};",
        literal(revision)
    )
}

fn values(migration: &Migration, status: &str) -> String {
    let (name, checksum) = (literal(&migration.name), literal(&migration.up.checksum));
    format!("({}, {name}, {checksum}, '{status}')", migration.version)
}

#[cfg(test)]
mod tests {
    use MigrationState::{Completed, Executing, Failed, Pending};

    use super::*;
    use crate::migrate::source;

    fn set(files: &[(&str, &str)]) -> MigrationSet {
        let files = files.iter().map(|(name, sql)| (format!("{name}.up.sql"), sql.as_bytes().to_vec()));
        source::parse(files).expect("valid migrations")
    }

    /// A ledger of these states, with the checksums that the set has.
    fn ledger(set: &MigrationSet, states: &[(i64, MigrationState)]) -> Ledger {
        let checksum = |version| set.migrations.iter().find(|m| m.version == version).map(|m| m.up.checksum.clone());
        let row = |(version, state): &(i64, MigrationState)| Row {
            version: *version,
            name: format!("m{version}"),
            state: *state,
            checksum: checksum(*version).unwrap_or_default(),
        };
        Ledger { rows: states.iter().map(row).collect(), revision: None }
    }

    fn versions(plan: &Plan<'_>) -> Vec<i64> {
        plan.pending.iter().map(|migration| migration.version).collect()
    }

    #[test]
    fn what_is_not_completed_is_pending() {
        let set = set(&[("1_a", "1"), ("2_b", "2"), ("3_c", "3")]);
        for (states, expected) in [
            (vec![], vec![1, 2, 3]),
            (vec![(1, Completed)], vec![2, 3]),
            (vec![(1, Completed), (2, Failed), (3, Pending)], vec![2, 3]),
            (vec![(1, Completed), (2, Executing)], vec![2, 3]),
            (vec![(1, Completed), (2, Completed), (3, Completed)], vec![]),
            (vec![(1, Completed), (2, Completed), (9, Failed)], vec![3]),
        ] {
            let ledger = ledger(&set, &states);
            assert_eq!(versions(&plan(&set, &ledger).expect("no contradiction")), expected, "{states:?}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let set = set(&[("1_a", "1"), ("3_c", "3")]);
        for (states, expected, word) in [
            (vec![(1, Completed), (2, Completed)], reason::MIGRATIONS_MISSING, "2 (m2)"),
            (vec![(1, Completed), (3, Completed), (4, Completed)], reason::AHEAD_OF_SOURCE, "4 (m4)"),
            (vec![(2, Completed), (9, Completed)], reason::AHEAD_OF_SOURCE, "2 (m2), 9 (m9)"),
            (vec![(3, Completed)], reason::OUT_OF_ORDER, "version above 3"),
            (vec![(1, Failed), (3, Completed)], reason::OUT_OF_ORDER, "version above 3"),
        ] {
            let refusal = plan(&set, &ledger(&set, &states)).expect_err("a contradiction").failure;
            assert_eq!(refusal.reason, expected, "{states:?}");
            assert!(refusal.message.contains(word) && !refusal.transient, "{refusal:?}");
        }
        let mut edited = ledger(&set, &[(1, Completed), (2, Completed)]);
        edited.rows[0].checksum = "another".to_owned();
        let refusal = plan(&set, &edited).expect_err("edited").failure;
        assert_eq!((refusal.reason.as_str(), refusal.file.as_deref()), (reason::CHECKSUM_MISMATCH, Some("1_a.up.sql")));
    }

    #[test]
    fn a_failed_or_interrupted_file_is_run_again_unless_it_may_be_half_done() {
        let transaction = set(&[("1_a", "SELECT 1")]);
        let bare = set(&[("1_a", "-- no-transaction\nSELECT 1")]);
        let idempotent = set(&[("1_a", "-- no-transaction idempotent\nSELECT 1")]);
        for (set, state, runs) in [
            (&transaction, Executing, true),
            (&transaction, Failed, true),
            (&idempotent, Executing, true),
            (&bare, Pending, true),
            (&bare, Executing, false),
            (&bare, Failed, false),
        ] {
            let result = plan(set, &ledger(set, &[(1, state)]));
            assert_eq!(result.is_ok(), runs, "{state:?} {:?}", set.migrations[0].mode);
            if let Err(refusal) = result {
                assert!(refusal.failure.message.contains("half done") && !refusal.failure.transient);
            }
        }
        let mut failed = ledger(&bare, &[(1, Failed)]);
        failed.rows[0].checksum = "the file before it was mended".to_owned();
        assert!(plan(&bare, &failed).is_ok());
    }

    #[test]
    fn announcing_withdraws_what_the_source_no_longer_has() {
        let set = set(&[("1_a", "1"), ("2_o-b", "2")]);
        let statements =
            |states: &[(i64, MigrationState)]| plan(&set, &ledger(&set, states)).expect("no contradiction").announce();
        assert_eq!(statements(&[(1, Completed), (2, Pending)]), None);
        let sql = statements(&[(1, Completed), (7, Failed)]).expect("something to announce");
        assert!(sql.contains("version IN (7)") && sql.contains("(2, 'o-b', '") && !sql.contains("(1, "), "{sql}");
    }
}
