//! The operator.

mod options;

use std::process::ExitCode;

pub use options::Options;

/// Runs until it is told to stop or loses its lease.
pub async fn run(_options: Options) -> ExitCode {
    ExitCode::FAILURE
}
