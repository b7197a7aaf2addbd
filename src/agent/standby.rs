//! The synchronous standby of a primary. When it has gone, every commit waits until Patroni names
//! another or does without; and while none is named, a commit is on one volume alone. Patroni
//! would see either in its next loop; it is woken.

use std::time::Duration;

use tokio::sync::watch;

use super::desired::DesiredState;
use super::patroni::rest::{self, Rest, RestError};
use super::server::{Facts, Seen};
use crate::backoff::Backoff;

/// When Patroni is woken again. One loop may not be enough: it first writes down who is no
/// standby any more. And none may be eligible, which no waking changes.
const FIRST: Duration = Duration::from_millis(500);
const LAST: Duration = Duration::from_secs(10);

/// Wakes Patroni from now on whenever the synchronous standby is not what it could be.
pub async fn follow(mut server: Seen, desired: DesiredState) {
    let mut backoff = Backoff::new(FIRST, LAST);
    loop {
        let synchronous = desired.borrow().as_ref().is_some_and(|desired| desired.synchronous);
        let wakes = server.borrow_and_update().as_ref().is_some_and(|facts| is_amiss(facts, synchronous));
        if !wakes {
            backoff.reset();
            if server.changed().await.is_err() {
                return std::future::pending().await;
            }
            continue;
        }
        tracing::info!("the primary has no synchronous standby, or one that is gone; waking Patroni");
        if let Err(error) = rest::wake().await {
            tracing::debug!(%error, "Patroni cannot be woken");
        }
        backoff.wait().await;
    }
}

/// The standbys for which commits wait and which Patroni has written down, from now on: commits
/// wait a moment earlier than Patroni would promote.
pub fn watch(server: Seen) -> watch::Receiver<Vec<String>> {
    let (sender, receiver) = watch::channel(Vec::new());
    tokio::spawn(keep(server, sender));
    receiver
}

async fn keep(mut server: Seen, sender: watch::Sender<Vec<String>>) {
    let mut backoff = Backoff::new(Duration::from_millis(200), FIRST);
    loop {
        let facts = server.borrow_and_update().clone();
        let named = facts.map(|facts| facts.synchronous_standbys).unwrap_or_default();
        match written_down(&named).await {
            Ok(written) => {
                let complete = written == named;
                sender.send_if_modified(|before| {
                    let changed = *before != written;
                    *before = written;
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
            // What was known last holds.
            Err(error) => tracing::debug!(%error, "who is a synchronous standby is not known"),
        }
        tokio::select! {
            () = backoff.wait() => {}
            _ = server.changed() => {}
        }
    }
}

/// Of the standbys that PostgreSQL waits for those that Patroni has written down. It is woken
/// while it has not.
async fn written_down(named: &[String]) -> Result<Vec<String>, RestError> {
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let rest = Rest::new()?;
    let written = rest.synchronous_standbys().await?;
    let both: Vec<_> = named.iter().filter(|name| written.contains(name)).cloned().collect();
    if both.len() < named.len() {
        rest.wake().await?;
    }
    Ok(both)
}

fn is_amiss(facts: &Facts, synchronous: bool) -> bool {
    facts.lacks_standby || (synchronous && facts.streams && facts.synchronous_standbys.is_empty())
}
