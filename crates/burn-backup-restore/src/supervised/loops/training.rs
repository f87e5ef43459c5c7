//! A training with its components: the steps of each loop before and after the batches of an epoch.

use std::io;
use std::sync::Arc;

use burn::tensor::Device;
use burn::train::metric::store::{Aggregate, EventStoreClient, Split};
use burn::train::{
    EventProcessorTraining as _, InferenceStep, Learner, LearnerEvent, LearnerModel,
    SupervisedTrainingEventProcessor, TrainStep, TrainingComponents, TrainingError, TrainingItem,
    ValidLoader,
};

use crate::burn_api::{self, Items, LoaderKind};
use crate::error::BackupError;
use crate::messages::announce;
use crate::resume::{Batches, WholeEpoch};
use crate::session::Remaining;
use crate::supervised::engine::Engine;

const LOG: &str = "burn_backup::restore";

/// The model's output for a training batch.
pub(super) type Output<M> = <M as TrainStep>::Output;

/// A training with its components.
pub(super) struct Training<M: LearnerModel> {
    pub learner: Learner<M>,
    pub engine: Engine<M>,
    pub components: TrainingComponents<M>,
    /// The device that runs the validation.
    pub main: Device,
    /// The number of training items in an epoch.
    pub train_items: usize,
    pub valid: ValidLoader<M>,
    /// The event store for early stopping and checkpointing, if either is used. Its answers are part of the backup.
    pub deciding_store: Option<Arc<EventStoreClient>>,
    /// The metrics that decide which backups are kept.
    pub keeps_by: Vec<String>,
    pub starting_epoch: usize,
    /// Whether Burn has been told of the start of the training split, but not of its end.
    pub is_in_split: bool,
    /// Whether Burn has been told of a batch of this split.
    pub has_told_item: bool,
    /// Under DDP: the progress of the first worker's loader after the step in progress.
    pub leader_items: Option<Items>,
    /// Whether the engine knows how the training ends.
    pub is_over: bool,
}

/// What happens after the end of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Epoch,
    /// Early stopping ends the training.
    End,
    /// A stop, an error, or a divergence after which the training goes back.
    Stop,
}

impl<M: LearnerModel> Training<M> {
    /// The epochs to train.
    pub(super) fn epochs(&self) -> std::ops::RangeInclusive<usize> {
        self.starting_epoch..=self.components.num_epochs
    }

    /// Whether any work is left. If not, the engine knows how the training ends.
    pub(super) fn has_work(&mut self) -> bool {
        let num_epochs = self.components.num_epochs;
        match self.engine.progress.remaining(num_epochs) {
            Remaining::Unfinished => {
                self.engine.warn_if_unprotected(num_epochs, None);
                return true;
            }
            Remaining::Complete => self.ends(true),
            Remaining::PastLastEpoch => {
                self.is_over = true;
                self.engine.past_last_epoch(num_epochs);
            }
        }
        false
    }

    /// Ends the training without a step, because a device's thread can't be started.
    pub(super) fn fail_to_start(&mut self, error: io::Error) {
        let error = BackupError::DeviceThread(error);
        let error = BackupError::into_training_error(Arc::new(error));
        self.engine.refused(error);
    }

    /// Whether the training ends at this batch boundary.
    pub(super) fn is_stopped(&mut self) -> bool {
        self.check_for_notice();
        self.is_left()
    }

    /// Whether the training is being stopped, or goes back after a divergence.
    fn is_left(&self) -> bool {
        self.components.interrupter.should_stop() || self.engine.has_diverged()
    }

    /// If the training has diverged and goes back, restores it. Returns whether its loop must start again.
    pub(super) fn rolls_back(&mut self) -> bool {
        if self.is_over || !self.engine.has_diverged() {
            return false;
        }
        let processor = &mut self.components.event_processor;
        if let Err(error) = self.engine.roll_back(&mut self.learner, processor) {
            let error = BackupError::into_training_error(Arc::new(error));
            self.components.interrupter.fail(error);
            self.ends(false);
            return false;
        }
        self.starting_epoch = self.engine.progress.state().position.epoch;
        self.is_in_split = false;
        self.leader_items = None;
        true
    }

    /// Whether a rollback skips the next batch.
    pub(super) fn skips_next(&self) -> bool {
        self.engine.progress.skips_next()
    }

    /// Checks for a preemption notice.
    pub(super) fn check_for_notice(&mut self) {
        let processor = &mut self.components.event_processor;
        self.engine.check_for_notice(&self.learner, processor);
    }

    /// Tells Burn that the training split of an epoch begins, unless it has been told.
    pub(super) fn split_begins(&mut self, epoch: usize) {
        if std::mem::replace(&mut self.is_in_split, true) {
            return;
        }
        self.has_told_item = false;
        let total_items = self.train_items;
        self.send_train(burn_api::split_begins(epoch, total_items));
        log::info!("Executing training step for epoch {epoch}");
        self.engine.split_begins(&self.learner);
    }

    /// Tells Burn that the training split has ended, if it had begun and had a batch. Some of Burn's metrics panic if
    /// they are read without a batch.
    pub(super) fn split_ends(&mut self, epoch: usize) {
        if !std::mem::take(&mut self.is_in_split) || self.ends_without(self.has_told_item) {
            return;
        }
        // A stop after the last batch does not interrupt the epoch: Burn's log entries now still belong to it.
        if !self.engine.progress.is_split_done() {
            self.mark_stop();
        }
        self.engine.expect_metrics(None);
        self.send_train(burn_api::split_ends(epoch));
    }

    /// Marks the epoch in which the training resumes as fully trained. Burn gets no more training events for it, so
    /// its log stays unchanged.
    pub(super) fn has_trained_all(&mut self) {
        if let Some(logs) = self.engine.metric_logs() {
            logs.end_training();
        }
        self.engine.split_done();
    }

    /// Passes the result of the next training batch to Burn.
    pub(super) fn send_item(&mut self, item: TrainingItem<Output<M>>) {
        self.has_told_item = true;
        let batch = self
            .engine
            .progress
            .state()
            .position
            .global_step
            .saturating_add(1);
        self.engine.expect_metrics(Some(batch));
        self.send_train(LearnerEvent::ProcessedItem(item));
    }

    /// Marks a stop in the metric logs: later entries don't belong to the training.
    fn mark_stop(&mut self) {
        if self.components.interrupter.should_stop() {
            self.engine.split_stops();
        }
    }

    /// Whether the training ends before the current split has had a batch. (Burn handles a split that is empty by
    /// itself.)
    fn ends_without(&self, has_batch: bool) -> bool {
        !has_batch && self.is_left()
    }

    fn send_train(&mut self, event: LearnerEvent<Output<M>>) {
        self.count(&event);
        let sent = self.send_event(|processor| processor.process_train(event));
        self.components.interrupter.fail_on_error(sent);
    }

    fn send_valid(&mut self, event: LearnerEvent<<M as InferenceStep>::Output>) {
        self.count(&event);
        let sent = self.send_event(|processor| processor.process_valid(event));
        self.components.interrupter.fail_on_error(sent);
    }

    /// Runs `tell`, which sends an event to Burn.
    fn send_event<T>(
        &mut self,
        tell: impl FnOnce(&mut SupervisedTrainingEventProcessor<M>) -> T,
    ) -> T {
        let processor = &mut self.components.event_processor;
        match self.engine.metric_logs() {
            Some(logs) => logs.abandon_on_panic(|| tell(processor)),
            None => tell(processor),
        }
    }

    fn count<T>(&self, event: &LearnerEvent<T>) {
        if let Some(logs) = self.engine.metric_logs() {
            logs.expect_calls(burn_api::logger_calls(event));
        }
    }

    /// Checks the loaders for which `has_ended` is true: each must have given as many items as it promised.
    pub(super) fn have_ended<O>(
        &mut self,
        batches: &[Batches<'_, O>],
        kinds: &[LoaderKind],
        has_ended: impl Fn(usize) -> bool,
    ) -> Result<(), TrainingError> {
        let loaders = batches.iter().zip(kinds).enumerate();
        for (index, (batches, loader)) in loaders.filter(|(index, _)| has_ended(*index)) {
            let recorded = self.engine.progress.state().recorded(index);
            let epoch = WholeEpoch {
                items: batches.items(),
                first_batch: recorded.map(|data| data.first_batch_items),
                loader: *loader,
            };
            self.engine.progress.check_whole(Some(index), epoch)?;
        }
        Ok(())
    }

    /// Restores the state of early stopping by repeating its past decisions. If it had ended the training, that
    /// decision is repeated as well.
    pub(super) fn catch_up(&mut self) {
        let had_stopped = self.engine.progress.state().early_stopped;
        let metric_history = self.engine.metric_history().clone();
        let stops = match (&mut self.components.early_stopping, &self.deciding_store) {
            (Some(strategy), Some(store)) => {
                let mut stops = false;
                for epoch in metric_history.past() {
                    metric_history.hide_after(epoch);
                    stops = strategy.should_stop(epoch, store);
                }
                stops
            }
            (Some(_), None) => had_stopped,
            (None, _) => false,
        };
        if !had_stopped {
            return;
        }
        let last = metric_history.past().end().to_string();
        match stops {
            true => announce(&format!(
                "early stopping ended the training after epoch {last}, and ends it again: nothing \
                 is trained; to continue, give it more patience or remove it",
            )),
            false => {
                announce(&format!(
                    "early stopping ended the training after epoch {last}, but does not with its \
                     current settings: the training continues",
                ));
                self.engine.progress.continue_after_early_stop();
            }
        }
    }

    /// Validates, and then does what Burn does: the user's checkpoints and early stopping.
    pub(super) fn close_epoch(&mut self, epoch: usize) -> Next {
        let processor = &mut self.components.event_processor;
        self.engine.settle_divergence(processor);
        if self.is_stopped() {
            if let Some(interruption) = self.components.interrupter.interruption() {
                let reason = interruption.reason.as_deref().unwrap_or("reason unknown");
                log::info!("Training interrupted: {reason}");
            }
            return Next::Stop;
        }

        self.validate(epoch);
        self.send_train(LearnerEvent::EndEpoch(epoch));
        if self.deciding_store.is_some() {
            let interrupter = self.components.interrupter.clone();
            self.send_event(|processor| burn_api::drain::<M>(processor, &interrupter));
        }
        if self.components.interrupter.should_stop() {
            return Next::Stop;
        }

        let stops_early = self.decide(epoch);
        let components = &mut self.components;
        if epoch == self.starting_epoch {
            let steps = self.engine.progress.state().position.step_in_epoch as u64;
            let num_epochs = components.num_epochs;
            self.engine.warn_if_unprotected(num_epochs, Some(steps));
        }
        let processor = &mut self.components.event_processor;
        self.engine
            .epoch_done(&self.learner, processor, stops_early);
        match stops_early {
            true => Next::End,
            false => Next::Epoch,
        }
    }

    /// Runs Burn's strategies for this epoch: which checkpoints are kept, and whether the training stops early.
    fn decide(&mut self, epoch: usize) -> bool {
        let components = &mut self.components;
        let Some(store) = &self.deciding_store else {
            return false;
        };
        if self.engine.metric_logs().is_some() {
            // A query that only waits: it is answered after all earlier events are logged.
            let nothing = Split::Test(None);
            let store = &components.event_store;
            store.find_metric("Backup", epoch, Aggregate::Mean, &nothing);
        }
        self.engine.metric_history().hide_after(epoch);
        for metric in &self.keeps_by {
            // The query adds the value to the history.
            store.find_metric(metric, epoch, Aggregate::Mean, &Split::Valid);
        }
        if let Some(checkpointer) = &mut components.checkpointer {
            checkpointer.checkpoint(&self.learner, epoch, store);
            let metric_history = self.engine.metric_history();
            let is_first = epoch == self.starting_epoch && !metric_history.past().is_empty();
            if is_first && !metric_history.checkpoints_continue() {
                log::warn!(
                    target: LOG,
                    "Burn's checkpointing strategy does not know the earlier epochs any more, and \
                     may keep checkpoints that it would have deleted; continue Burn's default with \
                     BackupAndRestore::artifacts, or give the strategy to \
                     BackupAndRestore::checkpointing_strategy instead",
                );
            }
        }
        let strategy = components.early_stopping.as_mut();
        strategy.is_some_and(|strategy| strategy.should_stop(epoch, store))
    }

    /// Ends the loop. `has_finished` says whether the whole training is done.
    ///
    /// Does nothing for a training that goes back, because it continues.
    pub(super) fn ends(&mut self, has_finished: bool) {
        if !has_finished && self.engine.has_diverged() {
            return;
        }
        self.is_over = true;
        let processor = &mut self.components.event_processor;
        match has_finished {
            true => self.engine.finished(&self.learner, processor),
            false => self.engine.stopped(&self.learner, processor),
        }
    }

    fn validate(&mut self, epoch: usize) {
        let total_items = self.valid.num_items();
        self.send_valid(burn_api::split_begins(epoch, total_items));
        log::info!("Executing validation step for epoch {epoch}");
        self.engine.progress.seed_validation(&self.main);
        let batches = self.validate_batches();
        if self.ends_without(batches > 0) {
            return;
        }
        self.mark_stop();
        self.send_valid(burn_api::split_ends(epoch));
    }

    /// Validates until the batches are used up or a stop. Returns the number of batches.
    fn validate_batches(&mut self) -> usize {
        let kind = burn_api::loader_kind(self.valid.as_ref());
        let mut first_batch = None;
        let model = self.learner.model().valid();
        let loader = self.valid.clone();
        let mut iterator = loader.iter();
        let mut iteration = 0;
        while let Some(batch) = iterator.next() {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    self.components.interrupter.fail(error);
                    return iteration;
                }
            };
            let progress = iterator.progress();
            first_batch.get_or_insert(progress.items_processed);
            // Force the draws of this batch before those of the next.
            if self.engine.progress.step_seeds().is_some()
                && let Err(error) = self.main.flush()
            {
                let error = burn_api::device_failed(0, error.to_string());
                self.components.interrupter.fail(error);
                return iteration;
            }

            let output = InferenceStep::step(&model, batch);
            iteration += 1;
            let item = TrainingItem::new(output, progress, Some(iteration), None);
            self.send_valid(LearnerEvent::ProcessedItem(item));
            if self.is_stopped() {
                return iteration;
            }
        }
        let epoch = WholeEpoch {
            items: burn_api::items(iterator.as_ref()),
            first_batch,
            loader: kind,
        };
        if let Err(error) = self.engine.progress.check_whole(None, epoch) {
            self.components.interrupter.fail(error);
        }
        iteration
    }
}
