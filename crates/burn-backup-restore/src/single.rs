//! The loop on one device: what Burn's own single-device strategy does, in the same order, with
//! the engine told of each step.

mod epoch;

use std::cell::RefCell;

use burn::tensor::Device;
use burn::train::{
    EventProcessorTraining as _, Learner, LearnerEvent, LearnerModel, SupervisedLearningStrategy,
    SupervisedTrainingEventProcessor, TrainLoader, TrainStep, TrainingComponents, TrainingError,
    ValidLoader,
};

use crate::engine::{Engine, Outlook};
use crate::fast_forward::{self, Rest};
use epoch::Epoch;

const LOG: &str = "burn_backup::restore";

/// Trains on one device.
pub(crate) struct SingleDevice<M: LearnerModel> {
    device: Device,
    engine: RefCell<Engine<M>>,
}

impl<M: LearnerModel> SingleDevice<M> {
    pub(crate) fn new(device: Device, engine: Engine<M>) -> Self {
        Self {
            device,
            engine: RefCell::new(engine),
        }
    }

    pub(crate) fn into_engine(self) -> Engine<M> {
        self.engine.into_inner()
    }
}

impl<M: LearnerModel> SupervisedLearningStrategy<M> for SingleDevice<M> {
    fn fit(
        &self,
        components: TrainingComponents<M>,
        mut learner: Learner<M>,
        train: TrainLoader<M>,
        valid: ValidLoader<M>,
        starting_epoch: usize,
    ) -> (M, SupervisedTrainingEventProcessor<M>) {
        let train = train.to_device(&self.device);
        let train_items = train.num_items();
        let valid = valid.to_device(&self.device.clone().inner());
        let valid_items = valid.num_items();
        // This initialises the parameters that are still lazy, too.
        learner.fork(&self.device);

        let mut engine = self.engine.borrow_mut();
        let interrupter = components.interrupter;
        let mut processor = components.event_processor;
        let mut checkpointer = components.checkpointer;
        let mut early_stopping = components.early_stopping;

        match engine.outlook(components.num_epochs) {
            Outlook::Unfinished => {}
            Outlook::Complete => {
                engine.finished(&learner);
                return (learner.model(), processor);
            }
            Outlook::Beyond => {
                log::warn!(
                    target: LOG,
                    "the backup is of {}, and the training is to have {} epochs: the model is \
                     returned as it is, and the backup stays",
                    engine.state().position, components.num_epochs,
                );
                engine.stopped(&learner);
                return (learner.model(), processor);
            }
        }
        let mut rest = match take_up(&engine, &train, &valid, &self.device) {
            Ok(rest) => rest,
            Err(error) => {
                engine.refused(error);
                return (learner.model(), processor);
            }
        };

        let mut has_finished = true;
        for number in starting_epoch..=components.num_epochs {
            let mut epoch = Epoch {
                learner: &mut learner,
                engine: &mut engine,
                processor: &mut processor,
                interrupter: &interrupter,
                device: &self.device,
                number,
            };
            let rest = std::mem::replace(&mut rest, Rest::WholeEpoch);
            epoch.train(&train, rest, train_items, components.grad_accumulation);
            if interrupter.should_stop() {
                if let Some(interruption) = interrupter.interruption() {
                    let reason = interruption.reason.as_deref().unwrap_or("reason unknown");
                    log::info!("Training interrupted: {reason}");
                }
                has_finished = false;
                break;
            }

            epoch.validate(&valid, valid_items);
            interrupter.fail_on_error(processor.process_train(LearnerEvent::EndEpoch(number)));
            if checkpointer.is_some() || early_stopping.is_some() {
                interrupter.fail_on_error(processor.flush());
            }
            if interrupter.should_stop() {
                has_finished = false;
                break;
            }

            if let Some(checkpointer) = &mut checkpointer {
                checkpointer.checkpoint(&learner, number, &components.event_store);
            }
            let stops_early = early_stopping
                .as_mut()
                .is_some_and(|strategy| strategy.should_stop(number, &components.event_store));
            engine.epoch_done(&learner, stops_early);
            if stops_early {
                break;
            }
        }

        if has_finished {
            engine.finished(&learner);
        } else {
            engine.stopped(&learner);
        }
        (learner.model(), processor)
    }
}

/// Brings both loaders to where a restored training was.
fn take_up<'l, M: LearnerModel>(
    engine: &Engine<M>,
    train: &'l TrainLoader<M>,
    valid: &ValidLoader<M>,
    device: &Device,
) -> Result<Rest<'l, <M as TrainStep>::Input>, TrainingError> {
    if !engine.is_restored() {
        return Ok(Rest::WholeEpoch);
    }
    fast_forward::valid_loader(valid, engine.state());
    fast_forward::train_loader(train, engine.state(), engine.backup_dir(), || {
        engine.seed_step(device);
    })
}
