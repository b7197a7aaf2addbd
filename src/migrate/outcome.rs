//! The result of a run: the cause of a stop, the termination message, and the exit code.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use crate::api::conditions::reason;
use crate::contract::migration::{Failure, Outcome};
use crate::contract::pod::TERMINATION_LOG;
use crate::migrate::source::SourceError;

/// The kubelet's size limit of the message.
const TERMINATION_LIMIT: usize = 4096;
/// The maximum number of bytes that JSON takes for one, as in `\u0001`.
const LONGEST_ESCAPE: usize = 6;
/// How many bytes of a file's path it has.
const FILE_LIMIT: usize = 256;
/// Marks a truncated message.
const CUT: &str = " […]";

/// Exit code: all migrations are applied.
pub const EXIT_OK: u8 = 0;
/// Exit code: refused or failed, and a retry would be too.
pub const EXIT_PERMANENT: u8 = 1;
/// Exit code: a retry may succeed (`EX_TEMPFAIL`).
pub const EXIT_TRANSIENT: u8 = 75;

/// Why a run stopped before all migrations were applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Stopped {
    /// The failure, for the operator and for users.
    pub failure: Failure,
    /// Whether the same run may continue over a new connection.
    pub reconnect: bool,
}

impl Stopped {
    /// A change is needed first.
    pub fn refused(reason: &str, file: Option<&str>, message: impl Into<String>) -> Self {
        Self::new(reason, file, message.into(), false)
    }

    /// A later run may succeed.
    pub fn later(reason: &str, message: impl Into<String>) -> Self {
        Self::new(reason, None, message.into(), true)
    }

    /// The database or Vault was unavailable, or became so: worth another connection.
    pub fn unavailable(reason: &str, message: impl Into<String>) -> Self {
        Self { reconnect: true, ..Self::later(reason, message) }
    }

    /// A request to stop this process.
    pub fn interrupted() -> Self {
        Self::later(
            reason::MIGRATIONS_RUNNING,
            "the migration run was stopped before all migrations were applied; the next run continues from there",
        )
    }

    fn new(reason: &str, file: Option<&str>, message: String, transient: bool) -> Self {
        let file = file.map(str::to_owned);
        let failure = Failure { reason: reason.to_owned(), file, message, transient, ..Failure::default() };
        Self { failure, reconnect: false }
    }
}

impl From<SourceError> for Stopped {
    fn from(error: SourceError) -> Self {
        let reason = error.reason();
        let mut stopped = Self::refused(reason, error.file.as_deref(), error.message);
        stopped.failure.line = error.line;
        stopped
    }
}

/// The exit code of an outcome.
pub fn exit_code(outcome: &Outcome) -> u8 {
    match &outcome.failure {
        None => EXIT_OK,
        Some(failure) if failure.transient => EXIT_TRANSIENT,
        Some(_) => EXIT_PERMANENT,
    }
}

/// A failure on one line, for the ledger and the log: file, line, message and SQLSTATE.
pub fn one_line(failure: &Failure) -> String {
    let place = match (&failure.file, failure.line) {
        (Some(file), Some(line)) => format!("{file}:{line}: "),
        (Some(file), None) => format!("{file}: "),
        (None, _) => String::new(),
    };
    let state = failure.sqlstate.as_ref().map(|code| format!(" (SQLSTATE {code})")).unwrap_or_default();
    format!("{place}{}{state}", failure.message)
}

/// Writes the outcome for the kubelet. A failure to do so is only logged: the exit code and the
/// ledger still have the result.
pub fn leave(outcome: &Outcome, path: &Path) {
    if let Err(error) = std::fs::write(path, termination_message(outcome)) {
        tracing::warn!(path = %path.display(), %error, "the termination message cannot be written");
    }
}

/// Writes the result of a process that does not apply migrations itself.
pub fn end(started: Instant, outcome: Outcome, result: Result<(), Stopped>) -> ExitCode {
    let failure = result.err().map(|stopped| stopped.failure);
    if let Some(failure) = &failure {
        tracing::error!(reason = failure.reason, transient = failure.transient, error = one_line(failure), "failed");
    }
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let outcome = Outcome { duration_ms, failure, ..outcome };
    leave(&outcome, Path::new(TERMINATION_LOG));
    ExitCode::from(exit_code(&outcome))
}

/// The outcome as JSON that fits. The message is truncated. Lists are limited when they are built,
/// but escapes may still make them too long, and truncated JSON would be unreadable.
fn termination_message(outcome: &Outcome) -> String {
    let mut outcome = outcome.clone();
    if let Some(file) = outcome.failure.as_mut().and_then(|failure| failure.file.as_mut()) {
        *file = cut(file, FILE_LIMIT);
    }
    loop {
        // A document of strings, numbers and booleans can always be serialised.
        let json = serde_json::to_string(&outcome).unwrap_or_default();
        let excess = json.len().saturating_sub(TERMINATION_LIMIT);
        if excess == 0 {
            return json;
        }
        if let Some(failure) = outcome.failure.as_mut().filter(|failure| failure.message.len() > CUT.len()) {
            let kept = failure.message.strip_suffix(CUT).unwrap_or(&failure.message);
            // JSON takes at most six bytes for one, so no step truncates more than necessary.
            let step = (excess / LONGEST_ESCAPE).max(CUT.len());
            failure.message = cut(kept, kept.len().saturating_sub(step));
        } else if !drop_last(&mut outcome) {
            return json;
        }
    }
}

/// Removes the last entry of the longest list; the counts beside them are kept.
fn drop_last(outcome: &mut Outcome) -> bool {
    let drift = outcome.drift.as_mut().is_some_and(|drift| drift.differences.pop().is_some());
    drift || outcome.approval.as_mut().is_some_and(|approval| approval.statements.pop().is_some())
}

/// The start of a text, with at most this many bytes, and a mark if it was truncated.
pub fn cut(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let end = (0..=bytes).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}{CUT}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::migration::DriftFound;

    fn failed(message: String) -> Outcome {
        let failure = Failure {
            reason: reason::MIGRATION_FAILED.to_owned(),
            file: Some("0002_b.up.sql".to_owned()),
            line: Some(7),
            sqlstate: Some("42P01".to_owned()),
            message,
            ..Failure::default()
        };
        Outcome { revision: "r".repeat(64), applied: 1, failure: Some(failure), ..Outcome::default() }
    }

    #[test]
    fn a_long_message_is_cut_and_all_else_stays() {
        for message in ["x".repeat(10_000), "ü\"\n".repeat(5_000), "\u{1}".repeat(4_000)] {
            let outcome = failed(message);
            let json = termination_message(&outcome);
            assert!(json.len() <= TERMINATION_LIMIT && json.len() > TERMINATION_LIMIT / 2, "{}", json.len());
            let read: Outcome = serde_json::from_str(&json).expect("JSON");
            let (read, written) = (read.failure.expect("kept"), outcome.failure.expect("set"));
            assert!(read.message.ends_with(CUT));
            assert_eq!((read.file, read.line, read.sqlstate), (written.file, written.line, written.sqlstate));
        }
        let mut long = failed("x".to_owned());
        long.failure.as_mut().expect("set").file = Some("\"/".repeat(10_000));
        let json = termination_message(&long);
        let read: Outcome = serde_json::from_str(&json).expect("JSON");
        assert!(json.len() <= TERMINATION_LIMIT && read.failure.expect("kept").message == "x", "{json}");
        let differences = vec!["\"\\".repeat(100); 12];
        let drift = Outcome { drift: Some(DriftFound { count: 12, differences }), ..Outcome::default() };
        let json = termination_message(&drift);
        assert!(json.len() <= TERMINATION_LIMIT, "{}", json.len());
        let read: Outcome = serde_json::from_str(&json).expect("JSON");
        assert!(read.drift.is_some_and(|drift| drift.count == 12 && drift.differences.len() > 5));
        let short = failed("relation \"x\" does not exist".to_owned());
        assert_eq!(serde_json::from_str::<Outcome>(&termination_message(&short)).expect("JSON"), short);
    }

    #[test]
    fn the_exit_code_shows_whether_to_retry() {
        let mut outcome = failed(String::new());
        assert_eq!(exit_code(&outcome), EXIT_PERMANENT);
        outcome.failure = Some(Stopped::unavailable(reason::NO_PRIMARY, "").failure);
        assert_eq!(exit_code(&outcome), EXIT_TRANSIENT);
        outcome.failure = None;
        assert_eq!(exit_code(&outcome), EXIT_OK);
    }

    #[test]
    fn one_line_has_the_place_and_the_state() {
        let failure = failed("boom".to_owned()).failure.expect("set");
        assert_eq!(one_line(&failure), "0002_b.up.sql:7: boom (SQLSTATE 42P01)");
    }
}
