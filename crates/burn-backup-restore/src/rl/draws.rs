//! Seeds for random draws in policies and environments.
//!
//! The current step is kept per thread, because Burn's traits have no parameter for it.

use std::cell::Cell;
use std::hash::{BuildHasher as _, RandomState};

use crate::seed;

thread_local! {
    static STEP: Cell<Option<Step>> = const { Cell::new(None) };
}

/// The step that this thread is making.
#[derive(Debug, Clone, Copy)]
struct Step {
    seed: u64,
    draws: u64,
}

/// A seed for exploration and for environments, reproducible after a restart.
///
/// Each call returns another seed. The seed follows from the seed of the training, the step, and the number of
/// earlier calls in the step. Use it where a policy chooses an action at random, or where an environment begins an
/// episode. Draws from a Burn device (`Tensor::random`) need no such seed, because the loop seeds the device.
///
/// Outside a loop of [`OffPolicy`](super::OffPolicy), or on another thread than the training's, the seed is random.
///
/// # Example
///
/// ```
/// use burn_backup_restore::rl;
/// use rand::rngs::StdRng;
/// use rand::{RngExt as _, SeedableRng as _};
///
/// /// One of two actions: random with the probability `epsilon`, otherwise `greedy`.
/// fn choose(greedy: usize, epsilon: f64) -> usize {
///     let mut rng = StdRng::seed_from_u64(rl::draw_seed());
///     match rng.random_bool(epsilon) {
///         true => rng.random_range(0..2),
///         false => greedy,
///     }
/// }
/// # assert_eq!(choose(1, 0.0), 1);
/// ```
pub fn draw_seed() -> u64 {
    let Some(step) = STEP.get() else {
        return RandomState::new().hash_one(0);
    };
    STEP.set(Some(Step {
        draws: step.draws + 1,
        ..step
    }));
    seed::of_step_draw(step.seed, step.draws)
}

/// While this exists, the draws of this thread follow from a step's seed.
pub(super) struct Drawing {
    before: Option<Step>,
}

impl Drawing {
    pub(super) fn from_seed(seed: u64) -> Self {
        let before = STEP.replace(Some(Step { seed, draws: 0 }));
        Self { before }
    }
}

impl Drop for Drawing {
    fn drop(&mut self) {
        STEP.set(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(seed: u64) -> [u64; 3] {
        let _drawing = Drawing::from_seed(seed);
        [(); 3].map(|()| draw_seed())
    }

    #[test]
    fn the_draws_of_a_step_follow_from_its_seed() {
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
        let [first, second, third] = draws(1);
        assert!(first != second && second != third);
    }

    #[test]
    fn outside_a_step_all_draws_differ() {
        assert_ne!(draw_seed(), draw_seed());
    }
}
