//! The best interval between backups of which each costs the same.

use std::time::Duration;

/// How long to train between two backups, each of which adds `cost` to the training's time, when
/// the mean time between failures is `mtbf`: `sqrt(2 * cost * mtbf)`.
///
/// J. W. Young, "A first order approximation to the optimum checkpoint interval", Communications of
/// the ACM 17 (1974). J. T. Daly, "A higher order estimate of the optimum checkpoint interval for
/// restart dumps", Future Generation Computer Systems 22 (2006), confirms it where `cost` is far
/// less than `mtbf`.
pub fn interval(cost: Duration, mtbf: Duration) -> Duration {
    Duration::from_secs_f64((2.0 * cost.as_secs_f64() * mtbf.as_secs_f64()).sqrt())
}

/// The number of steps, at least one, that is nearest to `interval`.
pub fn steps(interval: Duration, step: Duration) -> usize {
    let steps = interval.as_secs_f64() / step.as_secs_f64();
    (steps.round() as usize).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_of_five_minutes_and_a_failure_a_day_make_two_hours() {
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
