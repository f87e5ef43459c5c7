//! One epoch on one device: its training batches, then its validation.

use burn::data::dataloader::DataLoaderIterator;
use burn::data::dataset::DatasetError;
use burn::optim::GradientsAccumulator;
use burn::tensor::Device;
use burn::train::{
    EventProcessorTraining as _, InferenceStep, Interrupter, Learner, LearnerEvent, LearnerModel,
    SupervisedTrainingEventProcessor, TrainLoader, TrainStep, TrainingItem, ValidLoader,
};

use crate::burn_api::{self, Items};
use crate::engine::Engine;
use crate::fast_forward::Rest;

/// One epoch, and all that takes part in it.
pub(super) struct Epoch<'a, M: LearnerModel> {
    pub learner: &'a mut Learner<M>,
    pub engine: &'a mut Engine<M>,
    pub processor: &'a mut SupervisedTrainingEventProcessor<M>,
    pub interrupter: &'a Interrupter,
    pub device: &'a Device,
    pub number: usize,
}

impl<M: LearnerModel> Epoch<'_, M> {
    /// Trains the `rest` of the epoch. Where only its validation is left, Burn hears nothing of its
    /// training again: what that logged stays as it is.
    pub(super) fn train<'l>(
        &mut self,
        loader: &'l TrainLoader<M>,
        rest: Rest<'l, <M as TrainStep>::Input>,
        total_items: usize,
        grad_accumulation: Option<usize>,
    ) {
        let begun = match rest {
            Rest::WholeEpoch => None,
            Rest::Batches { first, iterator } => Some(Batches {
                first: Some(first),
                iterator,
            }),
            Rest::Validation => return self.engine.split_done(),
        };
        self.interrupter.fail_on_error(
            self.processor
                .process_train(burn_api::split_begins(self.number, total_items)),
        );
        log::info!("Executing training step for epoch {}", self.number);
        self.engine.split_begins(self.learner);
        let mut batches = begun.unwrap_or_else(|| Batches {
            first: None,
            iterator: loader.iter(),
        });
        if self.train_batches(&mut batches, grad_accumulation) {
            self.engine.split_done();
        }
        self.interrupter.fail_on_error(
            self.processor
                .process_train(burn_api::split_ends(self.number)),
        );
    }

    /// Trains until the batches are all used, and says whether they are.
    fn train_batches(
        &mut self,
        batches: &mut Batches<'_, <M as TrainStep>::Input>,
        grad_accumulation: Option<usize>,
    ) -> bool {
        let mut accumulator = GradientsAccumulator::new();
        let mut accumulated = 0;
        while let Some(batch) = batches.next(|| self.engine.seed_step(self.device)) {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    self.interrupter.fail(error);
                    return false;
                }
            };
            let iteration = self.engine.state().position.step_in_epoch + 1;
            log::info!("Iteration {iteration}");

            let progress = batches.iterator.progress();
            let items = Items::from(&progress);
            let output = self.learner.train_step(batch);
            let has_stepped = match grad_accumulation {
                Some(accumulation) => {
                    accumulator.accumulate(&self.learner.model(), output.grads);
                    accumulated += 1;
                    let is_full = accumulation <= accumulated || items.are_all();
                    if is_full {
                        self.engine.optimizer_step_begins();
                        let grads = accumulator.grads();
                        self.learner.lr_step();
                        self.learner.optimizer_step(grads);
                        accumulated = 0;
                    }
                    is_full
                }
                None => {
                    self.learner.lr_step();
                    self.learner.optimizer_step(output.grads);
                    true
                }
            };

            let learning_rate = self.engine.learning_rate(self.learner, has_stepped);
            let item =
                TrainingItem::new(output.item, progress, Some(iteration), Some(learning_rate));
            self.interrupter.fail_on_error(
                self.processor
                    .process_train(LearnerEvent::ProcessedItem(item)),
            );
            self.engine.step_done(self.learner, items, has_stepped);

            if self.interrupter.should_stop() {
                return false;
            }
        }
        true
    }

    pub(super) fn validate(&mut self, loader: &ValidLoader<M>, total_items: usize) {
        self.interrupter.fail_on_error(
            self.processor
                .process_valid(burn_api::split_begins(self.number, total_items)),
        );
        log::info!("Executing validation step for epoch {}", self.number);
        self.engine.seed_validation(self.device);
        self.validate_batches(loader);
        self.interrupter.fail_on_error(
            self.processor
                .process_valid(burn_api::split_ends(self.number)),
        );
    }

    fn validate_batches(&mut self, loader: &ValidLoader<M>) {
        let model = self.learner.model().valid();
        let mut iterator = loader.iter();
        let mut iteration = 0;
        while let Some(batch) = iterator.next() {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    self.interrupter.fail(error);
                    return;
                }
            };
            let progress = iterator.progress();
            iteration += 1;

            let output = InferenceStep::step(&model, batch);
            let item = TrainingItem::new(output, progress, Some(iteration), None);
            self.interrupter.fail_on_error(
                self.processor
                    .process_valid(LearnerEvent::ProcessedItem(item)),
            );
            if self.interrupter.should_stop() {
                return;
            }
        }
    }
}

/// The batches of one epoch that are still to be trained.
struct Batches<'l, O> {
    /// Fetched already, to see whether there is one.
    first: Option<O>,
    iterator: Box<dyn DataLoaderIterator<O> + 'l>,
}

impl<O> Batches<'_, O> {
    /// The next batch; `seed_step` is called before it is fetched.
    fn next(&mut self, seed_step: impl FnOnce()) -> Option<Result<O, DatasetError>> {
        match self.first.take() {
            Some(first) => Some(Ok(first)),
            None => {
                seed_step();
                self.iterator.next()
            }
        }
    }
}
