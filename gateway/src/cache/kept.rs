//! Kept answers, within a number of bytes: the one that was not used for the longest time makes room.

use std::sync::Arc;

use bytes::Bytes;
use lru::LruCache;

use crate::sql::Statement;

/// What an entry takes beside its texts, in bytes: of the map, the list and the allocations.
const OVERHEAD: usize = 512;
/// The part of the room that one answer may take, as a divisor.
const SHARE: usize = 8;

/// Who reads: the name and the role of the caller, and the settings of the database that its session has.
pub type Reader<'a> = (&'a Arc<str>, &'a Arc<str>, &'a Arc<str>);

/// What an answer belongs to: a reader and a read, whole and not as a digest.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    name: Arc<str>,
    role: Arc<str>,
    settings: Arc<str>,
    sql: String,
    parameters: Vec<Option<String>>,
    frame: String,
}

impl Key {
    /// Of a reader, a read, and all that stands around its rows.
    pub(super) fn new((name, role, settings): Reader<'_>, read: &Statement, frame: String) -> Self {
        let (name, role, settings) = (Arc::clone(name), Arc::clone(role), Arc::clone(settings));
        Self { name, role, settings, sql: read.sql.clone(), parameters: read.parameters.clone(), frame }
    }

    /// How much it takes, in bytes.
    pub(super) fn weight(&self) -> usize {
        let parameter = |value: &Option<String>| size_of::<Option<String>>() + value.as_ref().map_or(0, String::len);
        let parameters: usize = self.parameters.iter().map(parameter).sum();
        OVERHEAD + self.settings.len() + self.sql.len() + parameters + self.frame.len()
    }
}

/// A kept answer.
#[derive(Debug)]
pub struct Kept {
    /// The version of what it was read from.
    pub version: String,
    /// Its rows, with what stands around them.
    pub text: Bytes,
    /// Where each row ends.
    pub ends: Vec<usize>,
    /// The number of rows.
    pub rows: u64,
}

impl Kept {
    fn weight(&self) -> usize {
        self.version.len() + self.text.len() + self.ends.len() * size_of::<usize>()
    }
}

/// See the module.
pub(super) struct Room {
    most: usize,
    taken: usize,
    /// How often all were forgotten.
    cleared: u64,
    entries: LruCache<Key, Arc<Kept>>,
}

impl Room {
    /// Of so many bytes.
    pub(super) fn new(most: usize) -> Self {
        Self { most, taken: 0, cleared: 0, entries: LruCache::unbounded() }
    }

    /// The largest entry in a room of this size, in bytes.
    pub(super) fn largest(most: usize) -> usize {
        most / SHARE
    }

    /// The answer to a read; it counts as used.
    pub(super) fn get(&mut self, key: &Key) -> Option<Arc<Kept>> {
        self.entries.get(key).map(Arc::clone)
    }

    /// Keeps an answer in place of an earlier one; how many others made room.
    pub(super) fn put(&mut self, key: Key, kept: Arc<Kept>) -> u64 {
        let weight = key.weight() + kept.weight();
        if let Some((key, kept)) = self.entries.pop_entry(&key) {
            self.taken -= key.weight() + kept.weight();
        }
        if weight > Self::largest(self.most) {
            return 0;
        }
        self.entries.put(key, kept);
        self.taken += weight;
        let mut evicted = 0;
        while self.taken > self.most {
            let Some((key, kept)) = self.entries.pop_lru() else { break };
            self.taken -= key.weight() + kept.weight();
            evicted += 1;
        }
        evicted
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.taken = 0;
        self.cleared += 1;
    }

    /// How often all were forgotten.
    pub(super) fn cleared(&self) -> u64 {
        self.cleared
    }

    /// How much they take, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.taken
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::Charge;

    fn key(sql: &str) -> Key {
        let caller: Arc<str> = "shop/app".into();
        Key::new((&caller, &caller, &caller), &Statement::plain(sql, Charge::Plan), String::new())
    }

    fn answer(bytes: usize) -> Arc<Kept> {
        Arc::new(Kept { version: String::new(), text: Bytes::from(vec![0; bytes]), ends: Vec::new(), rows: 0 })
    }

    #[test]
    fn what_was_not_used_for_the_longest_time_makes_room() {
        let size = 1_000;
        let weight = key("a").weight() + size;
        let mut room = Room::new(weight * SHARE);
        let names: Vec<String> = (b'a'..).take(SHARE).map(|name| char::from(name).to_string()).collect();
        for name in &names {
            assert_eq!(room.put(key(name), answer(size)), 0, "{name}");
        }
        assert_eq!((room.bytes(), room.len()), (weight * SHARE, SHARE));
        assert!(room.get(&key("a")).is_some());
        assert_eq!(room.put(key("z"), answer(size)), 1);
        assert!(room.get(&key("b")).is_none() && room.get(&key("a")).is_some());
        // A smaller one in its place.
        assert_eq!(room.put(key("a"), answer(0)), 0);
        assert_eq!((room.bytes(), room.len()), (weight * SHARE - size, SHARE));
        // A larger one than a share is not kept, and neither is the one before.
        assert_eq!(room.put(key("a"), answer(size + 1)), 0);
        assert!(room.get(&key("a")).is_none());
        assert_eq!(room.bytes(), weight * (SHARE - 1));
        room.clear();
        assert_eq!((room.bytes(), room.len()), (0, 0));
    }
}
