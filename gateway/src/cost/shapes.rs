//! What shapes of statements cost, as far as it is known.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many shapes are known at most.
const MOST: usize = 4_096;
/// How long a cost counts before it is asked for again: tables grow, and their statistics with them.
const LIFETIME: Duration = Duration::from_secs(300);

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
    /// Whether somebody asks for it.
    asked: bool,
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
            self.known.retain(|_, shape| shape.asked);
        }
        let new = Shape { cost: None, at: now, generation, asked: false, later: 0.0 };
        let shape = self.known.entry(key).or_insert(new);
        let is_old = shape.generation != generation || now.saturating_duration_since(shape.at) > LIFETIME;
        let is_wanted = !shape.asked && (shape.cost.is_none() || is_old);
        shape.asked |= is_wanted;
        match shape.cost {
            Some(cost) => (Price::Known(cost), is_wanted),
            None => {
                shape.later += share;
                (Price::Later, is_wanted)
            }
        }
    }

    /// A question has ended, with a cost or without: the shares that are to be charged for it.
    pub(super) fn answer(&mut self, key: u64, cost: Option<f64>, generation: u64, now: Instant) -> f64 {
        let Some(shape) = self.known.get_mut(&key) else { return 0.0 };
        shape.asked = false;
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
