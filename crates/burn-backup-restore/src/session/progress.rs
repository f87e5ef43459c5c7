//! Where the training is.

use std::path::PathBuf;
use std::sync::Arc;

use burn::tensor::Device;
use burn::train::TrainingError;

use crate::change::{Change, Changes};
use crate::data_loader::BurnsSampler;
use crate::divergence::Fetched;
use crate::error::BackupError;
use crate::handle::BackupHandle;
use crate::resume::{Resumption, WholeEpoch};
use crate::say::{announce, warn};
use crate::seed::{self, Purpose, RunSeed, StepSeeds};
use crate::settings::FastForward;
use crate::state::{DataProgress, Entered, Phase, TrainingState};

/// Said of Burn's sampler.
const BURNS_SAMPLER: &str = "not exact after a restart: the training dataset has Burn's \
     SamplerDataset, whose samples follow from how often it was asked; use \
     burn_backup_restore::data::SamplerDataset instead";

/// What is left of a training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remaining {
    /// Something to train or to validate.
    Unfinished,
    /// Nothing.
    Complete,
    /// `num_epochs` is smaller than the epoch that the training is in.
    Beyond,
}

/// Where the training is, and how it got there.
pub(crate) struct Progress {
    pub(super) state: TrainingState,
    pub(super) handle: BackupHandle,
    pub(super) backup_dir: PathBuf,
    /// The seed of the backup directory.
    pub(super) directory_seed: u64,
    /// Among how many devices the data is split now.
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
    /// Where the training is, and what else is known of it.
    pub(crate) fn state(&self) -> &TrainingState {
        &self.state
    }

    /// Whether the training was resumed from a backup.
    pub(crate) fn is_restored(&self) -> bool {
        self.is_restored
    }

    /// The learning rate in the backup, until the optimizer has stepped in this process. `has_stepped` says
    /// that it has just done so.
    pub(crate) fn restored_rate(&self, has_stepped: bool) -> Option<f64> {
        let is_known = self.is_restored && !self.has_stepped_here && !has_stepped;
        self.state.learning_rate.filter(|_| is_known)
    }

    /// How many items in the whole epochs before a loader gave, where `index` is that of its device, or
    /// nothing for the validation's.
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

    /// Checks that a loader has given all that it promised before its epoch ended. `index` is that of its
    /// device, or nothing for the validation's.
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
        // Under DDP nothing is recorded of the other devices' loaders.
        let mut unrecorded = None;
        let recorded = self.whole_epoch(index).unwrap_or(&mut unrecorded);
        check_whole(epoch, recorded, split, is_allowed)
            .map_err(|error| BackupError::into_training_error(Arc::new(error)))
    }

    /// What the random numbers of all steps are derived from.
    pub(crate) fn run_seeds(&self) -> RunSeed {
        let rollbacks = self.state.rollbacks.iter();
        RunSeed {
            seed: self.state.run_seed.unwrap_or(self.directory_seed),
            rollbacks: rollbacks.map(|rollback| rollback.from).collect(),
        }
    }

    /// The seed that the random numbers of the next step are derived from.
    pub(crate) fn run_seed(&self) -> u64 {
        self.run_seed_after(self.state.position.global_step)
    }

    fn run_seed_after(&self, global_step: u64) -> u64 {
        self.run_seeds().after(global_step)
    }

    /// Whether the next batch is skipped, because of a rollback.
    pub(crate) fn skips_next(&self) -> bool {
        let next = self.state.position.global_step.saturating_add(1);
        let mut rollbacks = self.state.rollbacks.iter();
        rollbacks.any(|rollback| rollback.skips(next))
    }

    /// Passes over the next step of a loop that is written by hand, if a rollback skips it. Gives what it would have
    /// fetched.
    pub(super) fn skip_step(&mut self) -> Option<Vec<Fetched>> {
        let next = self.state.position.global_step.saturating_add(1);
        let mut rollbacks = self.state.rollbacks.iter();
        let rollback = rollbacks.find(|rollback| rollback.skips(next))?;
        let fetched = rollback.fetched.clone();
        self.state.position = self.state.position.after_step();
        Some(fetched)
    }

    /// Whether everything that was loaded before is to be loaded once more.
    pub(crate) fn replays(&self) -> bool {
        self.fast_forward == FastForward::Replay
    }

    /// The epoch in progress goes on in batches, or with data, that are changed on purpose.
    pub(crate) fn enters(&mut self, at: Entered, change: Option<Change>) {
        say_entered(at, change);
        self.state.data.entered = Some(at);
    }

    /// The epoch in progress begins anew, because batches or data are changed on purpose.
    pub(crate) fn begins_epoch_anew(&mut self, change: Change) {
        let position = self.state.position;
        announce(&format!(
            "{change} is allowed and there: epoch {} begins anew, because its loader can't go on in \
             between; what its first {} batches held is trained twice",
            position.epoch, position.step_in_epoch,
        ));
        self.state.begin_epoch_anew();
    }

    /// Warns of a dataset that a restart can't bring to where it was. `or_else` is said of what else there is
    /// to do.
    pub(crate) fn warn_of_sampler(&mut self, found: Option<BurnsSampler>, or_else: &str) {
        let is_exact = |found: BurnsSampler| self.replays() && !found.has_workers;
        let is_first = !self.is_restored && !self.has_warned_of_sampler;
        if is_first && found.is_some_and(|found| !is_exact(found)) {
            self.has_warned_of_sampler = true;
            warn(&self.handle, &format!("{BURNS_SAMPLER}{or_else}"));
        }
    }

    /// Early stopping had ended the training, and does so no longer.
    pub(crate) fn goes_on_after_early_stop(&mut self) {
        self.state.early_stopped = false;
    }

    /// What is left to do in a training of `num_epochs` epochs.
    pub(crate) fn remaining(&self, num_epochs: usize) -> Remaining {
        let position = self.state.position;
        if position.epoch <= num_epochs && !self.state.early_stopped {
            Remaining::Unfinished
        } else if position.epoch <= num_epochs.saturating_add(1) && position.step_in_epoch == 0 {
            Remaining::Complete
        } else {
            Remaining::Beyond
        }
    }

    /// Where to resume the training, whose loader has `train_items` in an epoch.
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

    /// Seeds `device` for the validation after so many trained batches.
    pub(crate) fn seed_validation_after(&self, device: &Device, global_step: u64) {
        if self.state.reseed_steps {
            let run_seed = self.run_seed_after(global_step);
            device.seed(seed::derive(run_seed, Purpose::Validate, global_step));
        }
    }

    /// Seeds `device` for what a loop draws before it asks for the batch after so many `fetched` ones.
    pub(super) fn seed_before_batch(&self, device: &Device, fetched: u64) {
        if self.state.reseed_steps {
            let run_seed = self.run_seed();
            device.seed(seed::derive(run_seed, Purpose::BeforeBatch, fetched));
        }
    }

    /// Seeds `device` for what a loop draws before it asks for the batches of the epoch in progress.
    pub(super) fn seed_before_epoch(&self, device: &Device) {
        if self.state.reseed_steps {
            let position = self.state.position;
            let epoch = position.epoch as u64;
            // As it was when the epoch began.
            let before = position
                .global_step
                .saturating_sub(position.step_in_epoch as u64);
            let run_seed = self.run_seed_after(before);
            device.seed(seed::derive(run_seed, Purpose::BeforeEpoch, epoch));
        }
    }

    /// Which share of all epochs is trained.
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

/// Says that the epoch in progress goes on in other batches.
pub(super) fn say_entered(at: Entered, change: Option<Change>) {
    let Entered { items, batches } = at;
    if let Some(change) = change {
        announce(&format!(
            "{change} is allowed and there: the epoch goes on after its first {items} items, which were \
             trained in {batches} batches",
        ));
    }
}

/// Checks that a loader has given all that it promised, or gave in the epoch that is `recorded`.
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
