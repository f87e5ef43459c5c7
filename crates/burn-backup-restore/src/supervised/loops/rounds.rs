//! Trains epochs of rounds. In each round every device computes the gradients of one batch, and then the optimizer
//! steps.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::data::dataloader::Progress;
use burn::tensor::Device;
use burn::train::{
    Learner, LearnerModel, TrainLoader, TrainOutput, TrainStep, TrainingError, TrainingItem,
};

use super::gradients::Gradients;
use super::training::{Next, Output, Training};
use crate::burn_api::{self, Items, LoaderKind};
use crate::data_loader;
use crate::panics::panic_message;
use crate::resume::{self, Batches, Rest};
use crate::seed::StepSeeds;
use crate::state::Phase;

/// Another remedy in the warning about Burn's sampler.
const OR_REPLAY: &str = ", or FastForward::Replay and no workers";

/// How the devices of a training compute one round.
pub(super) trait Devices<M: LearnerModel> {
    /// All devices, in the order of their loaders.
    fn devices(&self) -> &[Device];

    /// The accumulator for the gradients of the rounds.
    fn gradients(&self, accumulation: Option<usize>) -> Gradients<M>;

    /// Fetches a batch for each device that has one left, and computes its gradients. The result is in the order of
    /// the devices, and empty if no batch is left.
    fn round(
        &mut self,
        learner: &Learner<M>,
        batches: &mut [Batches<'_, <M as TrainStep>::Input>],
        seeds: Option<StepSeeds>,
    ) -> Result<Vec<Computed<M>>, TrainingError>;

    /// Fetches a batch for each device that has one left, and drops it. Returns the indices of these devices.
    fn skip_round(
        &mut self,
        batches: &mut [Batches<'_, <M as TrainStep>::Input>],
        seeds: Option<StepSeeds>,
    ) -> Result<Vec<usize>, TrainingError> {
        let mut skipped = Vec::with_capacity(batches.len());
        for (index, (batches, device)) in batches.iter_mut().zip(self.devices()).enumerate() {
            if let Some(batch) = batches.next(|| seed(device, index, seeds)) {
                drop(batch?);
                force_draws(device, index, seeds)?;
                skipped.push(index);
            }
        }
        Ok(skipped)
    }

    /// Moves the whole model to the first device, for the validation.
    fn gather(&self, learner: &mut Learner<M>);
}

/// The result of one device.
pub(super) struct Computed<M: LearnerModel> {
    /// The index of the device.
    pub device: usize,
    pub output: TrainOutput<Output<M>>,
}

/// Trains until the end or a stop.
pub(super) fn train<M: LearnerModel>(
    training: &mut Training<M>,
    devices: &mut impl Devices<M>,
    loaders: &[TrainLoader<M>],
) {
    if !devices.devices().iter().any(burn_api::is_remote) {
        return train_epochs(training, devices, loaders);
    }
    // If a remote server is gone, the next call panics.
    let trained = catch_unwind(AssertUnwindSafe(|| {
        train_epochs(training, devices, loaders);
    }));
    if let Err(panic) = trained {
        let error = burn_api::device_failed(0, panic_message(panic.as_ref()));
        training.components.interrupter.fail(error);
        training.ends(false);
    }
}

fn train_epochs<M: LearnerModel>(
    training: &mut Training<M>,
    devices: &mut impl Devices<M>,
    loaders: &[TrainLoader<M>],
) {
    // This also initialises lazy parameters.
    training.learner.fork(&training.main);
    if !training.has_work() {
        return;
    }
    let mut rest = match resume_loaders(&mut *training, devices.devices(), loaders) {
        Ok(rest) => rest,
        Err(error) => return training.engine.refused(error),
    };
    for number in training.epochs() {
        let rest = std::mem::replace(&mut rest, EpochRest::All);
        let mut epoch = Epoch {
            training: &mut *training,
            devices: &mut *devices,
            number,
        };
        epoch.train(loaders, rest);
        devices.gather(&mut training.learner);
        check(training, devices.devices());
        match training.close_epoch(number) {
            Next::Epoch => {}
            Next::End => break,
            Next::Stop => return training.ends(false),
        }
    }
    check(training, devices.devices());
    training.ends(true);
}

/// The rest of the epoch in which a training resumes.
enum EpochRest<'l, O> {
    /// The whole epoch.
    All,
    /// The remaining batches of each device. `trained` batches of all devices together are done.
    Batches {
        batches: Vec<Batches<'l, O>>,
        trained: usize,
    },
    /// Only the validation.
    Validation,
}

/// Brings the loaders to the position of the restored training.
fn resume_loaders<'l, M: LearnerModel>(
    training: &mut Training<M>,
    devices: &[Device],
    loaders: &'l [TrainLoader<M>],
) -> Result<EpochRest<'l, <M as TrainStep>::Input>, TrainingError> {
    let engine = &mut training.engine;
    if !engine.progress.is_restored() {
        return Ok(EpochRest::All);
    }
    let resumption = engine.progress.resumption(training.train_items)?;
    let seeds = engine.progress.step_seeds();
    if engine.progress.replays() {
        let seed_step = |index: usize, step| match devices.get(index) {
            Some(device) => {
                let seeds = seeds.map(|seeds| seeds.after(step));
                force_draws(device, index, seeds)?;
                seed(device, index, seeds);
                Ok(())
            }
            None => Ok(()),
        };
        let seed_validation = |step| engine.progress.seed_validation_after(&training.main, step);
        let rest = resume::replay(
            loaders,
            &training.valid,
            &resumption,
            seed_step,
            seed_validation,
        )?;
        let steps = engine.progress.state().position.step_in_epoch;
        return match engine.progress.state().phase {
            Phase::Validate => Ok(EpochRest::Validation),
            Phase::Train if steps == 0 => Ok(EpochRest::All),
            Phase::Train if rest.iter().any(Batches::has_more) => Ok(EpochRest::Batches {
                trained: steps * rest.len(),
                batches: rest,
            }),
            Phase::Train => {
                training.have_ended(&rest, &kinds::<M>(loaders), |_| true)?;
                Ok(EpochRest::Validation)
            }
        };
    }
    resume::valid_loader(&training.valid, engine.progress.state());
    let mut batches = Vec::with_capacity(loaders.len());
    let mut trained = 0;
    let mut is_whole = false;
    let mut epoch_restart = None;
    // Move every loader, also if an earlier one restarts the epoch, because each must reach its recorded
    // position.
    for (index, (loader, device)) in loaders.iter().zip(devices).enumerate() {
        let seed = || seed(device, index, seeds);
        let mut rest = resume::train_loader(loader, &resumption.loader(index))?;
        rest.look_ahead(seed)?;
        force_draws(device, index, seeds)?;
        match rest {
            Rest::WholeEpoch => is_whole = true,
            Rest::Batches { rest, skipped } => {
                batches.push(rest);
                trained += skipped;
            }
            Rest::Validation => {}
            Rest::EnteredEpoch { rest, at, change } => {
                trained += engine.progress.state().position.step_in_epoch;
                engine.progress.enters(at, change);
                batches.push(rest);
            }
            Rest::RestartEpoch(change) => epoch_restart = Some(change),
        }
    }
    if let Some(change) = epoch_restart {
        engine.progress.restarts_epoch(change);
        return Ok(EpochRest::All);
    }
    if batches.iter().any(Batches::has_more) {
        return Ok(EpochRest::Batches { batches, trained });
    }
    if is_whole {
        return Ok(EpochRest::All);
    }
    // If a loader lacks its last batches, they would otherwise pass for trained.
    training.have_ended(&batches, &kinds::<M>(loaders), |_| true)?;
    Ok(EpochRest::Validation)
}

fn kinds<M: LearnerModel>(loaders: &[TrainLoader<M>]) -> Vec<LoaderKind> {
    let kind = |loader: &TrainLoader<M>| burn_api::loader_kind(loader.as_ref());
    loaders.iter().map(kind).collect()
}

/// Seeds `device`, which has this index, before its next batch is fetched: the batcher may draw too.
pub(super) fn seed(device: &Device, index: usize, seeds: Option<StepSeeds>) {
    if let Some(seeds) = seeds {
        device.seed(seeds.batch(index));
    }
}

/// Forces all pending draws on `device`, which has this index, since it was seeded. A device with fusion executes
/// later and in another order, and several devices may share one generator. So the draws must happen in this order,
/// before any others.
pub(super) fn force_draws(
    device: &Device,
    index: usize,
    seeds: Option<StepSeeds>,
) -> Result<(), TrainingError> {
    let Some(seeds) = seeds else {
        return Ok(());
    };
    // A device of this process draws when its work is submitted, a remote device when the work is done.
    let drawn = match seeds.are_split && burn_api::is_remote(device) {
        true => device.sync(),
        false => device.flush(),
    };
    drawn.map_err(|error| burn_api::device_failed(index, error.to_string()))
}

/// Detects that a remote device is gone: work that is sent to it is lost without an error.
fn check<M: LearnerModel>(training: &Training<M>, devices: &[Device]) {
    for (index, device) in devices.iter().enumerate() {
        if burn_api::is_remote(device)
            && let Err(error) = device.sync()
        {
            let error = burn_api::device_failed(index, error.to_string());
            training.components.interrupter.fail(error);
        }
    }
}

struct Epoch<'t, M: LearnerModel, D> {
    training: &'t mut Training<M>,
    devices: &'t mut D,
    number: usize,
}

impl<M: LearnerModel, D: Devices<M>> Epoch<'_, M, D> {
    /// Trains the `rest` of the epoch. If only the validation is left, Burn gets no training events, so the logged
    /// metrics of the training stay unchanged.
    fn train(&mut self, loaders: &[TrainLoader<M>], rest: EpochRest<'_, <M as TrainStep>::Input>) {
        let begun = match rest {
            EpochRest::All => None,
            EpochRest::Batches { batches, trained } => Some((batches, trained)),
            EpochRest::Validation => {
                self.training.has_trained_all();
                return;
            }
        };
        if self.training.is_stopped() {
            return;
        }
        self.training.split_begins(self.number);
        let (mut batches, trained) = begun.unwrap_or_else(|| {
            let all = loaders.iter().map(Batches::of);
            (all.collect(), 0)
        });
        self.training
            .engine
            .progress
            .warn_of_sampler(data_loader::take_finding(), OR_REPLAY);
        if self.train_rounds(&mut batches, &kinds::<M>(loaders), trained) {
            self.training.engine.split_done();
        }
        self.training.split_ends(self.number);
    }

    /// Trains until all batches are used, and returns whether they are. `iteration` batches of the epoch are already
    /// trained.
    fn train_rounds(
        &mut self,
        batches: &mut [Batches<'_, <M as TrainStep>::Input>],
        kinds: &[LoaderKind],
        mut iteration: usize,
    ) -> bool {
        let accumulation = self.training.components.grad_accumulation;
        let mut gradients = self.devices.gradients(accumulation);
        let mut accumulated = 0;
        loop {
            let training = &mut *self.training;
            let seeds = training.engine.progress.step_seeds();
            let is_skipped = training.skips_next();
            let round = match is_skipped {
                true => {
                    let skipped = self.devices.skip_round(batches, seeds);
                    skipped.map(|devices| (devices, Vec::new()))
                }
                false => {
                    let round = self.devices.round(&training.learner, batches, seeds);
                    round.map(|round| (round.iter().map(|of| of.device).collect(), round))
                }
            };
            let (devices, round) = match round {
                Ok(round) => round,
                Err(error) => {
                    training.components.interrupter.fail(error);
                    return false;
                }
            };
            // Check this before the other devices train, so that no backup contains an epoch with missing items.
            let has_ended = |index| !devices.contains(&index);
            if let Err(error) = training.have_ended(batches, kinds, has_ended) {
                training.components.interrupter.fail(error);
                return false;
            }
            if devices.is_empty() {
                return true;
            }
            let progress = progress(&devices, batches);
            let mut outputs = Vec::with_capacity(round.len());
            for Computed { device, output } in round {
                gradients.add(&training.learner.model(), device, output.grads);
                outputs.push(output.item);
            }

            accumulated += usize::from(!is_skipped);
            let is_last = Items::from(&progress).are_all();
            let is_full = accumulation.unwrap_or(1) <= accumulated;
            let has_stepped = is_full || (is_last && accumulated > 0);
            if has_stepped {
                training.engine.optimizer_step_begins();
                gradients.step(&mut training.learner);
                accumulated = 0;
            }

            let learning_rate = training
                .engine
                .learning_rate(&training.learner, has_stepped);
            if is_skipped {
                iteration += devices.len();
            }
            for output in outputs {
                iteration += 1;
                log::info!("Iteration {iteration}");
                training.send_item(TrainingItem::new(
                    output,
                    progress.clone(),
                    Some(iteration),
                    Some(learning_rate.clone()),
                ));
            }
            let items: Vec<_> = batches.iter().map(Batches::items).collect();
            let processor = &mut training.components.event_processor;
            training
                .engine
                .step_done(&training.learner, processor, &items, has_stepped);
            if training.engine.take_failure() {
                check(training, self.devices.devices());
            }
            if training.is_stopped() {
                // A stop in the last batch does not interrupt the epoch. Only the loaders know whether it is the
                // last.
                let is_requested = training.components.interrupter.error().is_none();
                let mut loaders = batches.iter_mut();
                return is_requested
                    && is_last
                    && loaders.all(|loader| loader.next(|| {}).is_none());
            }
        }
    }
}

/// The progress of the epoch as Burn reports it: the sum over the loaders that gave a batch to this round.
fn progress<O>(devices: &[usize], batches: &[Batches<'_, O>]) -> Progress {
    if let [batches] = batches {
        return batches.progress();
    }
    let mut sum = Progress::new(0, 0, Some("items".to_owned()));
    for device in devices {
        if let Some(batches) = batches.get(*device) {
            burn_api::add_progress(&mut sum, &batches.progress());
        }
    }
    sum
}
