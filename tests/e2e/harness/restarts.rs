//! Tests that end the operator's pods, and tests that need its answer within seconds: never at the same time.
//!
//! Both are called before the test takes its turn, after [`super::store::used`], and last until the value is dropped:
//! a test that waited within its turn would keep others from theirs, one of which it might wait for.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static RESTARTS: RwLock<()> = RwLock::new(());

/// Keeps other tests from ending the operator.
pub fn excluded() -> RwLockReadGuard<'static, ()> {
    RESTARTS.read().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until no test needs the operator all the time, and lets this one end it.
pub fn allowed() -> RwLockWriteGuard<'static, ()> {
    RESTARTS.write().unwrap_or_else(PoisonError::into_inner)
}
