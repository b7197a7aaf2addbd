//! How many backups run at once on one store: each loads the store, and the nodes' network.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

/// How long a backup waits until it asks again for a slot.
pub const WAIT: SignedDuration = SignedDuration::from_secs(30);
/// How long after its start an operator starts no backup: until then it may not know each one that runs.
const SETTLES: SignedDuration = SignedDuration::from_secs(30);

/// How long a slot is held without a word: a resource that is paused is not looked at any more.
const EXPIRES: SignedDuration = SignedDuration::from_mins(30);

/// The backups that run, by the uid of their resource, with their store.
pub struct Slots {
    limit: usize,
    since: Timestamp,
    taken: Mutex<BTreeMap<String, (String, Timestamp)>>,
}

impl Slots {
    /// None is taken.
    pub fn new(limit: usize, now: Timestamp) -> Self {
        Self { limit, since: now, taken: Mutex::default() }
    }

    /// Takes a slot of a store, if one is free.
    pub fn take(&self, uid: &str, store: &str, now: Timestamp) -> bool {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|_, (_, since)| now.duration_since(*since) < EXPIRES);
        let others = taken.iter().filter(|(other, (of, _))| *other != uid && *of == store).count();
        if others >= self.limit || now.duration_since(self.since) < SETTLES {
            return false;
        }
        taken.insert(uid.to_owned(), (store.to_owned(), now));
        true
    }

    /// A backup runs, whether a slot was free or not.
    pub fn hold(&self, uid: &str, store: &str, now: Timestamp) {
        let held = (store.to_owned(), now);
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned(), held);
    }

    /// None runs any more.
    pub fn release(&self, uid: &str) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_has_as_many_backups_at_once_as_the_platform_allows() {
        let start = Timestamp::UNIX_EPOCH;
        let slots = Slots::new(1, start);
        assert!(!slots.take("a", "main", start), "an operator that has just started does not know what runs");
        let now = start + SETTLES;
        slots.hold("b", "main", now);
        assert!(!slots.take("a", "main", now));
        assert!(slots.take("a", "other", now));
        slots.release("b");
        assert!(slots.take("c", "main", now) && slots.take("c", "main", now));
        assert!(!slots.take("d", "main", now));
        assert!(slots.take("d", "main", now + EXPIRES), "c was paused, or its operator is another one");
    }
}
