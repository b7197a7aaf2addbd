//! Times at which writes were acknowledged, and the time between them.

use serde::Serialize;

/// A time without an acknowledged write, in seconds since some moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Gap {
    /// The last write before.
    pub from: f64,
    /// The first one after.
    pub to: f64,
}

impl Gap {
    /// How long it is, in seconds.
    pub fn seconds(&self) -> f64 {
        self.to - self.from
    }
}

/// The times between writes, of those that reach into the window. One that the window's end cuts
/// off counts as far as that: nobody had written by then.
pub fn gaps(acknowledged: &[f64], window: (f64, f64)) -> Vec<Gap> {
    let (from, to) = window;
    let last = acknowledged.last().copied().filter(|last| *last < to);
    let open = last.map(|last| Gap { from: last, to });
    let between = acknowledged.windows(2).map(|pair| Gap { from: pair[0], to: pair[1] });
    between.chain(open).filter(|gap| gap.to >= from && gap.from <= to).collect()
}

/// The longest of them.
pub fn longest(gaps: &[Gap]) -> Option<Gap> {
    gaps.iter().copied().max_by(|one, other| one.seconds().total_cmp(&other.seconds()))
}

/// The middle of some numbers; of an even count the mean of the two.
pub fn median(numbers: &[f64]) -> Option<f64> {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        count if count % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// The greatest of some numbers.
pub fn worst(numbers: &[f64]) -> Option<f64> {
    numbers.iter().copied().max_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_counts_from_the_last_write_before_to_the_first_one_after() {
        let acknowledged = [-9.0, -1.0, -0.5, 2.0, 2.5];
        let found = gaps(&acknowledged, (0.0, 2.5));
        assert_eq!(longest(&found), Some(Gap { from: -0.5, to: 2.0 }), "what was before the fault is not the fault's");
    }

    #[test]
    fn writes_that_never_came_back_are_a_gap() {
        assert_eq!(longest(&gaps(&[-1.0, 0.5], (0.0, 30.0))), Some(Gap { from: 0.5, to: 30.0 }));
    }

    #[test]
    fn the_median_of_an_even_count_lies_between() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }
}
