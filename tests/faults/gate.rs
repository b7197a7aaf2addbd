//! The numbering of the calls of one case, and the one at which a fault is due.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::call::{Actor, Call};

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Its sender is killed, and it is never sent.
    BeforeSend,
    /// It is done, and its sender is killed before it reads the answer.
    AfterCommit,
    /// It is not done; the answer is that somebody else wrote first, of PostgreSQL 40001.
    Conflict,
    /// It is not done; the answer is 500, or PostgreSQL's XX000.
    ServerError,
    /// It is done, and the connection breaks instead of an answer.
    LostReply,
}

impl Fault {
    /// All, in the order in which tables show them.
    pub const ALL: [Self; 5] =
        [Self::BeforeSend, Self::AfterCommit, Self::Conflict, Self::ServerError, Self::LostReply];

    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::BeforeSend => "killed before it is sent",
            Self::AfterCommit => "killed after it is done",
            Self::Conflict => "409",
            Self::ServerError => "500",
            Self::LostReply => "lost reply",
        }
    }

    /// Whether it can happen to a call. A call counts for a fault only then, so that the
    /// numbers have no gaps.
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
    /// Which of the sender's calls that the fault can befall, from 1.
    pub index: usize,
}

/// What all requests of a case pass.
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
    /// Lets everything pass and counts nothing yet.
    pub fn new() -> Self {
        let state = State { counts: false, boundary: None, met: 0, hit: None, calls: Vec::new(), last: Instant::now() };
        Self { state: Mutex::new(state) }
    }

    /// Counts from now on, anew, and lets the fault happen at its boundary.
    pub fn arm(&self, boundary: Option<Boundary>) {
        let mut state = self.lock();
        *state = State { counts: true, boundary, met: 0, hit: None, calls: Vec::new(), last: state.last };
    }

    /// A call comes; what shall become of it.
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

    /// For how long there was no call.
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
