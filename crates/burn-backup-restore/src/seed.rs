//! Seeds for the random numbers of a step, derived from the step's identity.
//!
//! Before a batch is fetched, the device is seeded from (run seed, global step). Any later process can
//! therefore repeat the draws of any batch and of its step (augmentation, dropout, noise) without the
//! state of a generator.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

/// The purpose of a seed. The numbers never change, because old backups must resume with the same draws.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    /// A training batch, and on a single device also its step.
    Train = 1,
    Validate = 2,
    /// The step of one device among several.
    Step = 3,
    /// The order of the items in an epoch.
    Shuffle = 4,
    /// The orders of the items in a part of the data.
    Slice = 5,
    /// A sampled item.
    Sample = 6,
    /// The order of an epoch that is sampled without replacement.
    SampleOrder = 7,
    /// The items that come once more than the others in such an epoch.
    SampleRest = 8,
    /// The samples of a sampler without a seed.
    UnseededSampler = 9,
    /// The draws while the items of a batch are loaded.
    DrawForItems = 10,
    /// The draws of a batcher.
    DrawForBatch = 11,
    /// A step of reinforcement learning in an environment: the action and its consequences.
    #[cfg(feature = "rl")]
    EnvironmentStep = 12,
    /// A training step of reinforcement learning.
    #[cfg(feature = "rl")]
    AgentTraining = 13,
    /// The choice of transitions for such a training step.
    #[cfg(feature = "rl")]
    ReplaySample = 14,
    /// The first episode of an environment.
    #[cfg(feature = "rl")]
    EnvironmentStart = 15,
    /// An episode that evaluates an agent.
    #[cfg(feature = "rl")]
    Evaluation = 16,
    /// The draws of a policy or an environment itself.
    #[cfg(feature = "rl")]
    DrawForStep = 17,
    /// The draws of a custom loop before it asks for the next batch.
    BeforeBatch = 18,
    /// The draws of a custom loop before it asks for the batches of an epoch.
    BeforeEpoch = 19,
    /// The run seed after a rollback.
    RollBack = 20,
}

/// The source of a training's random numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunSeed {
    pub seed: u64,
    /// For each rollback, the first batch, counted from 1, from which on other numbers are drawn.
    pub rollbacks: Arc<[u64]>,
}

impl RunSeed {
    /// The seed for draws after this many batches.
    pub(crate) fn after(&self, batches: u64) -> u64 {
        let rollbacks = self
            .rollbacks
            .iter()
            .filter(|from| **from <= batches.saturating_add(1));
        match rollbacks.count() as u64 {
            0 => self.seed,
            count => derive(self.seed, Purpose::RollBack, count),
        }
    }
}

/// The source of the seeds for a batch and its step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepSeeds {
    /// The run seed for this step.
    pub run_seed: u64,
    /// The number of trained batches.
    pub global_step: u64,
    /// Whether several devices draw, in turns.
    pub are_split: bool,
}

impl StepSeeds {
    /// The seed for fetching the batch of this device. With a single device, it is also the seed for the step.
    pub(crate) fn batch(self, device: usize) -> u64 {
        match self.are_split {
            false => derive(self.run_seed, Purpose::Train, self.global_step),
            true => self.derive(Purpose::Train, device),
        }
    }

    /// The seed for the step of this device, if several devices compute a step at the same time.
    pub(crate) fn step(self, device: usize) -> u64 {
        self.derive(Purpose::Step, device)
    }

    /// The seeds for the batch after this many trained ones.
    pub(crate) fn after(self, global_step: u64) -> Self {
        Self {
            global_step,
            ..self
        }
    }

    /// The seeds for the next batch, in a training with this run seed.
    pub(crate) fn next(self, run_seed: &RunSeed) -> Self {
        let global_step = self.global_step.saturating_add(1);
        Self {
            run_seed: run_seed.after(global_step),
            global_step,
            ..self
        }
    }

    fn derive(self, purpose: Purpose, device: usize) -> u64 {
        derive_for_device(self.run_seed, purpose, self.global_step, device)
    }
}

/// The seed for `purpose` after `global_step` trained batches.
pub(crate) fn derive(run_seed: u64, purpose: Purpose, global_step: u64) -> u64 {
    hash([run_seed, purpose as u64, global_step])
}

/// The seed for `purpose`, after `global_step` trained batches, of the device with this index.
fn derive_for_device(run_seed: u64, purpose: Purpose, global_step: u64, device: usize) -> u64 {
    hash([run_seed, purpose as u64, global_step, device as u64])
}

/// The seed for the shuffle of an epoch, counted from 0.
pub(crate) fn of_shuffle(seed: u64, epoch: u64) -> u64 {
    hash([seed, Purpose::Shuffle as u64, epoch])
}

/// The shuffle seed of the items from `start` to `end`, for a loader with this seed.
pub(crate) fn of_slice(seed: u64, start: usize, end: usize) -> u64 {
    hash([seed, Purpose::Slice as u64, start as u64, end as u64])
}

/// The seed for the item at `index` of an epoch that is sampled with replacement.
pub(crate) fn of_sample(seed: u64, epoch: u64, index: usize) -> u64 {
    hash([seed, Purpose::Sample as u64, epoch, index as u64])
}

/// The seeds for an epoch that is sampled without replacement: one for the order, and one for the items
/// that come once more than the others.
pub(crate) fn of_sampled_epoch(seed: u64, epoch: u64) -> (u64, u64) {
    let derive = |purpose| hash([seed, purpose as u64, epoch]);
    (derive(Purpose::SampleOrder), derive(Purpose::SampleRest))
}

/// The seed of a sampler without its own seed that takes `size` samples of `len` items without replacement.
pub(crate) fn of_unseeded_sampler(len: usize, size: usize) -> u64 {
    hash([Purpose::UnseededSampler as u64, len as u64, size as u64])
}

/// The seed for one draw while a batch is created. Draws are counted from 0 for each purpose.
pub(crate) fn of_draw(seed: u64, purpose: Purpose, epoch: u64, batch: usize, draw: u64) -> u64 {
    hash([seed, purpose as u64, epoch, batch as u64, draw])
}

/// The seed of an environment's first episode. The evaluation environment has the last index.
#[cfg(feature = "rl")]
pub(crate) fn of_environment(run_seed: u64, environment: usize) -> u64 {
    derive(run_seed, Purpose::EnvironmentStart, environment as u64)
}

/// The seed of an episode of the evaluation after this many steps.
#[cfg(feature = "rl")]
pub(crate) fn of_evaluation(run_seed: u64, steps: u64, episode: usize) -> u64 {
    hash([run_seed, Purpose::Evaluation as u64, steps, episode as u64])
}

/// The transition, out of `len`, at `index` of the batch for a training step.
#[cfg(feature = "rl")]
pub(crate) fn sampled_transition(run_seed: u64, train_step: u64, index: usize, len: u64) -> u64 {
    let hash = hash([
        run_seed,
        Purpose::ReplaySample as u64,
        train_step,
        index as u64,
    ]);
    // The high half of the product. All transitions are equally likely, up to one part in 2^64 / len.
    ((u128::from(hash) * u128::from(len)) >> 64) as u64
}

/// The seed of a draw that a policy or an environment itself makes in a step.
#[cfg(feature = "rl")]
pub(crate) fn of_step_draw(step_seed: u64, draw: u64) -> u64 {
    derive(step_seed, Purpose::DrawForStep, draw)
}

fn hash<const WORDS: usize>(words: [u64; WORDS]) -> u64 {
    xxh3_64(words.map(u64::to_le_bytes).as_flattened())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_step_and_purpose_has_its_own_seed() {
        let mut seeds = HashSet::new();
        for run_seed in [0, 1, u64::MAX] {
            for purpose in [Purpose::Train, Purpose::Validate, Purpose::Step] {
                for step in 0..1000 {
                    assert!(seeds.insert(derive(run_seed, purpose, step)));
                    for device in 0..3 {
                        let seed = derive_for_device(run_seed, purpose, step, device);
                        assert!(seeds.insert(seed));
                    }
                }
            }
        }
    }

    #[test]
    fn a_rollback_changes_the_run_seed_from_the_first_skipped_batch() {
        let mut run_seed = RunSeed {
            seed: 7,
            rollbacks: Arc::default(),
        };
        let uninterrupted = run_seed.after(9);
        assert_eq!(uninterrupted, 7);
        run_seed.rollbacks = [10, 40].into();
        let once = run_seed.after(9);
        assert_eq!(run_seed.after(8), uninterrupted);
        assert_eq!(run_seed.after(38), once);
        let twice = run_seed.after(39);
        assert!(uninterrupted != once && once != twice && uninterrupted != twice);
    }

    #[test]
    fn seeds_do_not_change_between_versions() {
        // A backup of an older version must be continued with the same draws.
        assert_eq!(derive(42, Purpose::Train, 7), 10_505_479_717_065_846_744);
        assert_eq!(derive(42, Purpose::Validate, 7), 9_724_605_749_844_270_690);
        let before = |purpose| derive(42, purpose, 7);
        assert_eq!(before(Purpose::BeforeBatch), 4_734_351_240_605_154_614);
        assert_eq!(before(Purpose::BeforeEpoch), 13_990_592_346_358_477_905);
        assert_eq!(of_shuffle(42, 7), 2_637_090_613_119_939_028);
        assert_eq!(of_slice(42, 7, 9), 17_817_578_976_933_981_504);
        assert_eq!(of_sample(42, 7, 9), 2_376_478_833_032_530_650);
        assert_eq!(
            of_sampled_epoch(42, 7),
            (14_556_904_370_742_493_798, 14_051_309_038_025_696_249)
        );
        assert_eq!(of_unseeded_sampler(7, 9), 3_965_653_864_699_864_499);
        assert_eq!(
            of_draw(42, Purpose::DrawForItems, 7, 9, 3),
            2_620_177_204_604_857_529
        );
        assert_eq!(
            of_draw(42, Purpose::DrawForBatch, 7, 9, 3),
            7_990_191_011_490_343_524
        );
    }
}
