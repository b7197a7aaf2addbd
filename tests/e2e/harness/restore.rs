//! Reverting a change that a test makes to the whole cluster.

use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};

use futures::FutureExt;

/// Runs `work`, then `restore`, also if `work` panicked: the panic is resumed after it. Returns the
/// output of `restore`.
pub async fn then_restore<T>(work: impl Future<Output = ()>, restore: impl Future<Output = T>) -> T {
    let result = AssertUnwindSafe(work).catch_unwind().await;
    let restored = restore.await;
    if let Err(panic) = result {
        resume_unwind(panic);
    }
    restored
}
