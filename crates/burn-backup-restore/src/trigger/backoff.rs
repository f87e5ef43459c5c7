//! The delay before the next attempt after failed backups, because a full disk stays full for a while.

use std::time::Duration;

use super::Now;

/// The delay after a failed backup. It doubles after each further failure in a row.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The maximum delay.
const LONGEST: Duration = Duration::from_secs(60);

/// Counts consecutive failures. Times are measured from the training's launch.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    failures: u32,
    /// When the last failure became known.
    last: Duration,
}

impl Backoff {
    /// Creates a backoff that waits for `first` after the first failure.
    pub(super) fn new(first: Duration) -> Self {
        Self {
            first,
            failures: 0,
            last: Duration::ZERO,
        }
    }

    pub(super) fn failed(&mut self, now: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.last = now;
    }

    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Whether the next attempt must wait: for the delay after the last failure, or for the result of the backup that
    /// is being written.
    pub(super) fn holds_back(&self, now: Now) -> bool {
        let wait = self.wait();
        !wait.is_zero() && (now.is_writing || now.time.saturating_sub(self.last) < wait)
    }

    fn wait(&self) -> Duration {
        match self.failures.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => {
                let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
                self.first.saturating_mul(factor).min(LONGEST)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_in_a_row_doubles_the_wait_up_to_a_minute() {
        let mut backoff = Backoff::new(RETRY_AFTER);
        assert_eq!(backoff.wait(), Duration::ZERO);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            backoff.failed(Duration::ZERO);
            assert_eq!(backoff.wait(), Duration::from_secs(seconds));
        }
        for failures in [32, 33, 34, u32::MAX] {
            backoff.failures = failures;
            assert_eq!(backoff.wait(), LONGEST, "{failures} failures");
        }
        backoff.reset();
        assert_eq!(backoff.wait(), Duration::ZERO);
        let mut at_once = Backoff::new(Duration::ZERO);
        at_once.failed(Duration::ZERO);
        assert_eq!(at_once.wait(), Duration::ZERO);
    }
}
