//! The room for answers that are kept for the repetition of their requests.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// See the module. It is that of the database: the bytes are counted there from time to time, and those that this process
/// adds meanwhile are counted here.
pub(super) struct Room {
    most: u64,
    taken: AtomicU64,
    full: AtomicBool,
}

impl Room {
    /// For so many bytes.
    pub(super) fn new(most: u64) -> Self {
        Self { most, taken: AtomicU64::new(0), full: AtomicBool::new(false) }
    }

    /// How much it has, in bytes.
    pub(super) fn most(&self) -> u64 {
        self.most
    }

    /// Takes room for an answer of so many bytes, if there is any.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        let fits = |taken: u64| taken.checked_add(bytes).filter(|all| *all <= self.most);
        // An empty answer is kept in any case.
        bytes == 0 || self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    /// So many bytes were counted: whether no room is left, and there was some when they were counted before.
    pub(super) fn counted(&self, bytes: u64) -> bool {
        self.taken.store(bytes, Ordering::Relaxed);
        let is_full = bytes >= self.most;
        let was_full = self.full.swap(is_full, Ordering::Relaxed);
        is_full && !was_full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_room_until_it_is_taken() {
        let room = Room::new(100);
        assert!(room.take(60) && !room.take(41) && room.take(40) && !room.take(1) && room.take(0));
        assert!(!room.counted(70));
        assert!(room.take(30) && !room.take(1));
        assert!(room.counted(100) && !room.counted(120), "it is told once");
        assert!(!room.take(1));
        assert!(!room.counted(50) && room.counted(100));
    }
}
