//! The times at which trainings are killed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Times between failures: exponentially distributed with a given mean. The same seed yields the
/// same times.
#[derive(Debug)]
pub struct Gaps {
    mean: Duration,
    random: StdRng,
}

impl Gaps {
    /// Times with this mean.
    pub fn new(mean: Duration, seed: u64) -> Self {
        Self {
            mean,
            random: StdRng::seed_from_u64(seed),
        }
    }
}

impl Iterator for Gaps {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let uniform: f64 = self.random.random();
        // Because `uniform` is less than 1, the logarithm is finite.
        Some(self.mean.mul_f64(-(1.0 - uniform).ln()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEAN: Duration = Duration::from_secs(5);

    #[test]
    fn gaps_have_the_mean_and_the_tail_of_an_exponential_distribution() {
        let gaps: Vec<f64> = Gaps::new(MEAN, 1)
            .take(100_000)
            .map(|gap| gap.as_secs_f64())
            .collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        // Five times the standard error.
        assert!((mean - 5.0).abs() < 0.08, "{mean}");
        let longer_than_the_mean = gaps.iter().filter(|gap| **gap > 5.0).count() as f64;
        let share = longer_than_the_mean / gaps.len() as f64;
        assert!((share - (-1.0_f64).exp()).abs() < 0.01, "{share}");
    }

    #[test]
    fn the_same_seed_gives_the_same_gaps_and_another_seed_others() {
        let gaps = |seed| Gaps::new(MEAN, seed).take(20).collect::<Vec<_>>();
        assert_eq!(gaps(1), gaps(1));
        assert_ne!(gaps(1), gaps(2));
    }
}
