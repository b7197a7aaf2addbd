//! This pod as a member of the cluster. An instance that is about to be removed is no longer a
//! synchronous standby, so that commits do not wait for it and the lead does not pass to it.

use std::time::Duration;

use super::desired::{self, DesiredState};
use super::environment::Environment;
use super::patroni::config;
use super::patroni::process::{Handle, Request};

/// Delay after a failed write.
const RETRY: Duration = Duration::from_secs(1);

/// Has Patroni reload whenever that changes; `known` is the value with which it was started.
pub async fn follow(environment: Environment, mut state: DesiredState, patroni: Handle, mut known: bool) {
    loop {
        let desired = desired::first(&mut state).await;
        let now = environment.is_leaving(&desired);
        if now == known {
            desired::changed(&mut state).await;
            continue;
        }
        match config::write(&environment, &desired) {
            Ok(()) => {
                tracing::info!(leaving = now, "this instance stays or leaves: reloading Patroni");
                patroni.request(Request::Reload).await;
                known = now;
            }
            Err(error) => {
                tracing::error!(%error, "Patroni's configuration cannot be written; retrying");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
