//! Seeds for the random numbers of a step, derived from what the step is.
//!
//! With the device seeded from (run seed, global step) before a batch is fetched, the draws of
//! that batch and of its step (augmentation, dropout, noise) can be made again without a
//! generator's state: by any later process, at any batch.

use xxhash_rust::xxh3::xxh3_64;

/// What a seed is for. The numbers stand in every backup's future: they never change.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    Train = 1,
    Validate = 2,
}

/// The seed for `purpose` after `global_step` trained batches.
pub(crate) fn derive(run_seed: u64, purpose: Purpose, global_step: u64) -> u64 {
    let mut bytes = [0; 24];
    let words = [run_seed, purpose as u64, global_step];
    for (slot, word) in bytes.chunks_exact_mut(8).zip(words) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    xxh3_64(&bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_step_and_purpose_has_a_seed_of_its_own() {
        let mut seeds = HashSet::new();
        for run_seed in [0, 1, u64::MAX] {
            for purpose in [Purpose::Train, Purpose::Validate] {
                for step in 0..1000 {
                    assert!(seeds.insert(derive(run_seed, purpose, step)));
                }
            }
        }
    }

    #[test]
    fn seeds_do_not_change_between_versions() {
        // A backup of an older version must be continued with the same draws.
        assert_eq!(derive(42, Purpose::Train, 7), 10_505_479_717_065_846_744);
        assert_eq!(derive(42, Purpose::Validate, 7), 9_724_605_749_844_270_690);
    }
}
