//! The synchronous standby of a primary. When it disconnects, every commit waits until Patroni names
//! another or none; and while none is named, a commit is on one volume only. Patroni would notice
//! either in its next loop, so it is woken.

use std::time::Duration;

use tokio::sync::watch;

use super::desired::DesiredState;
use super::patroni::rest::{self, Rest, RestError};
use super::server::{Facts, FactsWatch};
use crate::backoff::Backoff;

/// The first and the longest delay until Patroni is woken again. One loop may not be enough: it first
/// records the standbys that are none any more. And there may be no eligible standby, which no wake changes.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(10);

/// Wakes Patroni from now on whenever it should name another synchronous standby.
pub async fn follow(mut server: FactsWatch, desired: DesiredState) {
    let mut backoff = Backoff::new(FIRST, LONGEST);
    loop {
        let synchronous = desired.borrow().as_ref().is_some_and(|desired| desired.synchronous);
        let wakes = server.borrow_and_update().as_ref().is_some_and(|facts| needs_standby(facts, synchronous));
        if !wakes {
            backoff.reset();
            if server.changed().await.is_err() {
                return std::future::pending().await;
            }
            continue;
        }
        tracing::info!("the primary has no synchronous standby, or a disconnected one; waking Patroni");
        if let Err(error) = rest::wake().await {
            tracing::debug!(%error, "Patroni cannot be woken");
        }
        backoff.wait().await;
    }
}

/// Observes from now on the standbys for which commits wait and which Patroni has recorded: commits
/// wait a moment earlier than Patroni would promote.
pub fn watch(server: FactsWatch) -> watch::Receiver<Vec<String>> {
    let (sender, receiver) = watch::channel(Vec::new());
    tokio::spawn(keep(server, sender));
    receiver
}

async fn keep(mut server: FactsWatch, sender: watch::Sender<Vec<String>>) {
    let mut backoff = Backoff::new(Duration::from_millis(200), FIRST);
    loop {
        let facts = server.borrow_and_update().clone();
        let named = facts.map(|facts| facts.synchronous_standbys).unwrap_or_default();
        match recorded(&named).await {
            Ok(recorded) => {
                let complete = recorded == named;
                sender.send_if_modified(|before| {
                    let changed = *before != recorded;
                    *before = recorded;
                    changed
                });
                if complete {
                    backoff.reset();
                    if server.changed().await.is_err() {
                        return std::future::pending().await;
                    }
                    continue;
                }
            }
            // The last known standbys hold.
            Err(error) => tracing::debug!(%error, "the recorded synchronous standbys cannot be read; retrying"),
        }
        tokio::select! {
            () = backoff.wait() => {}
            _ = server.changed() => {}
        }
    }
}

/// The standbys that PostgreSQL waits for and that Patroni has recorded. Patroni is woken while one is not
/// recorded.
async fn recorded(named: &[String]) -> Result<Vec<String>, RestError> {
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let rest = Rest::new()?;
    let recorded = rest.synchronous_standbys().await?;
    let both: Vec<_> = named.iter().filter(|name| recorded.contains(name)).cloned().collect();
    if both.len() < named.len() {
        rest.wake().await?;
    }
    Ok(both)
}

fn needs_standby(facts: &Facts, synchronous: bool) -> bool {
    facts.lacks_standby || (synchronous && facts.streams && facts.synchronous_standbys.is_empty())
}
