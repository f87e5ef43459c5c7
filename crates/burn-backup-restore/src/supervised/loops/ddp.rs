//! Distributed data parallel. Each device has a worker with its own loop, model and optimizer. The gradients are
//! reduced in each step, so the models stay equal. The model of the first worker is validated and backed up.
//!
//! Each of Burn's own workers checks for a stop by itself, and ends when its own batches are used up. If their
//! decisions differ, the remaining workers wait forever for gradients. Here all workers agree first, at each batch.

mod agreement;
mod reduction;

use std::io;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use burn::tensor::Device;
use burn::train::{
    Interrupter, Learner, LearnerModel, TrainLoader, TrainStep, TrainingError, TrainingItem,
};

use super::gradients::Gradients;
use super::rounds::{force_draws, seed};
use super::training::{Next, Training};
use super::turns::Turns;
use crate::burn_api;
use crate::change::Change;
use crate::data_loader;
use crate::execution::Reduction;
use crate::panics::panic_message;
use crate::resume::{self, Batches, Rest, Resumption, WholeEpoch};
use crate::seed::{RunSeed, StepSeeds};
use crate::threads::Threads;
use agreement::{Agreement, Vote};
use reduction::Reducer;

const LOG: &str = "burn_backup::restore";

/// How long to wait for the other workers when one is gone. Workers inside a gradient reduction never return, because
/// they wait for the missing one.
const ABANDON_TIMEOUT: Duration = Duration::from_secs(5);

/// Trains until the end, a stop, or the failure of a worker.
pub(super) fn train<M: LearnerModel>(
    mut training: Training<M>,
    devices: &[Device],
    reduction: &Reduction,
    loaders: Vec<TrainLoader<M>>,
    threads: &Threads,
) -> Training<M> {
    // This also initialises lazy parameters, once for all workers.
    training.learner.fork(&training.main);
    if !training.has_work() {
        return training;
    }
    let resumption = match training.engine.progress.is_restored() {
        false => None,
        true => match training.engine.progress.resumption(training.train_items) {
            Ok(resumption) => {
                resume::valid_loader(&training.valid, training.engine.progress.state());
                Some(resumption)
            }
            Err(error) => {
                training.engine.refused(error);
                return training;
            }
        },
    };

    let (outbox, ends) = channel();
    let starts: io::Result<Vec<_>> = (0..devices.len())
        .map(|index| {
            let (start, gate) = channel::<Worker<M>>();
            let outbox = outbox.clone();
            threads.start(format!("device-{index}"), move || {
                let Ok(worker) = gate.recv() else {
                    return;
                };
                worker.work();
                // The receiver is gone only after a failure.
                let _ = outbox.send(());
            })?;
            Ok(start)
        })
        .collect();
    // Check this before any worker starts, because a worker would wait forever for a missing one.
    let starts = match starts {
        Ok(starts) => starts,
        Err(error) => {
            training.fail_to_start(error);
            return training;
        }
    };

    let template = training.learner.clone();
    let plan = Plan {
        epochs: training.epochs(),
        accumulation: training.components.grad_accumulation,
        workers: devices.len(),
        seeds: training.engine.progress.step_seeds(),
        run_seed: training.engine.progress.run_seeds(),
        interrupter: training.components.interrupter.clone(),
        resumption,
    };
    let shared = Arc::new(Shared {
        training: Mutex::new(Some(training)),
        agreement: Agreement::of(devices.len()),
        turns: Turns::default(),
        reducer: Reducer::new(*reduction, devices.len()),
        epoch_restart: Mutex::default(),
    });
    let workers = devices.iter().zip(loaders).zip(starts);
    for (index, ((device, loader), start)) in workers.enumerate() {
        let worker = Worker {
            index,
            device: device.clone(),
            loader,
            // The first worker's learner is in the training, where it is backed up.
            own: (index > 0).then(|| template.clone()),
            shared: shared.clone(),
            seeds: plan.seeds,
            plan: plan.clone(),
            turns_taken: 0,
        };
        // Each thread waits for its worker, so this does not fail.
        let _ = start.send(worker);
    }
    drop((template, outbox));
    wait(&ends, devices.len(), &shared.agreement);

    #[expect(clippy::expect_used, reason = "only this line takes it")]
    let mut training = shared.training().take().expect("the training is there");
    if !training.is_over {
        training.ends(false);
    }
    training
}

/// Waits until all workers have ended. After a failure of one, waits only for a limited time.
fn wait(ends: &Receiver<()>, workers: usize, agreement: &Agreement) {
    for ended in 0..workers {
        let end = match agreement.is_broken() {
            false => ends.recv().map_err(|_| RecvTimeoutError::Disconnected),
            true => ends.recv_timeout(ABANDON_TIMEOUT),
        };
        if end.is_err() {
            log::error!(
                target: LOG,
                "{} of {workers} workers hang in a step, because another one failed in it; the training ends without \
                 waiting for them, and the last backup stays",
                workers - ended,
            );
            return;
        }
    }
}

/// The settings that all workers share.
#[derive(Clone)]
struct Plan {
    epochs: RangeInclusive<usize>,
    accumulation: Option<usize>,
    workers: usize,
    seeds: Option<StepSeeds>,
    run_seed: RunSeed,
    interrupter: Interrupter,
    /// Where the training resumes, if it was restored.
    resumption: Option<Resumption>,
}

/// The state that all workers share.
struct Shared<M: LearnerModel> {
    /// Taken once all workers have ended, or after the wait has timed out.
    training: Mutex<Option<Training<M>>>,
    agreement: Agreement,
    turns: Turns,
    reducer: Reducer,
    /// The allowed change that restarts the epoch in progress, if there is one.
    epoch_restart: Mutex<Option<Change>>,
}

impl<M: LearnerModel> Shared<M> {
    /// A poisoned lock is still used: after a panic the training ends without another backup.
    fn training(&self) -> MutexGuard<'_, Option<Training<M>>> {
        self.training.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn epoch_restart(&self) -> MutexGuard<'_, Option<Change>> {
        self.epoch_restart
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The main thread has stopped waiting, or a worker is gone.
#[derive(Debug)]
struct Abandoned;

struct Worker<M: LearnerModel> {
    index: usize,
    device: Device,
    loader: TrainLoader<M>,
    /// The learner of this worker; `None` for the first worker.
    own: Option<Learner<M>>,
    shared: Arc<Shared<M>>,
    plan: Plan,
    seeds: Option<StepSeeds>,
    turns_taken: u64,
}

impl<M: LearnerModel> Worker<M> {
    fn work(mut self) {
        let (shared, interrupter) = (self.shared.clone(), self.plan.interrupter.clone());
        let index = self.index;
        let worked = catch_unwind(AssertUnwindSafe(|| self.train()));
        if let Err(panic) = worked {
            interrupter.fail(burn_api::device_failed(
                index,
                panic_message(panic.as_ref()),
            ));
            shared.agreement.leave();
            shared.turns.abandon();
            shared.reducer.leave();
        }
    }

    /// Trains until the end, a stop, or the loss of another worker.
    fn train(&mut self) -> Result<(), Abandoned> {
        let (device, shared) = (self.device.clone(), self.shared.clone());
        self.with_learner(|learner| {
            learner.fork(&device);
            shared.reducer.prepare(learner);
        })?;
        let loader = self.loader.clone();
        let Some(mut rest) = self.resume_loaders(&loader) else {
            return self.on_first_worker(|training| training.ends(false));
        };
        for epoch in self.plan.epochs.clone() {
            let rest = std::mem::replace(&mut rest, Rest::WholeEpoch);
            self.train_epoch(epoch, &loader, rest)?;
            let mut vote = Vote::Train;
            // The other workers wait in the vote below.
            self.on_first_worker(|training| {
                vote = match training.close_epoch(epoch) {
                    Next::Epoch => Vote::Train,
                    Next::End => Vote::EndEpoch,
                    Next::Stop => Vote::Leave,
                };
            })?;
            match self.shared.agreement.agree(vote) {
                Vote::Train | Vote::TrainLast => {}
                Vote::EndEpoch => break,
                Vote::Leave => return self.on_first_worker(|training| training.ends(false)),
            }
        }
        self.on_first_worker(|training| training.ends(true))
    }

    /// Brings the loader to the position of the restored training. `None` if this fails for one of the workers.
    fn resume_loaders<'l>(
        &mut self,
        loader: &'l TrainLoader<M>,
    ) -> Option<Rest<'l, <M as TrainStep>::Input>> {
        let Some(resumption) = self.plan.resumption.clone() else {
            return Some(Rest::WholeEpoch);
        };
        let rest = self.in_turn(|worker| {
            let seed = || seed(&worker.device, worker.index, worker.seeds);
            let mut rest = resume::train_loader(loader, &resumption.loader(worker.index))?;
            let ahead = rest.look_ahead(seed);
            force_draws(&worker.device, worker.index, worker.seeds)?;
            ahead.map(|()| rest)
        });
        let (vote, rest) = match rest {
            Ok(Rest::WholeEpoch) => (Vote::Train, Rest::WholeEpoch),
            Ok(Rest::Batches { rest, skipped }) if rest.has_more() => {
                (Vote::Train, Rest::Batches { rest, skipped })
            }
            // If a loader lacks its last batches, they would otherwise pass for trained.
            Ok(Rest::Batches { rest, .. }) => {
                let whole = WholeEpoch {
                    items: rest.items(),
                    first_batch: resumption.first_batch(),
                    loader: burn_api::loader_kind(loader.as_ref()),
                };
                match self.check_whole(whole) {
                    Ok(true) => (Vote::EndEpoch, Rest::Validation),
                    Ok(false) | Err(Abandoned) => (Vote::Leave, Rest::Validation),
                }
            }
            Ok(Rest::Validation) => (Vote::EndEpoch, Rest::Validation),
            // With several loaders, an epoch can't resume with another batch size.
            Ok(Rest::EnteredEpoch { .. }) => {
                *self.shared.epoch_restart() = Some(Change::BatchSize);
                (Vote::Train, Rest::WholeEpoch)
            }
            Ok(Rest::RestartEpoch(change)) => {
                *self.shared.epoch_restart() = Some(change);
                (Vote::Train, Rest::WholeEpoch)
            }
            Err(error) => {
                self.plan.interrupter.fail(error);
                (Vote::Leave, Rest::Validation)
            }
        };
        let agreed = self.shared.agreement.agree(vote);
        let epoch_restart = *self.shared.epoch_restart();
        if let (Some(change), true) = (epoch_restart, agreed != Vote::Leave) {
            let begun =
                self.on_first_worker(|training| training.engine.progress.restarts_epoch(change));
            return begun.ok().map(|()| Rest::WholeEpoch);
        }
        match agreed {
            Vote::Train | Vote::TrainLast => Some(rest),
            Vote::EndEpoch => Some(Rest::Validation),
            Vote::Leave => None,
        }
    }

    /// Trains the `rest` of an epoch. After a stop, the caller detects it.
    fn train_epoch<'l>(
        &mut self,
        epoch: usize,
        loader: &'l TrainLoader<M>,
        rest: Rest<'l, <M as TrainStep>::Input>,
    ) -> Result<(), Abandoned> {
        let (mut batches, trained) = match rest {
            Rest::WholeEpoch | Rest::RestartEpoch(_) => (Batches::of(loader), 0),
            Rest::Batches { rest, skipped } => (rest, skipped),
            Rest::EnteredEpoch { rest, at, .. } => (rest, at.batches),
            Rest::Validation => return self.on_first_worker(Training::has_trained_all),
        };
        let found = data_loader::take_finding();
        self.on_first_worker(|training| training.engine.progress.warn_of_sampler(found, ""))?;
        let is_done = self.train_batches(epoch, &mut batches, trained)?;
        self.on_first_worker(|training| {
            if is_done {
                training.engine.split_done();
            }
            training.split_ends(epoch);
        })
    }

    /// Trains until one of the workers has no batch left, and returns whether that happened.
    fn train_batches(
        &mut self,
        epoch: usize,
        batches: &mut Batches<'_, <M as TrainStep>::Input>,
        mut trained: usize,
    ) -> Result<bool, Abandoned> {
        let accumulation = self.plan.accumulation;
        let mut gradients = Gradients::of_one_device(accumulation);
        let mut accumulated = 0;
        let kind = burn_api::loader_kind(self.loader.as_ref());
        let resumption = self.plan.resumption.as_ref().filter(|_| trained > 0);
        let mut first_batch = resumption.and_then(Resumption::first_batch);
        loop {
            let next = self.in_turn(|worker| {
                let next = batches.next(|| seed(&worker.device, worker.index, worker.seeds));
                let drawn = force_draws(&worker.device, worker.index, worker.seeds);
                next.map(|batch| drawn.and(batch.map_err(TrainingError::from)))
            });
            let (vote, batch) = match next {
                None => {
                    let whole = WholeEpoch {
                        items: batches.items(),
                        first_batch,
                        loader: kind,
                    };
                    match self.check_whole(whole)? {
                        true => (Vote::EndEpoch, None),
                        false => (Vote::Leave, None),
                    }
                }
                Some(Err(error)) => {
                    self.plan.interrupter.fail(error);
                    (Vote::Leave, None)
                }
                Some(Ok(batch)) if batches.items().are_all() => (Vote::TrainLast, Some(batch)),
                Some(Ok(batch)) => (Vote::Train, Some(batch)),
            };
            first_batch.get_or_insert(batches.items().processed);
            self.on_first_worker(Training::check_for_notice)?;
            // A stop after the last batch does not interrupt the epoch.
            let mut is_left = self.plan.interrupter.should_stop();
            self.on_first_worker(|training| is_left |= training.engine.has_diverged())?;
            let vote = match is_left {
                true if vote != Vote::EndEpoch => Vote::Leave,
                _ => vote,
            };
            if vote != Vote::Leave {
                // Before any worker trains: the snapshot taken here shares running states with all workers.
                self.on_first_worker(|training| training.split_begins(epoch))?;
            }
            let agreed = self.shared.agreement.agree(vote);
            let batch = match (agreed, batch) {
                (Vote::Train | Vote::TrainLast, Some(batch)) => batch,
                (Vote::Leave, _) => return Ok(false),
                _ => return Ok(true),
            };

            let output = match self.skips_next()? {
                true => None,
                false => {
                    // A copy, so that the training is not locked while gradients are reduced.
                    let learner = self.with_learner(|learner| learner.clone())?;
                    let output = learner.train_step(batch);
                    let reducer = &self.shared.reducer;
                    let model = learner.model();
                    let grads = reducer.reduce(self.index, &self.device, &model, output.grads)?;
                    gradients.add(&model, 0, grads);
                    accumulated += 1;
                    Some(output.item)
                }
            };
            let is_full = accumulation.unwrap_or(1) <= accumulated;
            let has_stepped = is_full || (agreed == Vote::TrainLast && accumulated > 0);
            if has_stepped {
                self.on_first_worker(|training| training.engine.optimizer_step_begins())?;
                self.with_learner(|learner| gradients.step(learner))?;
                accumulated = 0;
            }

            trained += 1;
            let item = Item {
                output,
                trained,
                has_stepped,
            };
            self.in_turn(|worker| worker.report_batch(item, batches))?;
            let run_seed = &self.plan.run_seed;
            self.seeds = self.seeds.map(|seeds| seeds.next(run_seed));
        }
    }

    /// Whether a rollback skips the next batch. No worker is ahead of this one, because a worker reports its batch
    /// only after all gradients are reduced.
    fn skips_next(&self) -> Result<bool, Abandoned> {
        let training = self.shared.training();
        let training = training.as_ref().ok_or(Abandoned)?;
        Ok(training.skips_next())
    }

    /// Whether this worker's loader has given as many items as it promised.
    fn check_whole(&self, epoch: WholeEpoch) -> Result<bool, Abandoned> {
        let mut training = self.shared.training();
        let training = training.as_mut().ok_or(Abandoned)?;
        let checked = training
            .engine
            .progress
            .check_whole(Some(self.index), epoch);
        Ok(match checked {
            Ok(()) => true,
            Err(error) => {
                self.plan.interrupter.fail(error);
                false
            }
        })
    }

    /// Reports a batch to Burn. The last worker also reports the step to the engine.
    fn report_batch(
        &mut self,
        item: Item<<M as TrainStep>::Output>,
        batches: &Batches<'_, <M as TrainStep>::Input>,
    ) -> Result<(), Abandoned> {
        let mut training = self.shared.training();
        let training = training.as_mut().ok_or(Abandoned)?;
        let learner = self.own.as_ref().unwrap_or(&training.learner);
        let learning_rate = training.engine.learning_rate(learner, item.has_stepped);
        let workers = self.plan.workers;
        if let Some(output) = item.output {
            training.send_item(TrainingItem::new(
                output,
                burn_api::times(batches.progress(), workers),
                Some(item.trained * workers),
                Some(learning_rate),
            ));
        }
        if self.own.is_none() {
            training.leader_items = Some(batches.items());
        }
        // The last worker reports the step, because a backup must contain everything that was logged for it. The
        // first worker waits for that.
        if self.index + 1 == workers
            && let Some(items) = training.leader_items.take()
        {
            let processor = &mut training.components.event_processor;
            training
                .engine
                .step_done(&training.learner, processor, &[items], item.has_stepped);
        }
        Ok(())
    }

    /// Runs `work` on the training if this is the first worker.
    fn on_first_worker(&self, work: impl FnOnce(&mut Training<M>)) -> Result<(), Abandoned> {
        if self.own.is_none() {
            let mut training = self.shared.training();
            work(training.as_mut().ok_or(Abandoned)?);
        }
        Ok(())
    }

    fn with_learner<T>(&mut self, work: impl FnOnce(&mut Learner<M>) -> T) -> Result<T, Abandoned> {
        match &mut self.own {
            Some(learner) => Ok(work(learner)),
            None => {
                let mut training = self.shared.training();
                Ok(work(&mut training.as_mut().ok_or(Abandoned)?.learner))
            }
        }
    }

    /// Runs `work` after the lower-numbered workers, and before the higher-numbered ones.
    fn in_turn<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let ticket = self.turns_taken * self.plan.workers as u64 + self.index as u64;
        self.turns_taken += 1;
        let shared = self.shared.clone();
        let _turn = shared.turns.wait(ticket);
        work(self)
    }
}

/// A finished batch.
struct Item<O> {
    /// `None` if it was skipped.
    output: Option<O>,
    /// The number of the batch in its epoch, on its device.
    trained: usize,
    has_stepped: bool,
}
