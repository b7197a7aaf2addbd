//! The turns of callers at a number of connections. Whoever finds one free takes it; of those who wait, each caller has
//! one in its turn, however many of its requests wait. Where no more may wait, the callers share the places.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot::{self, Receiver, Sender};

/// See the module.
pub(super) struct Turns {
    state: Mutex<State>,
}

struct State {
    free: usize,
    /// The requests that wait, by caller, in the order in which they came. None is empty.
    waiting: HashMap<Arc<str>, VecDeque<Sender<Turn>>>,
    /// The callers of those, the next one first.
    order: VecDeque<Arc<str>>,
}

/// The right to a connection, until it is dropped.
pub(super) struct Turn(Arc<Turns>);

impl Turns {
    /// Of so many connections.
    pub(super) fn new(free: usize) -> Arc<Self> {
        let state = State { free, waiting: HashMap::new(), order: VecDeque::new() };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// How many are free: then nobody waits.
    pub(super) fn free(&self) -> usize {
        self.lock().free
    }

    /// A free one.
    pub(super) fn take(self: &Arc<Self>) -> Option<Turn> {
        let mut state = self.lock();
        state.free = state.free.checked_sub(1)?;
        Some(Turn(Arc::clone(self)))
    }

    /// Waits for the caller's turn; none, if `most` requests wait and the caller has its share of them. Who gives up drops
    /// what is returned. A request that gives its place away receives an error.
    pub(super) fn wait(self: &Arc<Self>, caller: &Arc<str>, most: usize) -> Option<Receiver<Turn>> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.lock();
        // One may have become free since the caller has looked.
        if state.free == 0 {
            return state.wait(caller, sender, most).then_some(receiver);
        }
        state.free -= 1;
        drop(state);
        drop(sender.send(Turn(Arc::clone(self))));
        Some(receiver)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    /// Adds a request to those that wait, if there is a place for it.
    fn wait(&mut self, caller: &Arc<str>, sender: Sender<Turn>, most: usize) -> bool {
        let Self { waiting, order, .. } = self;
        // Who has given up leaves its place.
        waiting.retain(|_, senders| {
            senders.retain(|sender| !sender.is_closed());
            !senders.is_empty()
        });
        order.retain(|caller| waiting.contains_key(caller));
        if waiting.values().map(VecDeque::len).sum::<usize>() >= most && !self.gives_way(caller) {
            return false;
        }
        if let Some(own) = self.waiting.get_mut(caller) {
            own.push_back(sender);
        } else {
            self.waiting.insert(Arc::clone(caller), VecDeque::from([sender]));
            self.order.push_back(Arc::clone(caller));
        }
        true
    }

    /// Whether a request has left its place to one of this caller: the newest one of the caller that has most, if that has
    /// more than this one will have.
    fn gives_way(&mut self, caller: &Arc<str>) -> bool {
        let own = self.waiting.get(caller).map_or(0, VecDeque::len);
        let longest = self.waiting.values_mut().max_by_key(|senders| senders.len());
        longest.filter(|senders| senders.len() > own + 1).and_then(VecDeque::pop_back).is_some()
    }

    /// The request that is next, which leaves the queue; without one, a connection is free.
    fn next(&mut self) -> Option<Sender<Turn>> {
        while let Some(caller) = self.order.pop_front() {
            let Some(own) = self.waiting.get_mut(&caller) else { continue };
            let next = std::iter::from_fn(|| own.pop_front()).find(|sender| !sender.is_closed());
            if own.is_empty() {
                self.waiting.remove(&caller);
            } else {
                self.order.push_back(caller);
            }
            if next.is_some() {
                return next;
            }
        }
        self.free += 1;
        None
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = self.0.lock().next();
        if let Some(next) = next {
            // To one that gives up just now, it comes back and goes to the next one.
            drop(next.send(Self(Arc::clone(&self.0))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_take_turns_and_who_gives_up_is_passed_over() {
        let turns = Turns::new(1);
        let (one, other) = (Arc::<str>::from("one"), Arc::<str>::from("other"));
        let first = turns.take().expect("it is free");
        assert!(turns.take().is_none());
        let [mut a, b, mut c] = [(); 3].map(|()| turns.wait(&one, 9).expect("a place"));
        let [mut d, mut e] = [(); 2].map(|()| turns.wait(&other, 9).expect("a place"));
        let got = |receiver: &mut Receiver<Turn>| receiver.try_recv().ok();
        drop(first);
        let turn = got(&mut a).expect("the first one");
        assert!(got(&mut d).is_none());
        drop(b);
        drop(turn);
        let turn = got(&mut d).expect("the other caller, before the rest of the first one's");
        assert!(got(&mut c).is_none());
        drop(turn);
        let turn = got(&mut c).expect("the first caller again, without the request that gave up");
        drop(turn);
        drop(got(&mut e).expect("the last one"));
        assert_eq!(turns.free(), 1);
        assert!(turns.lock().waiting.is_empty() && turns.lock().order.is_empty());
    }

    #[test]
    fn a_turn_that_nobody_receives_is_free_again() {
        let turns = Turns::new(1);
        let (caller, first) = (Arc::<str>::from("one"), turns.take().expect("it is free"));
        let waits = turns.wait(&caller, 9);
        drop(first);
        assert_eq!(turns.free(), 0, "it was given to the one that waits");
        drop(waits);
        assert_eq!(turns.free(), 1);
        drop(turns.wait(&caller, 9));
        assert_eq!(turns.free(), 1);
    }

    #[test]
    fn callers_share_the_places() {
        let turns = Turns::new(1);
        let (one, other) = (Arc::<str>::from("one"), Arc::<str>::from("other"));
        let first = turns.take().expect("it is free");
        let mut all: Vec<_> = (0..4).map(|_| turns.wait(&one, 4).expect("a place")).collect();
        assert!(turns.wait(&one, 4).is_none(), "it has all places");
        let [mut d, mut e] = [(); 2].map(|()| turns.wait(&other, 4).expect("a share"));
        assert!(turns.wait(&other, 4).is_none(), "it has as many as the first one");
        let gave_way =
            |receiver: &mut Receiver<Turn>| matches!(receiver.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(all.iter_mut().map(gave_way).collect::<Vec<_>>(), [false, false, true, true], "the newest ones");
        // Who gives up leaves a place.
        all.truncate(1);
        let mut again = turns.wait(&one, 4).expect("the place of another one");
        drop(first);
        for receiver in [&mut all[0], &mut d, &mut again, &mut e] {
            drop(receiver.try_recv().expect("a turn"));
        }
        assert_eq!(turns.free(), 1);
        let first = turns.take().expect("it is free");
        assert!(turns.wait(&one, 0).is_none() && turns.lock().order.is_empty());
        drop(first);
    }
}
