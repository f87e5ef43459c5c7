//! The position of the training.

use std::path::PathBuf;
use std::sync::Arc;

use burn::tensor::Device;
use burn::train::TrainingError;

use crate::change::{Change, Changes};
use crate::data_loader::BurnsSampler;
use crate::divergence::Fetched;
use crate::error::BackupError;
use crate::handle::BackupHandle;
use crate::messages::{announce, warn};
use crate::resume::{Resumption, WholeEpoch};
use crate::seed::{self, Purpose, RunSeed, StepSeeds};
use crate::settings::FastForward;
use crate::state::{DataProgress, EnteredEpoch, Phase, TrainingState};

/// The warning about Burn's sampler.
const BURNS_SAMPLER: &str = "not exact after a restart: the training dataset has Burn's \
     SamplerDataset, whose samples depend on how often it was read; use \
     burn_backup_restore::data::SamplerDataset instead";

/// The work that remains in a training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remaining {
    /// There are batches to train or an epoch to validate.
    Unfinished,
    /// Nothing is left.
    Complete,
    /// `num_epochs` is smaller than the current epoch of the training.
    PastLastEpoch,
}

/// The position of the training and its history.
pub(crate) struct Progress {
    pub(super) state: TrainingState,
    pub(super) handle: BackupHandle,
    pub(super) backup_dir: PathBuf,
    /// The seed of the backup directory.
    pub(super) directory_seed: u64,
    /// The number of devices that the data is now split among.
    pub(super) split: Option<usize>,
    pub(super) changes: Changes,
    pub(super) allow_short_epochs: bool,
    pub(super) fast_forward: FastForward,
    pub(super) num_epochs: usize,
    pub(super) has_warned_of_sampler: bool,
    pub(super) is_restored: bool,
    pub(super) has_stepped_here: bool,
}

impl Progress {
    /// The training state, including the position.
    pub(crate) fn state(&self) -> &TrainingState {
        &self.state
    }

    /// Whether the training was resumed from a backup.
    pub(crate) fn is_restored(&self) -> bool {
        self.is_restored
    }

    /// The learning rate from the backup, until the optimizer steps for the first time in this process. `has_stepped`
    /// says whether it has just stepped.
    pub(crate) fn restored_rate(&self, has_stepped: bool) -> Option<f64> {
        let is_known = self.is_restored && !self.has_stepped_here && !has_stepped;
        self.state.learning_rate.filter(|_| is_known)
    }

    /// The number of items that a loader gave in earlier complete epochs. `index` is the index of the loader's
    /// device, or `None` for the validation loader.
    fn whole_epoch(&mut self, index: Option<usize>) -> Option<&mut Option<usize>> {
        match index {
            Some(index) => self
                .state
                .all_data()
                .nth(index)
                .map(|data| &mut data.epoch_items),
            None => Some(&mut self.state.valid_items),
        }
    }

    /// Checks that a loader gave as many items as it promised before its epoch ended. `index` is the index of its
    /// device, or `None` for the validation loader.
    pub(crate) fn check_whole(
        &mut self,
        index: Option<usize>,
        epoch: WholeEpoch,
    ) -> Result<(), TrainingError> {
        let is_allowed = self.allow_short_epochs;
        let split = match index {
            Some(_) => "training",
            None => "validation",
        };
        // Under DDP, the loaders of other devices are not recorded.
        let mut unrecorded = None;
        let recorded = self.whole_epoch(index).unwrap_or(&mut unrecorded);
        check_whole(epoch, recorded, split, is_allowed)
            .map_err(|error| BackupError::into_training_error(Arc::new(error)))
    }

    /// The seeds from which the random numbers of all steps are derived.
    pub(crate) fn run_seeds(&self) -> RunSeed {
        let rollbacks = self.state.rollbacks.iter();
        RunSeed {
            seed: self.state.run_seed.unwrap_or(self.directory_seed),
            rollbacks: rollbacks.map(|rollback| rollback.from).collect(),
        }
    }

    /// The seed from which the random numbers of the next step are derived.
    pub(crate) fn run_seed(&self) -> u64 {
        self.run_seed_after(self.state.position.global_step)
    }

    fn run_seed_after(&self, global_step: u64) -> u64 {
        self.run_seeds().after(global_step)
    }

    /// Whether a rollback skips the next batch.
    pub(crate) fn skips_next(&self) -> bool {
        let next = self.state.position.global_step.saturating_add(1);
        let mut rollbacks = self.state.rollbacks.iter();
        rollbacks.any(|rollback| rollback.skips(next))
    }

    /// Skips the next step of a hand-written loop if a rollback requires it. Returns what the step would have
    /// fetched.
    pub(super) fn skip_step(&mut self) -> Option<Vec<Fetched>> {
        let next = self.state.position.global_step.saturating_add(1);
        let mut rollbacks = self.state.rollbacks.iter();
        let rollback = rollbacks.find(|rollback| rollback.skips(next))?;
        let fetched = rollback.fetched.clone();
        self.state.position = self.state.position.after_step();
        Some(fetched)
    }

    /// Whether everything that was loaded before must be loaded again.
    pub(crate) fn replays(&self) -> bool {
        self.fast_forward == FastForward::Replay
    }

    /// Records that the current epoch continues with batches or data that were changed on purpose.
    pub(crate) fn enters(&mut self, at: EnteredEpoch, change: Option<Change>) {
        announce_entered_epoch(at, change);
        self.state.data.entered = Some(at);
    }

    /// Restarts the current epoch because batches or data were changed on purpose.
    pub(crate) fn restarts_epoch(&mut self, change: Change) {
        let position = self.state.position;
        announce(&format!(
            "{change} was found and is allowed: epoch {} starts again, because its loader can't resume inside an \
             epoch; the items of its first {} batches are trained twice",
            position.epoch, position.step_in_epoch,
        ));
        self.state.restart_epoch();
    }

    /// Warns of a dataset that a restart can't return to its position. `or_else` is appended and names another
    /// remedy.
    pub(crate) fn warn_of_sampler(&mut self, found: Option<BurnsSampler>, or_else: &str) {
        let is_exact = |found: BurnsSampler| self.replays() && !found.has_workers;
        let is_first = !self.is_restored && !self.has_warned_of_sampler;
        if is_first && found.is_some_and(|found| !is_exact(found)) {
            self.has_warned_of_sampler = true;
            warn(&self.handle, &format!("{BURNS_SAMPLER}{or_else}"));
        }
    }

    /// Continues a training that early stopping had ended.
    pub(crate) fn continue_after_early_stop(&mut self) {
        self.state.early_stopped = false;
    }

    /// The work that remains in a training of `num_epochs` epochs.
    pub(crate) fn remaining(&self, num_epochs: usize) -> Remaining {
        let position = self.state.position;
        if position.epoch <= num_epochs && !self.state.early_stopped {
            Remaining::Unfinished
        } else if position.epoch <= num_epochs.saturating_add(1) && position.step_in_epoch == 0 {
            Remaining::Complete
        } else {
            Remaining::PastLastEpoch
        }
    }

    /// Where to resume a training whose loader has `train_items` items per epoch.
    pub(crate) fn resumption(&self, train_items: usize) -> Result<Resumption, TrainingError> {
        Resumption::new(
            &self.state,
            self.split,
            &self.changes,
            train_items,
            &self.backup_dir,
        )
    }

    /// The seeds for the next batch, if steps are seeded.
    pub(crate) fn step_seeds(&self) -> Option<StepSeeds> {
        self.state.reseed_steps.then(|| StepSeeds {
            run_seed: self.run_seed(),
            global_step: self.state.fetched(),
            are_split: self.split.is_some(),
        })
    }

    /// Seeds `device` for a validation.
    pub(crate) fn seed_validation(&self, device: &Device) {
        self.seed_validation_after(device, self.state.position.global_step);
    }

    /// Seeds `device` for the validation after `global_step` trained batches.
    pub(crate) fn seed_validation_after(&self, device: &Device, global_step: u64) {
        if self.state.reseed_steps {
            let run_seed = self.run_seed_after(global_step);
            device.seed(seed::derive(run_seed, Purpose::Validate, global_step));
        }
    }

    /// Seeds `device` for random numbers that a loop draws before it requests the batch after `fetched` batches.
    pub(super) fn seed_before_batch(&self, device: &Device, fetched: u64) {
        if self.state.reseed_steps {
            let run_seed = self.run_seed();
            device.seed(seed::derive(run_seed, Purpose::BeforeBatch, fetched));
        }
    }

    /// Seeds `device` for random numbers that a loop draws before it requests the batches of the current epoch.
    pub(super) fn seed_before_epoch(&self, device: &Device) {
        if self.state.reseed_steps {
            let position = self.state.position;
            let epoch = position.epoch as u64;
            // The global step at the start of the epoch.
            let before = position
                .global_step
                .saturating_sub(position.step_in_epoch as u64);
            let run_seed = self.run_seed_after(before);
            device.seed(seed::derive(run_seed, Purpose::BeforeEpoch, epoch));
        }
    }

    /// The trained share of all epochs, from 0 to 1.
    pub(super) fn share(&self) -> f64 {
        let DataProgress {
            items_processed,
            items_total,
            ..
        } = self.state.data;
        let epochs = self.state.position.epoch.saturating_sub(1) as f64;
        let part = items_processed as f64 / items_total.max(1) as f64;
        (epochs + part.min(1.0)) / self.num_epochs.max(1) as f64
    }

    /// Whether all batches of the epoch are trained.
    pub(crate) fn is_split_done(&self) -> bool {
        self.state.phase == Phase::Validate
    }
}

/// Prints that the current epoch continues with changed batches.
pub(super) fn announce_entered_epoch(at: EnteredEpoch, change: Option<Change>) {
    let EnteredEpoch { items, batches } = at;
    if let Some(change) = change {
        announce(&format!(
            "{change} was found and is allowed: the epoch continues after its first {items} items, which were \
             trained in {batches} batches",
        ));
    }
}

/// Checks that a loader gave as many items as it promised, or as many as it gave in the `recorded` epoch.
pub(super) fn check_whole(
    epoch: WholeEpoch,
    recorded: &mut Option<usize>,
    split: &'static str,
    is_allowed: bool,
) -> Result<(), BackupError> {
    match epoch.check(*recorded) {
        Some(_) if is_allowed => Ok(()),
        Some(promised) => Err(BackupError::ShortEpoch {
            split,
            given: epoch.items.processed,
            promised,
        }),
        None => {
            recorded.get_or_insert(epoch.items.processed);
            Ok(())
        }
    }
}
