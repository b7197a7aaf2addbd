//! This pod as a member of the cluster, by Patroni's local configuration. An instance that is about to be removed is no
//! longer a synchronous standby, so that commits do not wait for it and the lead does not pass to it. A library that an
//! extension needs in the server is loaded with the next restart, which Patroni reports as pending.

use std::time::Duration;

use serde_json::Value;

use super::desired::{self, DesiredState};
use super::environment::Environment;
use super::patroni::config;
use super::patroni::process::{Handle, Request};

/// Delay after a failed write.
const RETRY: Duration = Duration::from_secs(1);

/// Has Patroni reload whenever that changes; `known` is the configuration with which it was started.
pub async fn follow(environment: Environment, mut state: DesiredState, patroni: Handle, mut known: Value) {
    loop {
        let desired = desired::first(&mut state).await;
        if config::wanted(&environment, &desired) == known {
            desired::changed(&mut state).await;
            continue;
        }
        match config::write(&environment, &desired) {
            Ok(written) => {
                let leaving = environment.is_leaving(&desired);
                tracing::info!(leaving, "this instance's configuration has changed: reloading Patroni");
                patroni.request(Request::Reload).await;
                known = written;
            }
            Err(error) => {
                tracing::error!(%error, "Patroni's configuration cannot be written; retrying");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
