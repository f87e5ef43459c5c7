//! What Burn calls: restores before Burn announces the training, and hands over to the loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Device;
use burn::train::{
    EventProcessorTraining as _, ExecutionStrategy, Learner, LearnerEvent, LearnerModel,
    LearningResult, SupervisedLearningStrategy, SupervisedTrainingEventProcessor, TrainLoader,
    TrainingComponents, ValidLoader,
};

use crate::builder::BackupAndRestore;
use crate::engine::{Ending, Engine, Surroundings};
use crate::error::BackupError;
use crate::single::SingleDevice;

const LOG: &str = "burn_backup::restore";

/// The training strategy that [`BackupExt`](crate::BackupExt) registers.
pub(crate) struct BackupStrategy {
    settings: BackupAndRestore,
    is_used: AtomicBool,
}

impl Drop for BackupStrategy {
    fn drop(&mut self) {
        if !self.is_used.load(Ordering::Relaxed) {
            log::error!(
                target: LOG,
                "backup_and_restore({:?}) was never used: the training was not launched, or a \
                 training strategy set after it runs without backups; make it the last line before \
                 launch",
                self.settings.backup_dir,
            );
        }
    }
}

impl BackupStrategy {
    pub(crate) fn new(settings: BackupAndRestore) -> Self {
        Self {
            settings,
            is_used: AtomicBool::new(false),
        }
    }

    /// The device that the training runs on; on the learner's own by default, as in Burn.
    fn device<M: LearnerModel>(&self, learner: &Learner<M>) -> Device {
        let device = match &self.settings.execution {
            Some(ExecutionStrategy::SingleDevice(device)) => Some(device.clone()),
            _ => learner.model().devices().into_iter().next(),
        };
        let device = device.unwrap_or_default();
        if device.is_autodiff() {
            device
        } else {
            device.autodiff()
        }
    }
}

impl<M: LearnerModel> SupervisedLearningStrategy<M> for BackupStrategy {
    fn train(
        &self,
        mut learner: Learner<M>,
        train: TrainLoader<M>,
        valid: ValidLoader<M>,
        mut components: TrainingComponents<M>,
    ) -> LearningResult<M> {
        self.is_used.store(true, Ordering::Relaxed);
        let surroundings = Surroundings {
            interrupter: components.interrupter.clone(),
            event_store: components.event_store.clone(),
            first_epoch: components.checkpoint.unwrap_or(0) + 1,
            grad_accumulation: components.grad_accumulation.unwrap_or(1),
        };
        let device = self.device(&learner);
        let engine = match Engine::open(&self.settings, &mut learner, surroundings) {
            Ok(engine) => engine,
            Err(error) => return refuse(&learner, components, error),
        };

        // Burn announces the epoch after this one as the first.
        components.checkpoint = engine.state().position.epoch.checked_sub(1);
        let single = SingleDevice::new(device, engine);
        let result = single.train(learner, train, valid, components);
        let mut engine = single.into_engine();
        let result = with_ending(result, engine.take_ending());
        engine.conclude(result.error.is_none() && result.interrupted.is_none());
        result
    }

    /// Burn calls [`train`](Self::train), which has the loop's own strategy fit.
    fn fit(
        &self,
        components: TrainingComponents<M>,
        learner: Learner<M>,
        _train: TrainLoader<M>,
        _valid: ValidLoader<M>,
        _starting_epoch: usize,
    ) -> (M, SupervisedTrainingEventProcessor<M>) {
        (learner.model(), components.event_processor)
    }
}

/// The result with what the loop ended on. Burn reads it from the interrupter after the renderer
/// has been told, and the one for terminals resets the interrupter then.
fn with_ending<M>(mut result: LearningResult<M>, ending: Ending) -> LearningResult<M> {
    result.error = result.error.or(ending.error);
    result.interrupted = match result.error {
        Some(_) => None,
        None => result.interrupted.or(ending.interrupted),
    };
    result
}

/// Ends the training before it starts.
fn refuse<M: LearnerModel>(
    learner: &Learner<M>,
    components: TrainingComponents<M>,
    error: BackupError,
) -> LearningResult<M> {
    let interrupter = components.interrupter;
    let mut processor = components.event_processor;
    interrupter.fail(BackupError::into_training_error(Arc::new(error)));
    let ending = Ending {
        interrupted: None,
        error: interrupter.error(),
    };
    // The terminal's renderer gives the screen back at the training's end.
    interrupter.fail_on_error(processor.process_train(LearnerEvent::End(None)));
    interrupter.fail_on_error(processor.flush());
    let result = LearningResult {
        model: learner.model().valid(),
        renderer: processor.renderer(),
        interrupted: None,
        error: None,
    };
    with_ending(result, ending)
}
