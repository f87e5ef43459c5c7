//! A training and all that takes part in it: what each loop does before and after the batches of an
//! epoch.

use burn::tensor::Device;
use burn::train::{
    EventProcessorTraining as _, InferenceStep, Learner, LearnerEvent, LearnerModel, TrainStep,
    TrainingComponents, TrainingItem, ValidLoader,
};

use crate::burn_api;
use crate::engine::{Engine, Outlook};

const LOG: &str = "burn_backup::restore";

/// What the model gives for a training batch.
pub(super) type Output<M> = <M as TrainStep>::Output;

/// A training and all that takes part in it.
pub(super) struct Training<M: LearnerModel> {
    pub learner: Learner<M>,
    pub engine: Engine<M>,
    pub components: TrainingComponents<M>,
    /// The device that validates.
    pub main: Device,
    /// The training items in an epoch.
    pub train_items: usize,
    pub valid: ValidLoader<M>,
    pub starting_epoch: usize,
    /// Whether the engine knows how the training ends.
    pub is_over: bool,
}

/// What follows the end of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Epoch,
    /// Early stopping ends the training.
    End,
    /// A stop, or an error.
    Stop,
}

impl<M: LearnerModel> Training<M> {
    /// The epochs that are to be trained.
    pub(super) fn epochs(&self) -> std::ops::RangeInclusive<usize> {
        self.starting_epoch..=self.components.num_epochs
    }

    /// Whether something is left to do. If not, the engine knows how the training ends.
    pub(super) fn has_work(&mut self) -> bool {
        let num_epochs = self.components.num_epochs;
        match self.engine.outlook(num_epochs) {
            Outlook::Unfinished => {
                self.engine.warn_if_unprotected(num_epochs, None);
                return true;
            }
            Outlook::Complete => self.ends(true),
            Outlook::Beyond => {
                log::warn!(
                    target: LOG,
                    "the backup is of {}, and the training is to have {} epochs: the model is \
                     returned as it is, and the backup stays",
                    self.engine.state().position, num_epochs,
                );
                self.ends(false);
            }
        }
        false
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.components.interrupter.should_stop()
    }

    /// Tells Burn that the training batches of an epoch begin.
    pub(super) fn split_begins(&mut self, epoch: usize) {
        let total_items = self.train_items;
        self.tell_train(burn_api::split_begins(epoch, total_items));
        log::info!("Executing training step for epoch {epoch}");
        self.engine.split_begins(&self.learner);
    }

    /// Tells Burn that they have ended.
    pub(super) fn split_ends(&mut self, epoch: usize) {
        self.tell_train(burn_api::split_ends(epoch));
    }

    /// Tells Burn what came of a training batch.
    pub(super) fn tell_item(&mut self, item: TrainingItem<Output<M>>) {
        self.tell_train(LearnerEvent::ProcessedItem(item));
    }

    fn tell_train(&mut self, event: LearnerEvent<Output<M>>) {
        let told = self.components.event_processor.process_train(event);
        self.components.interrupter.fail_on_error(told);
    }

    fn tell_valid(&mut self, event: LearnerEvent<<M as InferenceStep>::Output>) {
        let told = self.components.event_processor.process_valid(event);
        self.components.interrupter.fail_on_error(told);
    }

    /// Validates, and does what Burn does then: checkpoints of the user's, and early stopping.
    pub(super) fn close_epoch(&mut self, epoch: usize) -> Next {
        if self.is_stopped() {
            if let Some(interruption) = self.components.interrupter.interruption() {
                let reason = interruption.reason.as_deref().unwrap_or("reason unknown");
                log::info!("Training interrupted: {reason}");
            }
            return Next::Stop;
        }

        self.validate(epoch);
        self.tell_train(LearnerEvent::EndEpoch(epoch));
        let components = &mut self.components;
        if components.checkpointer.is_some() || components.early_stopping.is_some() {
            let flushed = components.event_processor.flush();
            components.interrupter.fail_on_error(flushed);
        }
        if components.interrupter.should_stop() {
            return Next::Stop;
        }

        if let Some(checkpointer) = &mut components.checkpointer {
            checkpointer.checkpoint(&self.learner, epoch, &components.event_store);
        }
        let stops_early = components
            .early_stopping
            .as_mut()
            .is_some_and(|strategy| strategy.should_stop(epoch, &components.event_store));
        if epoch == self.starting_epoch {
            let steps = self.engine.state().position.step_in_epoch as u64;
            let num_epochs = components.num_epochs;
            self.engine.warn_if_unprotected(num_epochs, Some(steps));
        }
        self.engine.epoch_done(&self.learner, stops_early);
        match stops_early {
            true => Next::End,
            false => Next::Epoch,
        }
    }

    /// The loop is over. `has_finished` says that it came to the training's end.
    pub(super) fn ends(&mut self, has_finished: bool) {
        self.is_over = true;
        if has_finished {
            self.engine.finished(&self.learner);
        } else {
            self.engine.stopped(&self.learner);
        }
    }

    fn validate(&mut self, epoch: usize) {
        let total_items = self.valid.num_items();
        self.tell_valid(burn_api::split_begins(epoch, total_items));
        log::info!("Executing validation step for epoch {epoch}");
        self.engine.seed_validation(&self.main);
        self.validate_batches();
        self.tell_valid(burn_api::split_ends(epoch));
    }

    fn validate_batches(&mut self) {
        let model = self.learner.model().valid();
        let loader = self.valid.clone();
        let mut iterator = loader.iter();
        let mut iteration = 0;
        while let Some(batch) = iterator.next() {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    self.components.interrupter.fail(error);
                    return;
                }
            };
            let progress = iterator.progress();
            iteration += 1;
            // A batch's draws before those of the next one.
            if self.engine.step_seeds().is_some()
                && let Err(error) = self.main.flush()
            {
                let error = burn_api::device_failed(0, error.to_string());
                self.components.interrupter.fail(error);
                return;
            }

            let output = InferenceStep::step(&model, batch);
            let item = TrainingItem::new(output, progress, Some(iteration), None);
            self.tell_valid(LearnerEvent::ProcessedItem(item));
            if self.is_stopped() {
                return;
            }
        }
    }
}
