//! What shapes of statements cost, as far as it is known.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many shapes are known at most.
const MOST: usize = 4_096;
/// How long a cost counts before it is asked for again: tables grow, and their statistics with them.
const LIFETIME: Duration = Duration::from_secs(300);
/// How long an answer is waited for before somebody else asks: a question is answered after its request, and that may be
/// a transaction that stays open.
const ASKING: Duration = Duration::from_secs(1);

/// See the module. By a hash with a secret of this process: with 64 bits, two shapes share an entry practically never,
/// and then one is charged as the other.
#[derive(Default)]
pub(super) struct Shapes {
    hasher: RandomState,
    known: HashMap<u64, Shape>,
}

/// A statement's text, of one caller: the plan depends on the caller's row policies, too.
struct Shape {
    /// In units.
    cost: Option<f64>,
    /// When it was answered, and by which generation of the catalogue.
    at: Instant,
    generation: u64,
    /// Since when somebody asks for it.
    asked: Option<Instant>,
    /// How often, or by which shares, it is to be charged once its cost is known.
    later: f64,
}

/// What a statement costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Price {
    /// In units.
    Known(f64),
    /// It is noted, and charged when it is known.
    Later,
}

impl Shapes {
    /// What names a shape.
    pub(super) fn key(&self, caller: &Arc<str>, sql: &str) -> u64 {
        self.hasher.hash_one((caller, sql))
    }

    /// The price of a shape, of which `share` is charged, and whether it is to be asked for.
    pub(super) fn price(&mut self, key: u64, share: f64, generation: u64, now: Instant) -> (Price, bool) {
        if self.known.len() >= MOST && !self.known.contains_key(&key) {
            // What is being asked for is to be charged yet.
            self.known.retain(|_, shape| shape.asked.is_some());
        }
        let new = Shape { cost: None, at: now, generation, asked: None, later: 0.0 };
        let shape = self.known.entry(key).or_insert(new);
        let is_old = shape.generation != generation || now.saturating_duration_since(shape.at) > LIFETIME;
        let is_unasked = shape.asked.is_none_or(|since| now.saturating_duration_since(since) > ASKING);
        let is_wanted = is_unasked && (shape.cost.is_none() || is_old);
        if is_wanted {
            shape.asked = Some(now);
        }
        match shape.cost {
            Some(cost) => (Price::Known(cost), is_wanted),
            None => {
                shape.later += share;
                (Price::Later, is_wanted)
            }
        }
    }

    /// A question has ended, with a cost or without: the shares that are to be charged for it. Of several, the first one
    /// has those of all.
    pub(super) fn answer(&mut self, key: u64, cost: Option<f64>, generation: u64, now: Instant) -> f64 {
        let Some(shape) = self.known.get_mut(&key) else { return 0.0 };
        shape.asked = None;
        if cost.is_some() {
            (shape.cost, shape.at, shape.generation) = (cost, now, generation);
        }
        std::mem::take(&mut shape.later)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_asked_for_again_after_a_while() {
        let (mut shapes, now) = (Shapes::default(), Instant::now());
        let key = shapes.key(&Arc::from("shop/app"), "SELECT 1");
        assert_ne!(key, shapes.key(&Arc::from("shop/reader"), "SELECT 1"));
        assert_eq!(shapes.price(key, 1.0, 0, now), (Price::Later, true));
        assert_eq!(shapes.answer(key, Some(5.0), 0, now), 1.0);
        assert_eq!(shapes.price(key, 1.0, 0, now + LIFETIME), (Price::Known(5.0), false));
        let later = now + LIFETIME + Duration::from_secs(1);
        assert_eq!(shapes.price(key, 1.0, 0, later), (Price::Known(5.0), true));
        assert_eq!(shapes.price(key, 1.0, 0, later), (Price::Known(5.0), false), "once at a time");
    }

    #[test]
    fn a_question_that_is_not_answered_soon_is_asked_by_another_one() {
        let (mut shapes, now) = (Shapes::default(), Instant::now());
        assert_eq!(shapes.price(0, 1.0, 0, now), (Price::Later, true));
        assert_eq!(shapes.price(0, 1.0, 0, now + ASKING), (Price::Later, false));
        let later = now + 2 * ASKING;
        assert_eq!(shapes.price(0, 1.0, 0, later), (Price::Later, true));
        assert_eq!(shapes.answer(0, Some(5.0), 0, later), 3.0, "those of all");
        assert_eq!(shapes.price(0, 1.0, 0, later), (Price::Known(5.0), false));
        assert_eq!(shapes.answer(0, Some(5.0), 0, later), 0.0, "the first one's, which ends last");
    }

    #[test]
    fn the_number_is_bounded_and_nothing_that_is_to_be_charged_is_forgotten() {
        let (mut shapes, now) = (Shapes::default(), Instant::now());
        shapes.price(0, 7.0, 0, now);
        for key in 1..3 * MOST as u64 {
            shapes.price(key, 1.0, 0, now);
            shapes.answer(key, Some(1.0), 0, now);
            assert!(shapes.known.len() <= MOST);
        }
        assert_eq!(shapes.answer(0, None, 0, now), 7.0);
    }
}
