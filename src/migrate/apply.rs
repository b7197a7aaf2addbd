//! Runs one file of a migration and updates the ledger with it.

use std::time::{Duration, Instant};

use futures::StreamExt;
use rand::Rng;
use tokio_postgres::error::{DbError, ErrorPosition, SqlState};
use tokio_postgres::{Client, Error, SimpleQueryMessage};

use super::lexer;
use super::outcome::{Stopped, one_line};
use super::session::{Limits, Settings};
use super::source::Mode;
use super::step::{Direction, Step};
use super::stop::Stop;
use super::{ledger, source};
use crate::api::conditions::reason;
use crate::contract::migration::Failure;
use crate::postgres::describe;

/// Applies migrations.
pub struct Applier<'a> {
    /// A session that holds the lock.
    pub client: &'a Client,
    /// The session's settings for each file.
    pub settings: &'a Settings,
    /// The timeouts.
    pub limits: &'a Limits,
    /// The request to stop.
    pub stop: &'a Stop,
}

/// The progress of a batch of statements, and its error.
struct Broken {
    completed: usize,
    error: Error,
}

/// The position of an error in a file.
struct Place {
    /// The line of the failing statement; none after the last one.
    line: Option<u32>,
    /// In bytes from the start of the file, if the server reports it.
    offset: Option<usize>,
}

/// A part of a file that is sent as one message: the server parses a message as a whole.
struct Piece {
    /// Its start, in bytes.
    start: usize,
    /// The index of its first statement.
    first: usize,
}

/// How many statements, and how many bytes before the last one, a message has.
const PIECE_STATEMENTS: usize = 10_000;
const PIECE_BYTES: usize = 1 << 20;

impl Applier<'_> {
    /// Runs one file.
    ///
    /// # Errors
    /// If it fails (then the ledger records it), waits for a lock for too long, is interrupted, or
    /// loses the connection.
    pub async fn apply(&self, step: &Step<'_>) -> Result<(), Stopped> {
        let refused = |line, problem| {
            let mut stopped = Stopped::refused(reason::INVALID_MIGRATIONS, Some(step.file), problem);
            (stopped.failure.line, stopped.failure.reverting) = (Some(line), step.direction == Direction::Down);
            stopped
        };
        let mut pieces = vec![Piece { start: 0, first: 0 }];
        for (index, statement) in lexer::statements(step.sql).enumerate() {
            let statement = statement.map_err(|error| refused(error.line, error.message))?;
            // A person may have changed the ledger's copy of a down file. COPY from the client would leave
            // the session waiting for data, with its locks.
            if let Some(problem) = source::forbidden(&statement) {
                return Err(refused(statement.line, problem));
            }
            if let Some(last) = pieces.last()
                && (index - last.first >= PIECE_STATEMENTS || statement.offset - last.start >= PIECE_BYTES)
            {
                pieces.push(Piece { start: statement.offset, first: index });
            }
        }
        match step.mode {
            Mode::Transaction => self.in_transaction(step, &pieces).await,
            Mode::NoTransaction { .. } => self.one_by_one(step).await,
        }
    }

    /// One round trip, unless the file is a long one: the mark that it was started, committed separately;
    /// then, in one transaction, the file, the session's settings (the file may have changed them, and the
    /// role) and the mark that it is done. The first commit needs no flush: if a crash loses it, it loses
    /// the second one too.
    async fn in_transaction(&self, step: &Step<'_>, pieces: &[Piece]) -> Result<(), Stopped> {
        let opening = ["BEGIN;", "SET LOCAL synchronous_commit = off;", &ledger::begun(step), "COMMIT;BEGIN;\n"];
        // BEGIN, SET, INSERT or UPDATE, NOTIFY, COMMIT, BEGIN.
        let opening_statements = 6;
        let opening = opening.concat();
        let closing = format!("\n;{} {} COMMIT", self.settings.sql(), ledger::done(step));
        let started = Instant::now();
        let mut attempt = 1;
        loop {
            let Err((at, broken)) = self.send(step.sql, pieces, &opening, &closing).await else { return Ok(()) };
            let Some(db) = fault(&broken.error) else { return Err(lost_in(step, &broken.error)) };
            if is_conflict(db.code()) && attempt < self.limits.conflict_attempts && !self.stop.is_requested() {
                tracing::info!(
                    file = step.file,
                    sqlstate = db.code().code(),
                    attempt,
                    "rolled back because of a lock; retrying"
                );
                self.record("ROLLBACK").await?;
                self.stop.sleep(self.pause(attempt)).await;
                attempt += 1;
                continue;
            }
            if self.is_cancelled(db) {
                self.record(&format!("ROLLBACK; {} {}", self.settings.sql(), ledger::postponed(step))).await?;
                return Err(Stopped::interrupted());
            }
            let (sent_before, completed) = match at {
                0 => (opening.chars().count(), broken.completed.saturating_sub(opening_statements)),
                _ => (0, broken.completed),
            };
            let failing = lexer::statements(step.sql).nth(pieces[at].first + completed);
            let text = piece(step.sql, pieces, at);
            let place = Place {
                line: failing.and_then(Result::ok).map(|statement| statement.line),
                offset: position(db)
                    .and_then(|position| position.checked_sub(sent_before))
                    .and_then(|position| byte_offset(text, position))
                    .map(|offset| pieces[at].start + offset),
            };
            let failure = failure(step, db, &place, "all of the file is rolled back");
            return Err(self.failed(step, failure, started.elapsed()).await);
        }
    }

    /// One round trip per statement; nothing is rolled back. The mark that it was started must be on
    /// disk before the first statement, so that a crash cannot hide a partly applied file.
    async fn one_by_one(&self, step: &Step<'_>) -> Result<(), Stopped> {
        self.record(&ledger::begun(step)).await?;
        let started = Instant::now();
        // They were all readable before.
        for (index, statement) in lexer::statements(step.sql).filter_map(Result::ok).enumerate() {
            let done = if index == 0 {
                "no statement of the file was applied; a concurrent index build may leave an invalid index: drop it"
            } else {
                "the previous statements were applied and are kept: make the file safe to run again"
            };
            let asked_to_end = || Failure {
                file: Some(step.file.to_owned()),
                line: Some(statement.line),
                message: format!("the run was stopped here; {done}"),
                ..Stopped::interrupted().failure
            };
            if self.stop.is_requested() {
                return Err(self.failed(step, asked_to_end(), started.elapsed()).await);
            }
            // Building an index concurrently waits for other sessions without blocking them.
            let wait = if statement.contains(&["CONCURRENTLY"]) { Duration::ZERO } else { self.limits.table_lock };
            self.record(&format!("SET lock_timeout = {}", wait.as_millis())).await?;
            let Err(broken) = self.execute(statement.text).await else { continue };
            let Some(db) = fault(&broken.error) else { return Err(lost_in(step, &broken.error)) };
            let failure = if self.is_cancelled(db) {
                asked_to_end()
            } else {
                let offset =
                    position(db).and_then(|at| byte_offset(statement.text, at)).map(|at| at + statement.offset);
                failure(step, db, &Place { line: Some(statement.line), offset }, done)
            };
            return Err(self.failed(step, failure, started.elapsed()).await);
        }
        self.record(&format!("{} {}", self.settings.sql(), ledger::done(step))).await
    }

    /// The delay after an attempt; with jitter, so that two runs do not collide again.
    fn pause(&self, attempt: u32) -> Duration {
        let pause = self.limits.conflict_pause * 2_u32.pow(attempt - 1);
        pause.mul_f64(rand::rng().random_range(0.5..1.5))
    }

    /// Whether the statement ended because this run was stopped.
    fn is_cancelled(&self, error: &DbError) -> bool {
        self.stop.is_requested() && *error.code() == SqlState::QUERY_CANCELED
    }

    /// Sends a file in its pieces, with statements before the first and after the last; the error is of the
    /// piece with this index.
    async fn send(&self, sql: &str, pieces: &[Piece], opening: &str, closing: &str) -> Result<(), (usize, Broken)> {
        for at in 0..pieces.len() {
            let before = if at == 0 { opening } else { "" };
            let after = if at + 1 == pieces.len() { closing } else { "" };
            let message = format!("{before}{}{after}", piece(sql, pieces, at));
            self.execute(&message).await.map_err(|broken| (at, broken))?;
        }
        Ok(())
    }

    async fn execute(&self, statements: &str) -> Result<(), Broken> {
        let broken = |completed, error| Broken { completed, error };
        let stream = self.client.simple_query_raw(statements).await.map_err(|error| broken(0, error))?;
        let mut stream = std::pin::pin!(stream);
        let mut completed = 0;
        while let Some(message) = stream.next().await {
            match message {
                Ok(SimpleQueryMessage::CommandComplete(_)) => completed += 1,
                Ok(_) => {}
                Err(error) => return Err(broken(completed, error)),
            }
        }
        Ok(())
    }

    async fn failed(&self, step: &Step<'_>, failure: Failure, took: Duration) -> Stopped {
        let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let mark = ledger::failed(step, &one_line(&failure), took);
        if let Err(stopped) = self.record(&format!("ROLLBACK; {} {mark}", self.settings.sql())).await {
            tracing::warn!(error = one_line(&stopped.failure), "the ledger does not have the failure");
        }
        Stopped { failure, reconnect: false }
    }

    /// Runs Servicedb's own statements.
    async fn record(&self, statements: &str) -> Result<(), Stopped> {
        self.client.batch_execute(statements).await.map_err(|error| match error.as_db_error() {
            None => lost(&error),
            Some(db) => {
                let message = format!("the migrations' ledger cannot be written: {}", describe(&error));
                let mut stopped = Stopped::later(reason::MIGRATION_FAILED, message);
                stopped.failure.sqlstate = Some(db.code().code().to_owned());
                stopped
            }
        })
    }
}

/// The server's error of a statement; none if only the connection is closed.
fn fault(error: &Error) -> Option<&DbError> {
    const SHUTDOWN: [SqlState; 3] = [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::CANNOT_CONNECT_NOW];
    error.as_db_error().filter(|db| !SHUTDOWN.contains(db.code()))
}

/// The connection is lost: the running file was rolled back, or committed with its mark.
pub fn lost(error: &Error) -> Stopped {
    Stopped::unavailable(reason::NO_PRIMARY, format!("the connection to the database was lost: {}", describe(error)))
}

fn lost_in(step: &Step<'_>, error: &Error) -> Stopped {
    let mut stopped = lost(error);
    stopped.failure.file = Some(step.file.to_owned());
    stopped
}

/// Other sessions blocked the statement, and may be gone at the next attempt.
fn is_conflict(code: &SqlState) -> bool {
    [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE].contains(code)
}

/// Whether the server itself failed: it lacks memory or disk space, or has an internal error.
fn is_servers_trouble(code: &SqlState) -> bool {
    ["53", "58", "XX"].iter().any(|class| code.code().starts_with(class))
}

/// The text of a piece: up to the next one.
fn piece<'a>(sql: &'a str, pieces: &[Piece], at: usize) -> &'a str {
    &sql[pieces[at].start..pieces.get(at + 1).map_or(sql.len(), |next| next.start)]
}

fn failure(step: &Step<'_>, db: &DbError, place: &Place, done: &str) -> Failure {
    let line = place.offset.map(|offset| line_at(step.sql, offset)).or(place.line);
    // DETAIL and CONTEXT are omitted: they may quote rows and statements.
    let mut message = db.message().to_owned();
    if line.is_none() {
        message += "; the error occurred at the end of the transaction, as with a deferred constraint";
    }
    for advice in db.hint().into_iter().chain(advice(db.code())) {
        message += &format!("; {advice}");
    }
    Failure {
        reason: reason::MIGRATION_FAILED.to_owned(),
        file: Some(step.file.to_owned()),
        line,
        reverting: step.direction == Direction::Down,
        sqlstate: Some(db.code().code().to_owned()),
        message: format!("{message}; {done}"),
        transient: is_conflict(db.code()) || is_servers_trouble(db.code()),
    }
}

fn advice(code: &SqlState) -> Option<&'static str> {
    if *code == SqlState::ACTIVE_SQL_TRANSACTION {
        Some(
            "make '-- no-transaction' the file's first line, or set the option of your migration tool, to run each of its \
             statements separately",
        )
    } else if *code == SqlState::LOCK_NOT_AVAILABLE {
        Some("other sessions hold a lock for too long; the run is retried later")
    } else if *code == SqlState::QUERY_CANCELED {
        Some(
            "it took longer than spec.migrations.statementTimeoutSeconds, or was cancelled; a greater value is tried at once",
        )
    } else if *code == SqlState::INVALID_SCHEMA_NAME {
        Some(
            "migrations have the search path of the application's sessions (spec.postgres.parameters.search_path, ALTER \
             DATABASE … SET search_path): create the schema that it names, or name another one",
        )
    } else if *code == SqlState::INSUFFICIENT_PRIVILEGE {
        Some("migrations run as the role that owns the database, which is not a superuser and cannot create roles")
    } else {
        None
    }
}

/// The server counts characters of the sent text from 1; here from 0.
fn position(db: &DbError) -> Option<usize> {
    match db.position()? {
        ErrorPosition::Original(position) => usize::try_from(*position).ok()?.checked_sub(1),
        ErrorPosition::Internal { .. } => None,
    }
}

/// `None` if the position is after the text.
fn byte_offset(text: &str, characters: usize) -> Option<usize> {
    text.char_indices().nth(characters).map(|(offset, _)| offset)
}

fn line_at(sql: &str, offset: usize) -> u32 {
    let newlines = sql.bytes().take(offset).filter(|byte| *byte == b'\n').count();
    u32::try_from(newlines + 1).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_not_bytes() {
        let sql = "-- äöü\nSELECT x";
        let offset = byte_offset(sql, 14).expect("inside");
        assert_eq!((&sql[offset..], line_at(sql, offset)), ("x", 2));
        assert_eq!(byte_offset(sql, 15), None);
    }

    #[test]
    fn errors_of_the_server_are_transient_and_errors_of_the_file_are_not() {
        for code in ["53100", "58030", "XX000"] {
            assert!(is_servers_trouble(&SqlState::from_code(code)), "{code}");
        }
        for code in ["42601", "23505", "57014", "25001", "0A000"] {
            let code = SqlState::from_code(code);
            assert!(!is_servers_trouble(&code) && !is_conflict(&code), "{code:?}");
        }
    }
}
