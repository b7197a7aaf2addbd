//! What the Jobs share: their order, the keys, and how they leave their result.

use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::contract::backup::Place;
use crate::contract::pod::TERMINATION_LOG;
use crate::pgbackrest::secrets::Secrets;
use crate::vault::pod;

/// The error of work that was ended with its pod.
pub const STOPPED: &str = "the pod was stopped";
/// How long Vault may be away.
const VAULT_PATIENCE: Duration = Duration::from_secs(120);

/// Reads the order from the environment.
///
/// # Errors
/// If it is missing or not readable.
pub fn read<T: DeserializeOwned>(variable: &str) -> Result<T, String> {
    let text = std::env::var(variable).map_err(|error| format!("{variable}: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("{variable}: {error}"))
}

/// Runs the work, until the pod is stopped.
///
/// # Errors
/// That of the work.
pub async fn until_stopped(work: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let mut terminate =
        signal(SignalKind::terminate()).map_err(|error| format!("SIGTERM cannot be awaited: {error}"))?;
    tokio::select! {
        ended = work => ended,
        _ = terminate.recv() => Err(STOPPED.to_owned()),
    }
}

/// Leaves the result for the operator.
pub fn leave(outcome: &impl Serialize, succeeded: bool) -> ExitCode {
    // A document of strings and numbers can always be serialised.
    let text = serde_json::to_string(outcome).unwrap_or_default();
    if let Err(error) = std::fs::write(TERMINATION_LOG, text) {
        tracing::error!(%error, "the result cannot be left for the operator");
    }
    if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Reads the keys; Vault may be away for a moment.
///
/// # Errors
/// What Vault said last.
pub async fn secrets(place: &Place) -> Result<Secrets, String> {
    let (vault, _) = pod::client().map_err(|error| error.to_string())?;
    let until = Instant::now() + VAULT_PATIENCE;
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
    loop {
        match Secrets::read(&vault, place).await {
            Ok(secrets) => return Ok(secrets),
            Err(error) if Instant::now() > until => return Err(error.to_string()),
            Err(error) => {
                tracing::warn!(%error, "the keys of the store cannot be read; trying again");
                backoff.wait().await;
            }
        }
    }
}
