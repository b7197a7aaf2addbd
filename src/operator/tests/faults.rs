//! Crashes on demand: the n-th mutating call, to Kubernetes or to Vault, is the operator's last;
//! all later calls fail until it is restarted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It did not arrive.
    BeforeSend,
    /// It was executed, and the answer was lost.
    AfterCommit,
}

#[derive(Default)]
struct State {
    journal: Vec<String>,
    mutations: usize,
    crash_at: Option<(usize, Fault)>,
    crashed: Option<String>,
}

/// The planned crash; clones share it.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<State>>);

impl Faults {
    /// Plans a crash at the n-th mutating call from now on, the first being 1.
    pub fn crash_at(&self, call: usize, fault: Fault) {
        let mut state = self.state();
        (state.mutations, state.crash_at) = (0, Some((call, fault)));
    }

    /// Counts a mutating call; returns its fault.
    pub fn next(&self, call: &str) -> Option<Fault> {
        let mut state = self.state();
        if state.crashed.is_some() {
            return Some(Fault::BeforeSend);
        }
        state.journal.push(call.to_owned());
        state.mutations += 1;
        let (at, fault) = state.crash_at?;
        (state.mutations == at).then(|| {
            state.crashed = Some(call.to_owned());
            fault
        })
    }

    /// The fault of a call that changes nothing.
    pub fn now(&self) -> Option<Fault> {
        self.state().crashed.is_some().then_some(Fault::BeforeSend)
    }

    /// Restarts after the crash; returns the call at which it occurred.
    pub fn recover(&self) -> Option<String> {
        let mut state = self.state();
        let call = state.crashed.take()?;
        state.crash_at = None;
        Some(call)
    }

    /// Whether the planned crash has not occurred yet.
    pub fn is_pending(&self) -> bool {
        let state = self.state();
        state.crash_at.is_some() && state.crashed.is_none()
    }

    /// The mutating calls since the last call, to Kubernetes and to Vault, in their order.
    pub fn take_journal(&self) -> Vec<String> {
        std::mem::take(&mut self.state().journal)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
