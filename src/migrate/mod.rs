//! The migration Job.

use std::process::ExitCode;

mod lexer;
pub mod source;

/// Applies what is pending, once.
pub async fn run() -> ExitCode {
    ExitCode::FAILURE
}
