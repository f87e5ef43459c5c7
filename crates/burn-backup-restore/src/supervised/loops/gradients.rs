//! Accumulates gradients for the optimizer.

use burn::optim::{GradientsAccumulator, GradientsParams, MultiGradientsParams};
use burn::tensor::Device;
use burn::train::{Learner, LearnerModel};

/// The gradients since the last optimizer step.
pub(super) enum Gradients<M: LearnerModel> {
    /// The gradients of one batch, used directly.
    OfOneBatch(Option<GradientsParams>),
    /// Summed, either in place or on the device that optimizes.
    Summed {
        sum: GradientsAccumulator<M>,
        on: Option<Device>,
    },
    /// Summed on each device, which optimizes its share of the parameters.
    Sharded(Vec<(GradientsAccumulator<M>, Device)>),
}

impl<M: LearnerModel> Gradients<M> {
    /// For a single device, whose optimizer steps after `accumulation` batches.
    pub(super) fn of_one_device(accumulation: Option<usize>) -> Self {
        match accumulation {
            None => Self::OfOneBatch(None),
            Some(_) => Self::Summed {
                sum: GradientsAccumulator::new(),
                on: None,
            },
        }
    }

    /// Adds the gradients of the device with this index.
    pub(super) fn add(&mut self, model: &M, device: usize, gradients: GradientsParams) {
        match self {
            Self::OfOneBatch(slot) => *slot = Some(gradients),
            Self::Summed { sum, on } => {
                let gradients = match on {
                    Some(main) => gradients.to_device(main, model),
                    None => gradients,
                };
                sum.accumulate(model, gradients);
            }
            Self::Sharded(sums) => {
                if let Some((sum, _)) = sums.get_mut(device) {
                    sum.accumulate(model, gradients);
                }
            }
        }
    }

    /// Steps the scheduler and the optimizer, and starts a new sum.
    pub(super) fn step(&mut self, learner: &mut Learner<M>) {
        learner.lr_step();
        match self {
            Self::OfOneBatch(slot) => learner.optimizer_step(slot.take().unwrap_or_default()),
            Self::Summed { sum, .. } => learner.optimizer_step(sum.grads()),
            Self::Sharded(sums) => {
                let mut gradients = MultiGradientsParams::default();
                for (sum, device) in sums {
                    gradients.grads.push((sum.grads(), device.clone()));
                }
                learner.optimizer_step_multi(gradients);
            }
        }
    }
}
