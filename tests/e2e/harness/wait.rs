//! Bounded waiting: no test sleeps and hopes.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// Between two looks. Short beside what is waited for, long beside what a look costs.
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);

/// Looks until `look` is satisfied, and returns what it found. What it says instead (`Err`)
/// is what the failure shows when the time is over.
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
