//! Fetching the next batch: check for a stop, seed, fetch.

use super::batches::{Batches, Role, Source};
use super::{Session, of_training};
use crate::burn_api;
use crate::error::BackupError;
use crate::parts::State;
use crate::resume::WholeEpoch;
use crate::session::NoMetrics;
use crate::session::progress::check_whole;

impl<S: State> Session<S> {
    /// Fetches the next batch. Gives `None` if no batch is left, or if the training is being stopped.
    ///
    /// First checks for preemption notices and seeds the devices. If a batch is followed by another `next`, without
    /// [`stepped`](Self::stepped) or [`accumulated`](Self::accumulated), both batches belong to the same step. A step
    /// can therefore use several loaders, and a batch can be left unused.
    ///
    /// # Errors
    ///
    /// [`BackupError::Dataset`] if the loader fails. [`BackupError::ShortEpoch`] if it ends before it has given all the
    /// items it promised. [`BackupError::OutdatedBatches`] if `batches` belongs to an earlier epoch, or to the training
    /// during the validation.
    pub fn next<O>(
        &mut self,
        batches: &mut Batches<'_, O>,
        state: &S,
    ) -> Result<Option<O>, BackupError> {
        if let Role::Validation { slot } = batches.role {
            return self.next_to_validate(slot, batches, state);
        }
        let is_of_this_epoch = match batches.role {
            Role::Epoch { epoch, .. } => epoch == self.epoch_count,
            Role::Stream { rollbacks, .. } => rollbacks == self.rollbacks,
            Role::Validation { .. } => true,
        };
        if !is_of_this_epoch || self.is_validating {
            return Err(BackupError::OutdatedBatches);
        }
        // The state can be saved only between two steps.
        if !self.loaders.has_pending() {
            self.core.check_for_notice(state, &mut NoMetrics);
            if self.is_left() {
                return Ok(None);
            }
        }
        self.begin_split(state);
        loop {
            let Some(batch) = self.fetch(batches)? else {
                if !self.loaders.has_pending() {
                    // Count skipped steps even if no step follows them.
                    self.loaders.commit(&mut self.core.progress.state);
                }
                return Ok(None);
            };
            // Check only after fetching, because the step may belong to the next epoch.
            if !self.loaders.has_pending()
                && let Some(step) = self.core.progress.skip_step()
            {
                self.loaders.leave_out(&step);
            }
            let (place, is_stream) = batches.place();
            if !self.loaders.is_left_out(place, is_stream) {
                self.loaders.takes_part(place, is_stream);
                return Ok(Some(batch));
            }
        }
    }

    /// Seeds the devices, and fetches the next batch.
    fn fetch<O>(&mut self, batches: &mut Batches<'_, O>) -> Result<Option<O>, BackupError> {
        let given = match batches.role {
            Role::Epoch { slot, .. } | Role::Validation { slot } => self.loaders.batches(slot),
            Role::Stream { place, .. } => self.loaders.stream(place).1,
        };
        if batches.most_in_epoch.is_some_and(|most| given >= most) {
            return Ok(None);
        }
        let seeds = self.core.progress.step_seeds();
        let seeds = seeds.map(|seeds| seeds.after(self.loaders.fetched()));
        if seeds.is_some() && self.has_fusion {
            // Flush the draws of the previous step.
            self.force_draws()?;
        }
        let devices = &self.devices;
        let fetched = batches.fetch(|| {
            for (index, device) in devices.iter().enumerate() {
                match (seeds, index) {
                    (Some(seeds), 0) => device.seed(seeds.batch(0)),
                    (Some(seeds), index) => device.seed(seeds.step(index)),
                    (None, _) => {}
                }
            }
        });
        if seeds.is_some() {
            self.force_draws()?;
        }
        let batch = fetched.transpose().map_err(BackupError::Dataset)?;
        match (batches.role, &batch) {
            (Role::Epoch { slot, .. } | Role::Validation { slot }, Some(_)) => {
                self.loaders.fetched_from(slot, batches.items());
            }
            (Role::Stream { place, .. }, Some(_)) => self.loaders.fetched_from_stream(place),
            (Role::Epoch { slot, .. }, None) => self.has_ended(slot, batches, "training")?,
            (Role::Stream { .. } | Role::Validation { .. }, None) => {}
        }
        Ok(batch)
    }

    /// Called before the first batch of an epoch, or of the rest of an epoch, is fetched.
    fn begin_split(&mut self, state: &S) {
        if std::mem::replace(&mut self.has_split_begun, true) {
            return;
        }
        self.core.split_begins(state);
        let is_new = self.core.progress.state.position.global_step == 0;
        if is_new && !self.core.window.accumulates() {
            // Whether the loop accumulates gradients is known only after the first batch.
            self.core.hold(state);
        }
    }

    fn next_to_validate<O>(
        &mut self,
        slot: usize,
        batches: &mut Batches<'_, O>,
        state: &S,
    ) -> Result<Option<O>, BackupError> {
        let was_stopping = self.is_stopping();
        self.core.check_for_notice(state, &mut NoMetrics);
        if self.is_stopping() && !was_stopping {
            // The validation may take longer than the time that is left.
            self.core.save_held_snapshot(&mut NoMetrics);
        }
        let batch = batches
            .fetch(|| ())
            .transpose()
            .map_err(BackupError::Dataset)?;
        match (&batch, batches.items()) {
            (Some(_), Some(items)) => {
                if let Some(progress) = self.loaders.progress(slot)
                    && progress.data.items_processed == 0
                {
                    progress.data.after_batch(items, true);
                }
            }
            (Some(_), None) => {}
            (None, _) => self.has_ended(slot, batches, "validation")?,
        }
        Ok(batch)
    }

    /// Checks that a loader gave as many items as it promised.
    fn has_ended<O>(
        &mut self,
        slot: usize,
        batches: &Batches<'_, O>,
        split: &'static str,
    ) -> Result<(), BackupError> {
        let Source::Loader { rest, kind } = &batches.source else {
            return Ok(());
        };
        let is_allowed = self.core.progress.allow_short_epochs;
        let Some(progress) = self.loaders.progress(slot) else {
            return Ok(());
        };
        let first_batch = progress.data.first_batch_items;
        let epoch = WholeEpoch {
            items: rest.items(),
            first_batch: (first_batch > 0).then_some(first_batch),
            loader: *kind,
        };
        check_whole(epoch, &mut progress.data.epoch_items, split, is_allowed)
    }

    /// Makes the devices draw all pending random numbers, in this order and before any others. A device with fusion
    /// draws lazily.
    fn force_draws(&self) -> Result<(), BackupError> {
        for (index, device) in self.devices.iter().enumerate() {
            device
                .flush()
                .map_err(|error| of_training(burn_api::device_failed(index, error.to_string())))?;
        }
        Ok(())
    }
}
