//! This pod as a member: one that is about to be taken away is no synchronous standby any more,
//! so that commits do not wait for it and the lead does not pass to it.

use std::time::Duration;

use super::desired::{self, DesiredState};
use super::environment::Environment;
use super::patroni::config;
use super::patroni::process::{Handle, Order};

/// After a write that failed.
const RETRY: Duration = Duration::from_secs(1);

/// Tells Patroni from now on, which was told `known` at its start.
pub async fn follow(environment: Environment, mut state: DesiredState, patroni: Handle, mut known: bool) {
    loop {
        let desired = desired::first(&mut state).await;
        let now = environment.is_leaving(&desired);
        if now == known {
            if state.changed().await.is_err() {
                return std::future::pending().await;
            }
            continue;
        }
        match config::write(&environment, &desired) {
            Ok(()) => {
                tracing::info!(leaving = now, "telling Patroni whether this instance stays");
                patroni.order(Order::Reload).await;
                known = now;
            }
            Err(error) => {
                tracing::error!(%error, "Patroni's configuration cannot be written; trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
