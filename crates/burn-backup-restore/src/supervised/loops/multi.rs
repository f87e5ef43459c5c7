//! Several devices. On each, a worker computes its own batch.

mod workers;

use std::io;

use burn::optim::GradientsAccumulator;
use burn::tensor::Device;
use burn::train::{Learner, LearnerModel, MultiDeviceOptim, TrainStep, TrainingError};

use super::gradients::Gradients;
use super::rounds::{Computed, Devices, force_draws, seed};
use crate::parts::running_states;
use crate::resume::Batches;
use crate::save::RunningStates;
use crate::seed::StepSeeds;
use crate::threads::Threads;
use workers::Workers;

/// The devices of a multi-device training.
pub(super) struct MultiDevice<M: LearnerModel> {
    devices: Vec<Device>,
    optim: MultiDeviceOptim,
    workers: Workers<M>,
    /// Set once the parameters are initialised.
    running_states: Option<RunningStates>,
}

impl<M: LearnerModel> MultiDevice<M> {
    /// Starts the workers.
    pub(super) fn start(
        devices: Vec<Device>,
        optim: MultiDeviceOptim,
        threads: &Threads,
    ) -> io::Result<Self> {
        Ok(Self {
            workers: Workers::start(&devices, threads, force_draws)?,
            devices,
            optim,
            running_states: None,
        })
    }

    /// Applies the pending updates of the running states from the workers' last steps: the mean of
    /// all workers. Burn leaves this to the first worker of the next round. The states could then
    /// end up on another worker's device.
    fn settle_running_states(&mut self, model: &M) {
        let states = self.running_states;
        let states = states.unwrap_or_else(|| running_states(model));
        self.running_states = Some(states);
        if states == RunningStates::Possible {
            drop(model.valid());
        }
    }
}

impl<M: LearnerModel> Devices<M> for MultiDevice<M> {
    fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Always summed, as in Burn.
    fn gradients(&self, _accumulation: Option<usize>) -> Gradients<M> {
        match self.optim {
            MultiDeviceOptim::OptimMainDevice => Gradients::Summed {
                sum: GradientsAccumulator::new(),
                on: self.devices.first().cloned(),
            },
            MultiDeviceOptim::OptimSharded => {
                let devices = self.devices.iter().cloned();
                let sums = devices.map(|device| (GradientsAccumulator::new(), device));
                Gradients::Sharded(sums.collect())
            }
        }
    }

    fn round(
        &mut self,
        learner: &Learner<M>,
        batches: &mut [Batches<'_, <M as TrainStep>::Input>],
        seeds: Option<StepSeeds>,
    ) -> Result<Vec<Computed<M>>, TrainingError> {
        let mut fetched = Vec::with_capacity(batches.len());
        for (index, (batches, device)) in batches.iter_mut().zip(&self.devices).enumerate() {
            if let Some(batch) = batches.next(|| seed(device, index, seeds)) {
                fetched.push((index, batch?));
                force_draws(device, index, seeds)?;
            }
        }
        // Only after all batches are fetched: the batchers' draws must not mix with the workers'
        // draws.
        let model = learner.model();
        if seeds.is_some() {
            self.settle_running_states(&model);
        }
        self.workers.compute(&model, fetched, seeds)
    }

    /// Sharded optimizer steps leave each parameter on the device that optimizes it.
    fn gather(&self, learner: &mut Learner<M>) {
        if let (MultiDeviceOptim::OptimSharded, Some(main)) = (self.optim, self.devices.first()) {
            learner.fork(main);
        }
    }
}
