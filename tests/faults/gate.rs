//! The numbering of the calls of one case, and the call that gets the fault.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::call::{Actor, Call};

/// A fault at one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Its sender is killed, and it is never sent.
    BeforeSend,
    /// It is executed, and its sender is killed before it reads the answer.
    AfterCommit,
    /// It is not executed; the answer is a conflict, from PostgreSQL 40001.
    Conflict,
    /// It is not executed; the answer is 500, or PostgreSQL's XX000.
    ServerError,
    /// It is executed, and the connection breaks instead of an answer.
    LostReply,
}

impl Fault {
    /// All, in the order in which tables show them.
    pub const ALL: [Self; 5] =
        [Self::BeforeSend, Self::AfterCommit, Self::Conflict, Self::ServerError, Self::LostReply];

    /// Its display name.
    pub fn name(self) -> &'static str {
        match self {
            Self::BeforeSend => "killed before it is sent",
            Self::AfterCommit => "killed after it is done",
            Self::Conflict => "409",
            Self::ServerError => "500",
            Self::LostReply => "lost reply",
        }
    }

    /// Whether the fault is possible at a call. Only then the call counts for it, so that the numbers
    /// have no gaps.
    pub fn befalls(self, call: &Call) -> bool {
        self != Self::Conflict || call.can_conflict
    }
}

/// One fault at one call of one sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Boundary {
    /// The sender.
    pub actor: Actor,
    /// The fault.
    pub fault: Fault,
    /// The number of the sender's call, among those where the fault is possible, from 1.
    pub index: usize,
}

/// The gate that all requests of a case pass.
pub struct Gate {
    state: Mutex<State>,
}

struct State {
    counts: bool,
    boundary: Option<Boundary>,
    met: usize,
    hit: Option<String>,
    calls: Vec<(Actor, Call)>,
    last: Instant,
}

impl Gate {
    /// A gate that passes all calls and does not count yet.
    pub fn new() -> Self {
        let state = State { counts: false, boundary: None, met: 0, hit: None, calls: Vec::new(), last: Instant::now() };
        Self { state: Mutex::new(state) }
    }

    /// Restarts the count, and injects the fault at its boundary.
    pub fn arm(&self, boundary: Option<Boundary>) {
        let mut state = self.lock();
        *state = State { counts: true, boundary, met: 0, hit: None, calls: Vec::new(), last: state.last };
    }

    /// Handles a call; returns the action.
    pub fn meet(&self, actor: Actor, call: &Call) -> Option<Fault> {
        let mut state = self.lock();
        state.last = Instant::now();
        if !state.counts {
            return None;
        }
        state.calls.push((actor, call.clone()));
        let boundary = state.boundary.filter(|at| at.actor == actor && at.fault.befalls(call))?;
        state.met += 1;
        if state.met != boundary.index {
            return None;
        }
        state.hit = Some(call.name.clone());
        Some(boundary.fault)
    }

    /// A call has ended.
    pub fn passed(&self) {
        self.lock().last = Instant::now();
    }

    /// The time since the last call.
    pub fn quiet_for(&self) -> Duration {
        self.lock().last.elapsed()
    }

    /// The call that the fault happened to.
    pub fn hit(&self) -> Option<String> {
        self.lock().hit.clone()
    }

    /// The calls since it was armed.
    pub fn calls(&self) -> Vec<(Actor, Call)> {
        self.lock().calls.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
