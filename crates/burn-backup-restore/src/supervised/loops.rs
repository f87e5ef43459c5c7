//! The training loops. They do what Burn's own strategies do, in the same order, and report each step to the engine.
//!
//! A round is one batch for each device. [`rounds`] trains epochs of rounds, and [`single`] and [`multi`] define how
//! the devices compute a round. Under DDP, in [`ddp`], each device has its own loop. [`training`] has the steps
//! before and after the batches.

mod ddp;
mod gradients;
mod multi;
mod rounds;
mod single;
mod training;
mod turns;

use std::cell::RefCell;

use burn::train::{
    Learner, LearnerModel, SupervisedLearningStrategy, SupervisedTrainingEventProcessor,
    TrainLoader, TrainingComponents, ValidLoader,
};

use crate::burn_api;
use crate::execution::Execution;
use crate::metrics::QueryRecorder;
use crate::supervised::engine::Engine;
use crate::threads::Threads;
use training::Training;

/// The loop that Burn calls.
pub(crate) struct Loop<M: LearnerModel> {
    execution: Execution,
    threads: Threads,
    engine: RefCell<Option<Engine<M>>>,
}

impl<M: LearnerModel> Loop<M> {
    pub(crate) fn new(execution: Execution, engine: Engine<M>, threads: Threads) -> Self {
        Self {
            execution,
            threads,
            engine: RefCell::new(Some(engine)),
        }
    }

    /// The engine, once the loop is over.
    pub(crate) fn into_engine(self) -> Option<Engine<M>> {
        self.engine.into_inner()
    }
}

impl<M: LearnerModel> Loop<M> {
    /// The training loader of each device.
    fn loaders(&self, train: &TrainLoader<M>) -> Vec<TrainLoader<M>> {
        match self.execution.devices() {
            [only] => vec![train.to_device(only)],
            several => burn_api::split(train.clone(), several),
        }
    }

    /// Trains until the end, a stop, or a divergence.
    fn run(&self, mut training: Training<M>, loaders: Vec<TrainLoader<M>>) -> Training<M> {
        match &self.execution {
            Execution::Single(device) => {
                let mut devices = single::SingleDevice::new(device.clone());
                rounds::train(&mut training, &mut devices, &loaders);
                training
            }
            Execution::Multi(devices, optim) => {
                match multi::MultiDevice::start(devices.clone(), *optim, &self.threads) {
                    Ok(mut devices) => rounds::train(&mut training, &mut devices, &loaders),
                    Err(error) => training.fail_to_start(error),
                }
                training
            }
            Execution::Ddp(devices, reduction) => {
                ddp::train(training, devices, reduction, loaders, &self.threads)
            }
        }
    }
}

impl<M: LearnerModel> SupervisedLearningStrategy<M> for Loop<M> {
    fn fit(
        &self,
        components: TrainingComponents<M>,
        learner: Learner<M>,
        train: TrainLoader<M>,
        valid: ValidLoader<M>,
        starting_epoch: usize,
    ) -> (M, SupervisedTrainingEventProcessor<M>) {
        let main = self.execution.devices().first().cloned();
        let (Some(engine), Some(main)) = (self.engine.take(), main) else {
            return (learner.model(), components.event_processor);
        };
        let train_items = train.num_items();
        // In Burn's order: both calls draw from the generator of their loader, and the two loaders may share one.
        let mut loaders = self.loaders(&train);
        let valid_again = valid.clone();
        let valid = valid.to_device(&main.clone().inner());
        let keeps_by = engine.metrics_to_keep_by();
        let decides = components.early_stopping.is_some()
            || components.checkpointer.is_some()
            || !keeps_by.is_empty();
        // The strategy as the program set it: after a rollback it must decide again from the start.
        let early_stopping = components.early_stopping.clone();
        let history = engine.metric_history().clone();
        let loggers = components.event_store.clone();
        let deciding_store = || match decides {
            true => {
                burn_api::event_store(QueryRecorder::new(history.clone(), loggers.clone()), &main)
            }
            false => None,
        };
        let mut training = Training {
            learner,
            engine,
            components,
            main: main.clone(),
            train_items,
            valid,
            deciding_store: deciding_store(),
            keeps_by,
            starting_epoch,
            is_in_split: false,
            has_told_item: false,
            leader_items: None,
            is_over: false,
        };
        training.catch_up();
        loop {
            training = self.run(training, loaders);
            if !training.rolls_back() {
                break;
            }
            // New loaders begin with the first epoch, as in a new process.
            loaders = self.loaders(&train);
            training.valid = valid_again.to_device(&main.clone().inner());
            training.components.early_stopping = early_stopping.clone();
            training.deciding_store = deciding_store();
            training.catch_up();
        }
        let Training {
            learner,
            engine,
            components,
            ..
        } = training;
        self.engine.replace(Some(engine));
        (learner.model(), components.event_processor)
    }
}
