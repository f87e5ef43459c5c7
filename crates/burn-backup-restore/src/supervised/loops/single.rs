//! A single device, which computes on the thread of the training.

use burn::tensor::Device;
use burn::train::{Learner, LearnerModel, TrainStep, TrainingError};

use super::gradients::Gradients;
use super::rounds::{Computed, Devices, force_draws, seed};
use crate::resume::Batches;
use crate::seed::StepSeeds;

/// The device of a single-device training.
pub(super) struct SingleDevice {
    device: Device,
}

impl SingleDevice {
    pub(super) fn new(device: Device) -> Self {
        Self { device }
    }
}

impl<M: LearnerModel> Devices<M> for SingleDevice {
    fn devices(&self) -> &[Device] {
        std::slice::from_ref(&self.device)
    }

    fn gradients(&self, accumulation: Option<usize>) -> Gradients<M> {
        Gradients::of_one_device(accumulation)
    }

    fn round(
        &mut self,
        learner: &Learner<M>,
        batches: &mut [Batches<'_, <M as TrainStep>::Input>],
        seeds: Option<StepSeeds>,
    ) -> Result<Vec<Computed<M>>, TrainingError> {
        let next = batches.first_mut();
        let next = next.and_then(|batches| batches.next(|| seed(&self.device, 0, seeds)));
        let Some(batch) = next else {
            return Ok(Vec::new());
        };
        let batch = batch?;
        force_draws(&self.device, 0, seeds)?;
        let output = learner.train_step(batch);
        Ok(vec![Computed { device: 0, output }])
    }

    fn gather(&self, _learner: &mut Learner<M>) {}
}
