//! Waiting for the server no longer than its own limits allow: one that hangs keeps none of them.

use std::time::Duration;

use crate::problem::{Problem, lost};

/// What a server says within this time.
///
/// # Errors
/// Those of the server, and that of a lost connection if it says nothing.
pub(super) async fn in_time<T>(
    patience: Duration,
    said: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    tokio::time::timeout(patience, said).await.unwrap_or_else(|_| Err(lost()))
}
