//! A thread per device, which computes gradients.
//!
//! Burn's `MultiDevicesTrainStep` hands results over in the order in which the workers come to their
//! end, and keeps to itself which device each is of. Here they stand in the order of the devices, so
//! that sums of gradients and metrics don't depend on who was faster.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use burn::tensor::Device;
use burn::train::{LearnerModel, TrainOutput, TrainStep, TrainingError};

use crate::background::panic_message;
use crate::burn_api;
use crate::loops::rounds::{Computed, have_drawn};
use crate::loops::training::Output;
use crate::loops::turns::Turns;
use crate::seed::StepSeeds;

type Input<M> = <M as TrainStep>::Input;

/// What is said of a device whose thread has ended.
const GONE: &str = "the thread that computes on it is gone";

/// A thread per device. Each ends when this is dropped.
pub(super) struct Workers<M: LearnerModel> {
    jobs: Vec<Sender<Job<M>>>,
    answers: Receiver<Answer<M>>,
    /// Turns that were given out.
    tickets: u64,
}

/// A batch to compute on.
struct Job<M: LearnerModel> {
    model: M,
    batch: Input<M>,
    draws: Option<Draws>,
}

/// How the random numbers of a step come to be the same each time.
#[derive(Clone, Copy)]
struct Draws {
    seeds: StepSeeds,
    ticket: u64,
}

struct Answer<M: LearnerModel> {
    device: usize,
    output: Result<TrainOutput<Output<M>>, String>,
}

impl<M: LearnerModel> Workers<M> {
    pub(super) fn start(devices: &[Device]) -> Self {
        let turns = Arc::new(Turns::default());
        let (outbox, answers) = channel();
        let jobs = devices.iter().enumerate().map(|(index, device)| {
            let (sender, inbox) = channel();
            let worker = Worker {
                index,
                device: device.clone(),
                turns: turns.clone(),
            };
            let outbox = outbox.clone();
            thread::spawn(move || worker.work(&inbox, &outbox));
            sender
        });
        Self {
            jobs: jobs.collect(),
            answers,
            tickets: 0,
        }
    }

    /// Has the device with each index compute on its batch, and waits for all of them.
    pub(super) fn compute(
        &mut self,
        model: &M,
        batches: Vec<(usize, Input<M>)>,
        seeds: Option<StepSeeds>,
    ) -> Result<Vec<Computed<M>>, TrainingError> {
        let mut awaited = BTreeSet::new();
        let mut failures = Vec::new();
        for (index, batch) in batches {
            let draws = seeds.map(|seeds| {
                let ticket = self.tickets;
                self.tickets += 1;
                Draws { seeds, ticket }
            });
            let job = Job {
                model: model.clone(),
                batch,
                draws,
            };
            match self.jobs.get(index).map(|jobs| jobs.send(job)) {
                Some(Ok(())) => {
                    awaited.insert(index);
                }
                _ => failures.push((index, GONE.to_owned())),
            }
        }

        let mut computed = Vec::with_capacity(awaited.len());
        // All of them, also after a failure: one left would be taken for the next round's.
        while !awaited.is_empty() {
            let Ok(Answer { device, output }) = self.answers.recv() else {
                failures.extend(awaited.iter().map(|index| (*index, GONE.to_owned())));
                break;
            };
            awaited.remove(&device);
            match output {
                Ok(output) => computed.push(Computed { device, output }),
                Err(message) => failures.push((device, message)),
            }
        }
        if !failures.is_empty() {
            return Err(burn_api::workers_failed(failures));
        }
        computed.sort_by_key(|computed| computed.device);
        Ok(computed)
    }
}

struct Worker {
    index: usize,
    device: Device,
    turns: Arc<Turns>,
}

impl Worker {
    fn work<M: LearnerModel>(&self, inbox: &Receiver<Job<M>>, outbox: &Sender<Answer<M>>) {
        while let Ok(job) = inbox.recv() {
            let answer = Answer {
                device: self.index,
                output: self.answer(job),
            };
            if outbox.send(answer).is_err() {
                return;
            }
        }
    }

    fn answer<M: LearnerModel>(&self, job: Job<M>) -> Result<TrainOutput<Output<M>>, String> {
        let Job {
            model,
            batch,
            draws,
        } = job;
        let step = || {
            let model = model.fork(&self.device);
            if let Some(draws) = &draws {
                self.device.seed(draws.seeds.step(self.index));
            }
            TrainStep::step(&model, batch)
        };
        let Some(Draws { seeds, ticket }) = draws else {
            return attempt(step);
        };
        // The fork as well: it brings running states to this device, which all workers share.
        let _turn = self.turns.wait(ticket);
        let output = attempt(step)?;
        have_drawn(&self.device, self.index, Some(seeds)).map_err(|error| error.to_string())?;
        Ok(output)
    }
}

/// Does what may panic. A model's own panics end a training as its errors do, as in Burn.
fn attempt<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| panic_message(panic.as_ref()))
}
