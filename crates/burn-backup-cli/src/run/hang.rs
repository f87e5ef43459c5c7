//! Decides when a command without progress counts as hung.

use std::time::{Duration, Instant};

/// The limit is at least this many times the longest time between two batches.
const GAPS: u32 = 10;

/// Before the first batches the limit is this many times longer, because a program loads data, restores, and compiles.
const START: u32 = 3;

/// Watches the count of batches of one run.
pub struct HangWatch {
    /// `None` if no command ever counts as hung.
    limit: Option<Duration>,
    count: Option<u64>,
    /// When the count last changed.
    changed: Option<Instant>,
    longest_gap: Duration,
    /// Whether the time between two batches is known.
    has_batches: bool,
}

impl HangWatch {
    /// A `limit` of zero means no limit. `longest_gap` is the longest time between two batches in earlier runs.
    pub fn new(limit: Duration, longest_gap: Duration) -> Self {
        Self {
            limit: Some(limit).filter(|limit| !limit.is_zero()),
            count: None,
            changed: None,
            longest_gap,
            has_batches: false,
        }
    }

    /// Takes the command's current count.
    pub fn beat(&mut self, count: u64, now: Instant) {
        if self.count == Some(count) {
            return;
        }
        if let (Some(_), Some(changed)) = (self.count.filter(|count| *count > 0), self.changed) {
            self.has_batches = true;
            self.longest_gap = self.longest_gap.max(now - changed);
        }
        self.count = Some(count);
        self.changed = Some(now);
    }

    /// The time without a batch, if it exceeds the limit. A command that never counted does not count as hung.
    pub fn exceeded(&self, now: Instant) -> Option<Duration> {
        let (limit, changed) = (self.limit?, self.changed?);
        let limit = match self.has_batches {
            true => limit,
            false => limit * START,
        };
        let limit = limit.max(self.longest_gap.saturating_mul(GAPS));
        let silent = now.saturating_duration_since(changed);
        (silent > limit).then_some(silent)
    }

    /// The longest time between two batches, for the next run.
    pub fn longest_gap(&self) -> Duration {
        self.longest_gap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_command_without_a_batch_for_too_long_hangs() {
        let begun = Instant::now();
        let mut watch = HangWatch::new(seconds(60), Duration::ZERO);
        assert_eq!(
            watch.exceeded(begun + seconds(1000)),
            None,
            "it never counted"
        );
        watch.beat(0, begun);
        assert_eq!(watch.exceeded(begun + seconds(180)), None, "it may compile");
        assert!(watch.exceeded(begun + seconds(181)).is_some());
        watch.beat(1, begun + seconds(100));
        watch.beat(2, begun + seconds(101));
        let last = begun + seconds(101);
        assert_eq!(watch.exceeded(last + seconds(60)), None);
        assert_eq!(watch.exceeded(last + seconds(61)), Some(seconds(61)));
        // The same count again changes nothing.
        watch.beat(2, last + seconds(50));
        assert_eq!(watch.exceeded(last + seconds(61)), Some(seconds(61)));
    }

    #[test]
    fn slow_batches_and_validations_are_waited_for() {
        let begun = Instant::now();
        let mut watch = HangWatch::new(seconds(60), Duration::ZERO);
        watch.beat(1, begun);
        watch.beat(2, begun + seconds(30));
        let last = begun + seconds(30);
        assert_eq!(watch.exceeded(last + seconds(300)), None);
        assert!(watch.exceeded(last + seconds(301)).is_some());
        // The next run uses the same gap.
        let mut next = HangWatch::new(seconds(60), watch.longest_gap());
        next.beat(1, last);
        next.beat(2, last + seconds(1));
        assert_eq!(next.exceeded(last + seconds(301)), None);
    }

    #[test]
    fn without_a_limit_nothing_hangs() {
        let begun = Instant::now();
        let mut watch = HangWatch::new(Duration::ZERO, Duration::ZERO);
        watch.beat(1, begun);
        assert_eq!(watch.exceeded(begun + seconds(1_000_000)), None);
    }
}
