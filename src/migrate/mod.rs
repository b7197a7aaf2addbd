//! The migration Job.

use std::process::ExitCode;

/// Applies what is pending, once.
pub async fn run() -> ExitCode {
    ExitCode::FAILURE
}
