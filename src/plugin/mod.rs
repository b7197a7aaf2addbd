//! `kubectl servicedb`.

use std::process::ExitCode;

/// Runs the command that the arguments give.
pub async fn run() -> ExitCode {
    ExitCode::FAILURE
}
