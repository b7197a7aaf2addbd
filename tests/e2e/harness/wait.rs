//! Bounded waiting: tests poll with a timeout instead of sleeping.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// The polling interval: short compared with the wait, long compared with the cost of a poll.
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);

/// Polls until `look` returns `Ok`, and returns its value. On timeout, the last `Err` is the
/// failure's message.
///
/// # Panics
/// If it is not satisfied within `bound`.
pub async fn until<T, Fut>(what: &str, bound: Duration, mut look: impl FnMut() -> Fut) -> T
where
    Fut: Future<Output = Result<T, String>>,
{
    let started = Instant::now();
    let mut last = "nothing was seen".to_owned();
    loop {
        let left = bound.saturating_sub(started.elapsed());
        match tokio::time::timeout(left.max(BETWEEN_LOOKS), look()).await {
            Ok(Ok(found)) => return found,
            Ok(Err(seen)) => last = seen,
            Err(_) => last = format!("{last} (a look did not return)"),
        }
        assert!(started.elapsed() < bound, "{what}: not within {} s; last seen: {last}", bound.as_secs());
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}
