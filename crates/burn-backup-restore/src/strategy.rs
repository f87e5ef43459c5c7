//! What Burn calls: restores before Burn announces the training, and hands over to the loop.

use std::sync::Arc;

use burn::tensor::Device;
use burn::train::{
    EventProcessorTraining as _, ExecutionStrategy, Learner, LearnerEvent, LearnerModel,
    LearningResult, SupervisedLearningStrategy, SupervisedTrainingEventProcessor, TrainLoader,
    TrainingComponents, ValidLoader,
};

use crate::builder::BackupAndRestore;
use crate::engine::{Engine, Surroundings};
use crate::error::BackupError;
use crate::single::SingleDevice;

/// The training strategy that [`BackupExt`](crate::BackupExt) registers.
pub(crate) struct BackupStrategy {
    settings: BackupAndRestore,
}

impl BackupStrategy {
    pub(crate) fn new(settings: BackupAndRestore) -> Self {
        Self { settings }
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
        single.into_engine().conclude(result.error.is_some());
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

/// Ends the training before it starts.
fn refuse<M: LearnerModel>(
    learner: &Learner<M>,
    components: TrainingComponents<M>,
    error: BackupError,
) -> LearningResult<M> {
    let interrupter = components.interrupter;
    let mut processor = components.event_processor;
    interrupter.fail(BackupError::into_training_error(Arc::new(error)));
    // The terminal's renderer gives the screen back at the training's end.
    interrupter.fail_on_error(processor.process_train(LearnerEvent::End(None)));
    interrupter.fail_on_error(processor.flush());
    LearningResult {
        model: learner.model().valid(),
        renderer: processor.renderer(),
        interrupted: interrupter.interruption(),
        error: interrupter.error(),
    }
}
