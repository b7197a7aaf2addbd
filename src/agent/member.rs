//! This pod as a member: one that is about to be taken away is no synchronous standby any more,
//! so that commits do not wait for it and the lead does not pass to it.

use super::desired::{self, DesiredState};
use super::environment::Environment;
use super::patroni::config;
use super::patroni::process::{Handle, Order};
use crate::contract::desired::Desired;

/// Whether a pod is to be taken away.
pub fn is_leaving(environment: &Environment, desired: &Desired) -> bool {
    environment.names.ordinal(&environment.pod).is_some_and(|ordinal| ordinal >= desired.instances)
}

/// Tells Patroni from now on.
pub async fn follow(environment: Environment, mut state: DesiredState, patroni: Handle) {
    let mut known = is_leaving(&environment, &*desired::first(&mut state).await);
    loop {
        if state.changed().await.is_err() {
            return std::future::pending().await;
        }
        let desired = desired::first(&mut state).await;
        let now = is_leaving(&environment, &desired);
        if now == known {
            continue;
        }
        match config::write(&environment, &desired) {
            Ok(()) => {
                tracing::info!(leaving = now, "telling Patroni whether this instance stays");
                patroni.order(Order::Reload).await;
                known = now;
            }
            Err(error) => tracing::error!(%error, "Patroni's configuration cannot be written"),
        }
    }
}
