//! The agent: runs in every database pod.

use std::process::ExitCode;

/// Runs until the pod is told to stop.
pub async fn run() -> ExitCode {
    ExitCode::FAILURE
}
