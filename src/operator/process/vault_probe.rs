//! Asks Vault whether it serves, once for the whole process: a database at rest asks Vault
//! nothing, so without this an outage would be told only at its next resync.

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio::sync::watch;

use crate::backoff::jittered;
use crate::operator::context::Context;

/// How often Vault is asked.
const INTERVAL: Duration = Duration::from_secs(5);

/// Asks for as long as the process lives; the receiver changes when Vault goes or comes.
pub fn start(context: Arc<Context>) -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(true);
    tokio::spawn(async move {
        while !sender.is_closed() {
            tokio::time::sleep(jittered(INTERVAL)).await;
            let answer = context.vault.health().await;
            context.cache.record_vault_answer(answer.clone());
            let serves = answer.is_ok();
            if serves && !*sender.borrow() {
                context.cache.extend_trust_in_vault_objects();
            }
            let changed = sender.send_if_modified(|known| std::mem::replace(known, serves) != serves);
            match answer {
                Err(error) if changed => tracing::warn!(%error, "Vault does not serve; databases go on"),
                Ok(()) if changed => tracing::info!("Vault serves again"),
                _ => {}
            }
        }
    });
    receiver
}

/// A cause to look at every database: Vault went or came.
pub fn changes(receiver: watch::Receiver<bool>) -> impl Stream<Item = ()> + Send + 'static {
    futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.changed().await.ok()?;
        Some(((), receiver))
    })
}
