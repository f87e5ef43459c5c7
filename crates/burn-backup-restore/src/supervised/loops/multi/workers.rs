//! A thread for each device, which computes gradients.
//!
//! Burn's `MultiDevicesTrainStep` returns results in the order in which the workers finish, without the device of
//! each result. Here results are in the order of the devices, so sums of gradients and metrics don't depend on speed.

use std::collections::BTreeSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use burn::tensor::Device;
use burn::train::{LearnerModel, TrainOutput, TrainStep, TrainingError};

use crate::burn_api;
use crate::panics::panic_message;
use crate::seed::StepSeeds;
use crate::supervised::loops::rounds::Computed;
use crate::supervised::loops::training::Output;
use crate::supervised::loops::turns::Turns;
use crate::threads::Threads;

type Input<M> = <M as TrainStep>::Input;

/// The error of a device whose thread has ended.
const THREAD_ENDED: &str = "the thread of this device has ended";

/// A thread for each device. The threads end when this is dropped.
pub(super) struct Workers<M: LearnerModel> {
    jobs: Vec<Sender<Job<M>>>,
    answers: Receiver<Answer<M>>,
    /// The number of turns given out.
    tickets: u64,
}

/// A batch to compute on.
struct Job<M: LearnerModel> {
    model: M,
    batch: Input<M>,
    draws: Option<Draws>,
}

/// What makes the random numbers of a step reproducible.
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
    /// Starts the threads. They call `force_draws` to force the pending draws of a step.
    ///
    /// # Errors
    ///
    /// If the thread of one of the devices can't be started. The threads that were started end.
    pub(super) fn start(
        devices: &[Device],
        threads: &Threads,
        force_draws: ForceDraws,
    ) -> io::Result<Self> {
        let turns = Arc::new(Turns::default());
        let (outbox, answers) = channel();
        let jobs = devices.iter().enumerate().map(|(index, device)| {
            let (sender, inbox) = channel();
            let worker = Worker {
                index,
                device: device.clone(),
                turns: turns.clone(),
                force_draws,
            };
            let outbox = outbox.clone();
            threads.start(format!("device-{index}"), move || {
                worker.work(&inbox, &outbox);
            })?;
            Ok(sender)
        });
        Ok(Self {
            jobs: jobs.collect::<io::Result<_>>()?,
            answers,
            tickets: 0,
        })
    }

    /// Computes each batch on the device with its index, and waits for all results.
    pub(super) fn compute(
        &mut self,
        model: &M,
        batches: Vec<(usize, Input<M>)>,
        seeds: Option<StepSeeds>,
    ) -> Result<Vec<Computed<M>>, TrainingError> {
        let mut awaited = BTreeSet::new();
        let mut failures = Vec::new();
        for (index, batch) in batches {
            let ticket = self.tickets;
            let draws = seeds.map(|seeds| Draws { seeds, ticket });
            let job = Job {
                model: model.clone(),
                batch,
                draws,
            };
            match self.jobs.get(index).map(|jobs| jobs.send(job)) {
                Some(Ok(())) => {
                    // Only after a successful send: a turn that no thread takes would never end.
                    self.tickets += u64::from(draws.is_some());
                    awaited.insert(index);
                }
                _ => failures.push((index, THREAD_ENDED.to_owned())),
            }
        }

        let mut computed = Vec::with_capacity(awaited.len());
        // Receive all answers, also after a failure: a leftover answer would be taken for the next round's.
        while !awaited.is_empty() {
            let Ok(Answer { device, output }) = self.answers.recv() else {
                failures.extend(
                    awaited
                        .iter()
                        .map(|index| (*index, THREAD_ENDED.to_owned())),
                );
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

/// Forces the pending draws of a device: `force_draws` of [`rounds`](crate::supervised::loops::rounds).
type ForceDraws = fn(&Device, usize, Option<StepSeeds>) -> Result<(), TrainingError>;

struct Worker {
    index: usize,
    device: Device,
    turns: Arc<Turns>,
    force_draws: ForceDraws,
}

impl Worker {
    fn work<M: LearnerModel>(&self, inbox: &Receiver<Job<M>>, outbox: &Sender<Answer<M>>) {
        while let Ok(job) = inbox.recv() {
            // Catch every panic: without an answer, `compute` would wait forever.
            let output = attempt(|| self.answer(job)).flatten();
            let answer = Answer {
                device: self.index,
                output,
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
        let Some(Draws { seeds, ticket }) = draws else {
            return Ok(TrainStep::step(&model.fork(&self.device), batch));
        };
        // The fork also needs the turn: it moves running states, which all workers share, to this device.
        let _turn = self.turns.wait(ticket);
        let model = model.fork(&self.device);
        self.device.seed(seeds.step(self.index));
        let output = TrainStep::step(&model, batch);
        let drawn = (self.force_draws)(&self.device, self.index, Some(seeds));
        drawn.map_err(|error| error.to_string())?;
        Ok(output)
    }
}

/// Runs `work` and turns a panic into an error. As in Burn, a panic in the model ends the training.
fn attempt<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| panic_message(panic.as_ref()))
}

#[cfg(test)]
mod tests {
    use burn::module::{Module, Param};
    use burn::optim::GradientsParams;
    use burn::tensor::Tensor;
    use burn::train::InferenceStep;

    use super::*;

    /// A model that computes nothing.
    #[derive(Module, Debug)]
    struct Idle {
        nothing: Param<Tensor<1>>,
    }

    impl TrainStep for Idle {
        type Input = ();
        type Output = ();

        fn step(&self, _item: ()) -> TrainOutput<()> {
            TrainOutput {
                grads: GradientsParams::new(),
                item: (),
            }
        }
    }

    impl InferenceStep for Idle {
        type Input = ();
        type Output = ();

        fn step(&self, _item: ()) {}
    }

    const SEEDS: Option<StepSeeds> = Some(StepSeeds {
        run_seed: 1,
        global_step: 0,
        are_split: true,
    });

    fn device() -> Device {
        Device::flex().autodiff()
    }

    fn model() -> Idle {
        Idle {
            nothing: Param::from_tensor(Tensor::zeros([1], &device())),
        }
    }

    fn workers(force_draws: ForceDraws) -> Workers<Idle> {
        let devices = vec![device(); 3];
        Workers::start(&devices, &Threads::default(), force_draws).unwrap()
    }

    /// The devices that have computed, or the failed devices with their errors.
    fn computed(
        workers: &mut Workers<Idle>,
        devices: &[usize],
    ) -> Result<Vec<usize>, Vec<(usize, String)>> {
        let batches = devices.iter().map(|index| (*index, ())).collect();
        match workers.compute(&model(), batches, SEEDS) {
            Ok(computed) => Ok(computed.into_iter().map(|of| of.device).collect()),
            Err(TrainingError::Workers(failures)) => {
                let failures = failures.into_iter();
                Err(failures.map(|of| (of.device_id, of.message)).collect())
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_panic_in_a_call_to_a_device_fails_the_step_and_leaves_nobody_waiting() {
        let mut workers = workers(|_, index, _| {
            assert!(index != 1, "this panic is part of the test");
            Ok(())
        });
        for _ in 0..2 {
            let failures = computed(&mut workers, &[0, 1, 2]).unwrap_err();
            assert_eq!(failures.len(), 1, "{failures:?}");
            assert_eq!(failures[0].0, 1);
            assert!(failures[0].1.contains("part of the test"), "{failures:?}");
        }
        assert_eq!(computed(&mut workers, &[0, 2]), Ok(vec![0, 2]));
    }

    #[test]
    fn a_worker_that_cannot_be_reached_takes_no_turn_from_the_others() {
        let mut workers = workers(|_, _, _| Ok(()));
        workers.jobs[0] = channel().0;
        for _ in 0..2 {
            let failures = computed(&mut workers, &[0, 1, 2]).unwrap_err();
            assert_eq!(failures, [(0, THREAD_ENDED.to_owned())]);
        }
        assert_eq!(computed(&mut workers, &[1, 2]), Ok(vec![1, 2]));
    }

    #[test]
    fn if_a_thread_cannot_start_none_is_left() {
        let devices = vec![device(); 3];
        let threads = Threads::limited_to(2);
        let started = Workers::<Idle>::start(&devices, &threads, |_, _, _| Ok(()));
        assert_eq!(started.err().unwrap().kind(), io::ErrorKind::WouldBlock);
    }
}
