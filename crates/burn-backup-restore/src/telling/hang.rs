//! When a training that gives no sign of life is taken to hang.

use std::time::{Duration, Instant};

/// So many times the longest time between two signs of life is not too long.
const GAPS: u32 = 10;

/// Before the first batch a program loads data, restores, and compiles.
const START: u32 = 10;

/// Looks at the count of a training's signs of life: batches of training and validation, and pieces of a transfer.
#[derive(Debug)]
pub(super) struct HangRule {
    /// No silence that is shorter is too long.
    least: Duration,
    count: Option<u64>,
    /// When the count last changed.
    changed: Option<Instant>,
    looked: Option<Instant>,
    longest: Duration,
    /// Whether the silence that lasts was told of.
    is_told: bool,
}

/// A silence that is too long.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Silence {
    pub lasted: Duration,
    pub limit: Duration,
}

impl HangRule {
    pub(super) fn new(least: Duration) -> Self {
        Self {
            least,
            count: None,
            changed: None,
            looked: None,
            longest: Duration::ZERO,
            is_told: false,
        }
    }

    pub(super) fn least(&self) -> Duration {
        self.least
    }

    /// The count is this `now`. Gives a silence that is too long, once.
    pub(super) fn look(&mut self, count: u64, now: Instant) -> Option<Silence> {
        let looked = self.looked.replace(now);
        let changed = *self.changed.get_or_insert(now);
        let lasted = now.saturating_duration_since(changed);
        if self.count != Some(count) {
            // Where nobody looked for a while, nobody knows when it changed.
            let is_known = looked.is_some_and(|looked| {
                now.saturating_duration_since(looked) <= self.least.max(self.longest)
            });
            if self.count.is_some_and(|count| count > 0) && is_known {
                self.longest = self.longest.max(lasted);
            }
            (self.count, self.changed, self.is_told) = (Some(count), Some(now), false);
            return None;
        }
        let limit = match self.longest.is_zero() {
            true => self.least.saturating_mul(START),
            false => self.least.max(self.longest.saturating_mul(GAPS)),
        };
        if lasted <= limit || std::mem::replace(&mut self.is_told, true) {
            return None;
        }
        Some(Silence { lasted, limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks every second, from the beginning on, at a training whose count is the number of those of `lives` that have
    /// passed, in seconds. Gives when a silence was told of, and what its limit was.
    fn told(lives: &[u64], seconds: u64) -> Vec<(u64, u64)> {
        let begun = Instant::now();
        let mut rule = HangRule::new(Duration::from_secs(60));
        let mut told = Vec::new();
        for second in 0..=seconds {
            let count = lives.iter().filter(|at| **at <= second).count() as u64;
            let now = begun + Duration::from_secs(second);
            if let Some(silence) = rule.look(count, now) {
                told.push((second, silence.limit.as_secs()));
            }
        }
        told
    }

    #[test]
    fn a_silence_is_too_long_if_it_is_ten_times_the_longest_before_it_and_is_told_once() {
        /// Signs of life, how long is looked, and what is told when.
        type Row = (&'static [u64], u64, &'static [(u64, u64)]);
        let table: &[Row] = &[
            // No sign of life at all: ten minutes.
            (&[], 2000, &[(601, 600)]),
            // One batch, after which nothing is known of how long they take.
            (&[30], 2000, &[(631, 600)]),
            // A minute at least, however quick the batches are.
            (&[30, 31, 32], 2000, &[(93, 60)]),
            (&[30, 31, 32, 91], 200, &[]),
            // Ten times a validation that took 20 seconds.
            (&[1, 2, 22, 23], 222, &[]),
            (&[1, 2, 22, 23], 300, &[(224, 200)]),
            // It goes on, and hangs once more. The silence before was no usual one, but nobody knows.
            (&[1, 2, 3, 100], 300, &[(64, 60)]),
            (&[1, 2, 3, 100], 2000, &[(64, 60), (1071, 970)]),
        ];
        for (lives, seconds, expected) in table {
            assert_eq!(&told(lives, *seconds), expected, "{lives:?}");
        }
    }

    #[test]
    fn what_passed_while_nobody_looked_is_no_measure() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut rule = HangRule::new(Duration::from_secs(60));
        for second in 0..10 {
            assert_eq!(rule.look(second, at(second)), None);
        }
        // The callback held the thread for an hour.
        assert_eq!(rule.look(5000, at(3609)), None);
        assert_eq!(rule.look(5000, at(3669)), None);
        let limit = Duration::from_secs(60);
        let lasted = Duration::from_secs(61);
        assert_eq!(rule.look(5000, at(3670)), Some(Silence { lasted, limit }));
    }
}
