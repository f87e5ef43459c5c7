//! The best interval between backups if each has the same cost.

use std::time::Duration;

/// The time to train between two backups: `sqrt(2 * cost * mtbf)`. Each backup adds `cost` to the
/// training time, and the mean time between failures is `mtbf`.
///
/// J. W. Young, "A first order approximation to the optimum checkpoint interval", Communications of
/// the ACM 17 (1974). J. T. Daly, "A higher order estimate of the optimum checkpoint interval for
/// restart dumps", Future Generation Computer Systems 22 (2006), confirms it where `cost` is far
/// less than `mtbf`.
pub fn interval(cost: Duration, mtbf: Duration) -> Duration {
    Duration::from_secs_f64((2.0 * cost.as_secs_f64() * mtbf.as_secs_f64()).sqrt())
}

/// The number of steps nearest to `interval`, at least one.
pub fn steps(interval: Duration, step: Duration) -> usize {
    let steps = interval.as_secs_f64() / step.as_secs_f64();
    (steps.round() as usize).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_five_minute_backup_and_daily_failures_give_two_hours() {
        let interval = interval(
            Duration::from_secs(5 * 60),
            Duration::from_secs(24 * 60 * 60),
        );
        // sqrt(2 * 300 * 86400)
        assert_eq!(interval, Duration::from_secs(7200));
        assert_eq!(steps(interval, Duration::from_secs(7)), 1029);
    }

    #[test]
    fn there_is_at_least_one_step() {
        assert_eq!(steps(Duration::from_millis(1), Duration::from_secs(1)), 1);
    }
}
