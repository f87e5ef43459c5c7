//! Reduces the workers' gradients.

use crate::execution::Reduction;
use burn::optim::GradientsParams;
use burn::tensor::Device;
use burn::train::{Learner, LearnerModel};

use super::Abandoned;

/// Reduces the gradients of all workers.
pub(super) enum Reducer {
    InBackward,
    #[cfg(feature = "testing")]
    OnHost(on_host::Mean),
}

impl Reducer {
    pub(super) fn new(reduction: Reduction, workers: usize) -> Self {
        #[cfg(not(feature = "testing"))]
        let _ = workers;
        match reduction {
            Reduction::InBackward => Self::InBackward,
            #[cfg(feature = "testing")]
            Reduction::OnHost => Self::OnHost(on_host::Mean::of(workers)),
        }
    }

    /// Prepares the learner, once it is on its device.
    pub(super) fn prepare<M: LearnerModel>(&self, learner: &mut Learner<M>) {
        match self {
            Self::InBackward => learner.grad_sharded(),
            #[cfg(feature = "testing")]
            Self::OnHost(_) => {}
        }
    }

    /// Reports that a worker is gone. Burn's own reduction waits for it forever.
    pub(super) fn leave(&self) {
        match self {
            Self::InBackward => {}
            #[cfg(feature = "testing")]
            Self::OnHost(mean) => mean.leave(),
        }
    }

    /// The reduced gradients of all devices. `index` is the device that has computed these.
    pub(super) fn reduce<M: LearnerModel>(
        &self,
        index: usize,
        device: &Device,
        model: &M,
        gradients: GradientsParams,
    ) -> Result<GradientsParams, Abandoned> {
        #[cfg(not(feature = "testing"))]
        let _ = (index, device, model);
        match self {
            Self::InBackward => Ok(gradients),
            #[cfg(feature = "testing")]
            Self::OnHost(mean) => mean.of_all(index, device, model, gradients),
        }
    }
}

#[cfg(feature = "testing")]
mod on_host {
    use std::sync::{Mutex, PoisonError};

    use burn::module::{ModuleVisitor, Param};
    use burn::optim::GradientsParams;
    use burn::tensor::{Device, Tensor};
    use burn::train::LearnerModel;

    use super::Abandoned;
    use crate::supervised::loops::ddp::agreement::{Agreement, Vote};

    /// The mean over the workers, summed in their order.
    pub(in crate::supervised::loops::ddp) struct Mean {
        deposits: Mutex<Vec<Option<GradientsParams>>>,
        barrier: Agreement,
    }

    impl Mean {
        pub(in crate::supervised::loops::ddp) fn of(workers: usize) -> Self {
            Self {
                deposits: Mutex::new((0..workers).map(|_| None).collect()),
                barrier: Agreement::of(workers),
            }
        }

        pub(in crate::supervised::loops::ddp) fn of_all<M: LearnerModel>(
            &self,
            index: usize,
            device: &Device,
            model: &M,
            gradients: GradientsParams,
        ) -> Result<GradientsParams, Abandoned> {
            let deposits = || self.deposits.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(slot) = deposits().get_mut(index) {
                *slot = Some(gradients);
            }
            self.wait()?;
            let mean = {
                let deposits = deposits();
                let mut sum = Sum {
                    deposits: &deposits,
                    device: device.clone().inner(),
                    mean: GradientsParams::new(),
                };
                model.visit(&mut sum);
                sum.mean
            };
            self.wait()?;
            Ok(mean)
        }

        pub(in crate::supervised::loops::ddp) fn leave(&self) {
            self.barrier.leave();
        }

        fn wait(&self) -> Result<(), Abandoned> {
            match self.barrier.agree(Vote::Train) {
                Vote::Leave => Err(Abandoned),
                _ => Ok(()),
            }
        }
    }

    struct Sum<'a> {
        deposits: &'a [Option<GradientsParams>],
        device: Device,
        mean: GradientsParams,
    }

    impl ModuleVisitor for Sum<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let gradients = self.deposits.iter().flatten();
            let gradients = gradients.filter_map(|deposit| deposit.get::<D>(param.id));
            let gradients = gradients.map(|gradient| gradient.to_device(&self.device));
            if let Some(sum) = gradients.reduce(|sum, gradient| sum + gradient) {
                let mean = sum / self.deposits.len() as f32;
                self.mean.register(param.id, mean);
            }
        }
    }
}
