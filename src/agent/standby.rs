//! The synchronous standby of a primary. When it has gone, every commit waits until Patroni names
//! another or does without; and while none is named, a commit is on one volume alone. Patroni
//! would see either in its next loop; it is woken.

use std::time::Duration;

use super::backoff::Backoff;
use super::desired::DesiredState;
use super::patroni::rest::Rest;
use super::server::{Facts, Seen};

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
        let result = async { Rest::new()?.wake().await }.await;
        if let Err(error) = result {
            tracing::debug!(%error, "Patroni cannot be woken");
        }
        backoff.wait().await;
    }
}

fn is_amiss(facts: &Facts, synchronous: bool) -> bool {
    facts.lacks_standby || (synchronous && facts.streams && facts.synchronous_standbys.is_empty())
}
