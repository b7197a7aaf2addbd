//! The synchronous standby of a primary: when it has gone, every commit waits until Patroni
//! names another or does without. Patroni would see it in its next loop; it is woken.

use std::time::Duration;

use super::patroni::rest::Rest;
use super::server::{Facts, Seen};

/// How often Patroni is woken while commits wait. One loop may not be enough: it first writes
/// down who is no standby any more.
const INTERVAL: Duration = Duration::from_millis(500);

/// Wakes Patroni from now on whenever commits wait for a standby that is not there.
pub async fn follow(mut server: Seen) {
    let waits = |seen: &Option<Facts>| seen.as_ref().is_some_and(|facts| facts.lacks_standby);
    loop {
        if server.wait_for(waits).await.is_err() {
            return std::future::pending().await;
        }
        tracing::info!("commits wait for a synchronous standby that is gone; waking Patroni");
        let result = async { Rest::new()?.wake().await }.await;
        if let Err(error) = result {
            tracing::debug!(%error, "Patroni cannot be woken");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
