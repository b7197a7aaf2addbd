//! Vault's health check, once for the whole process: a database at rest sends no request to Vault,
//! so without this an outage would be reported only at its next resync.

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio::sync::watch;

use crate::backoff::jittered;
use crate::operator::context::Context;

/// The interval of the health check.
const INTERVAL: Duration = Duration::from_secs(5);

/// Runs for as long as the process; the receiver changes when Vault becomes unavailable or available.
pub fn start(context: Arc<Context>) -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(true);
    tokio::spawn(async move {
        while !sender.is_closed() {
            tokio::time::sleep(jittered(INTERVAL)).await;
            let answer = context.vault.health().await;
            context.cache.record_vault_answer(answer.clone());
            let serves = answer.is_ok();
            if serves && !*sender.borrow() {
                context.cache.renew_vault_objects();
            }
            let changed = sender.send_if_modified(|known| std::mem::replace(known, serves) != serves);
            match answer {
                Err(error) if changed => tracing::warn!(%error, "Vault does not serve; databases keep running"),
                Ok(()) if changed => tracing::info!("Vault serves again"),
                _ => {}
            }
        }
    });
    receiver
}

/// A trigger for every database: Vault became unavailable or available.
pub fn changes(receiver: watch::Receiver<bool>) -> impl Stream<Item = ()> + Send + 'static {
    futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.changed().await.ok()?;
        Some(((), receiver))
    })
}
