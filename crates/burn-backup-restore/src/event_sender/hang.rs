//! Decides when a training without progress counts as hung.

use std::time::{Duration, Instant};

/// The limit is this many times the longest gap between two progress counts.
const GAPS: u32 = 10;

/// Before the first batch the limit is this many times `least`, because a program loads data, restores, and compiles.
const START: u32 = 10;

/// Watches a training's progress counter, which counts batches of training and validation, and pieces of a transfer.
#[derive(Debug)]
pub(super) struct HangRule {
    /// The smallest limit.
    least: Duration,
    count: Option<u64>,
    /// When the count last changed.
    changed: Option<Instant>,
    looked: Option<Instant>,
    longest: Duration,
    /// Whether the current silence was reported.
    is_reported: bool,
}

/// A time without progress that exceeds the limit.
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
            is_reported: false,
        }
    }

    pub(super) fn least(&self) -> Duration {
        self.least
    }

    /// Takes the counter's value at `now`. Returns a silence that exceeds the limit, once.
    pub(super) fn update(&mut self, count: u64, now: Instant) -> Option<Silence> {
        let looked = self.looked.replace(now);
        let changed = *self.changed.get_or_insert(now);
        let lasted = now.saturating_duration_since(changed);
        if self.count != Some(count) {
            // If the last check was too long ago, the time of the change is unknown.
            let is_known = looked.is_some_and(|looked| {
                now.saturating_duration_since(looked) <= self.least.max(self.longest)
            });
            if self.count.is_some_and(|count| count > 0) && is_known {
                self.longest = self.longest.max(lasted);
            }
            (self.count, self.changed, self.is_reported) = (Some(count), Some(now), false);
            return None;
        }
        let limit = match self.longest.is_zero() {
            true => self.least.saturating_mul(START),
            false => self.least.max(self.longest.saturating_mul(GAPS)),
        };
        if lasted <= limit || std::mem::replace(&mut self.is_reported, true) {
            return None;
        }
        Some(Silence { lasted, limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks every second a training that makes progress at `progress_times`, in seconds. Returns when a silence was
    /// reported, and its limit.
    fn silences(progress_times: &[u64], seconds: u64) -> Vec<(u64, u64)> {
        let begun = Instant::now();
        let mut rule = HangRule::new(Duration::from_secs(60));
        let mut silences = Vec::new();
        for second in 0..=seconds {
            let count = progress_times.iter().filter(|at| **at <= second).count() as u64;
            let now = begun + Duration::from_secs(second);
            if let Some(silence) = rule.update(count, now) {
                silences.push((second, silence.limit.as_secs()));
            }
        }
        silences
    }

    #[test]
    fn a_silence_of_ten_times_the_longest_earlier_one_is_reported_once() {
        /// The times of progress, the duration of the test, and the reports.
        type Row = (&'static [u64], u64, &'static [(u64, u64)]);
        let table: &[Row] = &[
            // No progress at all: ten minutes.
            (&[], 2000, &[(601, 600)]),
            // After one batch, the time of a batch is still unknown.
            (&[30], 2000, &[(631, 600)]),
            // At least a minute, however quick the batches are.
            (&[30, 31, 32], 2000, &[(93, 60)]),
            (&[30, 31, 32, 91], 200, &[]),
            // Ten times a validation that took 20 seconds.
            (&[1, 2, 22, 23], 222, &[]),
            (&[1, 2, 22, 23], 300, &[(224, 200)]),
            // It makes progress, and hangs again. The first silence now counts as the longest usual gap.
            (&[1, 2, 3, 100], 300, &[(64, 60)]),
            (&[1, 2, 3, 100], 2000, &[(64, 60), (1071, 970)]),
        ];
        for (progress_times, seconds, expected) in table {
            assert_eq!(
                &silences(progress_times, *seconds),
                expected,
                "{progress_times:?}"
            );
        }
    }

    #[test]
    fn time_between_late_checks_does_not_count_as_a_gap() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut rule = HangRule::new(Duration::from_secs(60));
        for second in 0..10 {
            assert_eq!(rule.update(second, at(second)), None);
        }
        // The callback blocked the thread for an hour.
        assert_eq!(rule.update(5000, at(3609)), None);
        assert_eq!(rule.update(5000, at(3669)), None);
        let limit = Duration::from_secs(60);
        let lasted = Duration::from_secs(61);
        assert_eq!(rule.update(5000, at(3670)), Some(Silence { lasted, limit }));
    }
}
