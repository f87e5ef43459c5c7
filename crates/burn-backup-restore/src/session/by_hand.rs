//! The session of a loop that is written by hand.

mod batches;
mod farewell;
mod loaders;
mod metric_lines;
mod open;
mod results;

use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::sync::Arc;

use burn::data::dataloader::DataLoader;
use burn::tensor::Device;
use burn::train::metric::store::Split;
use burn::train::{Interrupter, TrainingError};

use super::progress::{check_whole, say_entered};
use super::{Core, NoMetrics, Remaining, announcement, closing};
use crate::burn_api;
use crate::change::Change;
use crate::data_loader;
use crate::error::BackupError;
use crate::handle::BackupHandle;
use crate::outcome::Outcome;
use crate::parts::State;
use crate::position::Position;
use crate::preemption::AfterPreemption;
use crate::resume::{self, Plan, Rest, WholeEpoch};
use crate::say::{announce, say, warn};
use crate::state::{LoaderProgress, Phase};
pub use batches::Batches;
use batches::{Role, Source};
use farewell::Farewell;
use loaders::Loaders;
use metric_lines::MetricLines;

/// What a loop does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flow {
    /// It goes on.
    Continue,
    /// The training is being stopped: the loop is left, and [`Session::finish`] saves the training.
    Stop,
}

impl Flow {
    /// Whether the training is being stopped.
    pub fn is_stop(self) -> bool {
        self == Self::Stop
    }
}

/// Backs up a training whose loop is written by hand, and resumes it.
///
/// [`BackupAndRestore::resume`](crate::BackupAndRestore::resume) makes it. The loop then tells it what it does:
///
/// | call | when |
/// |---|---|
/// | [`epochs`](Self::epochs) | gives the epochs that are left |
/// | [`batches`](Self::batches), [`batches_of`](Self::batches_of), [`stream`](Self::stream), [`steps`](Self::steps) | give the batches that are left |
/// | [`next`](Self::next) | fetches a batch, or gives none when the training is being stopped |
/// | [`stepped`](Self::stepped) or [`accumulated`](Self::accumulated) | after each batch |
/// | [`trained`](Self::trained) | before a validation |
/// | [`epoch_done`](Self::epoch_done) | after the epoch, and its validation |
/// | [`finish`](Self::finish) | after the loop |
///
/// Between two calls the state is the program's: each call borrows it for a moment. Each batch counts as one
/// step, and a backup is taken between two batches. A restart goes on with [`next`](Self::next), so what belongs
/// to a step comes before [`stepped`](Self::stepped), also a validation in the middle of an epoch. Random numbers are exact as well: the device is seeded
/// before each batch is fetched, after each step, and before each epoch. What the loop draws once and uses
/// in many steps is part of the training: it belongs in the state, or before
/// [`resume`](crate::BackupAndRestore::resume).
///
/// A session that is dropped before [`finish`](Self::finish), by an early return or a panic, keeps the last
/// backup: the program resumes from it when it is run again.
///
/// # Examples
///
/// A generator and a critic, with an average of the generator's weights. Both have their own batches, and
/// the critic has two for each of the generator's:
///
/// ```
/// use burn::module::Module;
/// use burn::optim::{GradientsParams, RmsPropConfig};
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_backup_restore::{BackupAndRestore, BackupError, State, Trainee, Weights, impl_state};
/// # use std::sync::Arc;
/// # use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
/// # use burn::data::dataloader::batcher::Batcher;
/// # use burn::data::dataset::InMemDataset;
/// # use burn::nn::{Linear, LinearConfig};
/// # #[derive(Clone)] struct Rows;
/// # impl Batcher<f32, Tensor<2>> for Rows {
/// #     fn batch(&self, items: Vec<f32>, device: &Device) -> Tensor<2> {
/// #         Tensor::<1>::from_floats(items.as_slice(), device).reshape([-1, 1]).repeat_dim(1, 2)
/// #     }
/// # }
///
/// struct Gan {
///     generator: Trainee<Linear>,
///     critic: Trainee<Linear>,
///     average: Weights<Linear>,
/// }
///
/// impl_state!(Gan { generator, critic, average });
///
/// fn train(t: &mut Trainee<Linear>, loss: Tensor<1>) {
///     let grads = GradientsParams::from_grads(loss.backward(), &t.model);
///     t.model = t.optim.step(t.lr, t.model.clone(), grads);
/// }
///
/// fn average_with(average: &mut Weights<Linear>, model: &Linear) {
///     let Linear { weight, bias } = average.0.clone();
///     let model = model.weight.val().inner();
///     average.0 = Linear { weight: weight.map(|weight| weight * 0.99 + model * 0.01), bias };
/// }
///
/// # fn main() -> Result<(), BackupError> {
/// # let scratch = std::env::temp_dir().join(format!("doc-gan-{}", std::process::id()));
/// # let dir = scratch.join("backup");
/// # let device = Device::flex().autodiff();
/// # let items: Vec<f32> = (0..12).map(|item| item as f32).collect();
/// # let loader: Arc<dyn DataLoader<Tensor<2>>> = DataLoaderBuilder::new(Rows)
/// #     .batch_size(2).set_device(device.clone()).build(InMemDataset::new(items));
/// let trainee = || Trainee {
///     model: LinearConfig::new(2, 2).init(&device),
///     optim: RmsPropConfig::new().init(),
///     lr: 1e-3,
/// };
/// let generator = trainee();
/// let average_of = Weights(generator.model.valid());
/// let mut gan = Gan { generator, critic: trainee(), average: average_of };
/// let mut session = BackupAndRestore::new(dir).save_freq(2).resume(&mut gan, &device)?;
/// for epoch in session.epochs(2) {
///     let mut real = session.batches(&loader)?;
///     'epoch: loop {
///         for _ in 0..2 {
///             let Some(real) = session.next(&mut real, &gan)? else {
///                 break 'epoch;
///             };
///             let Gan { generator, critic, .. } = &mut gan;
///             let noise = Tensor::<2>::random([2, 2], Distribution::Default, &device);
///             let fake = generator.model.forward(noise).detach();
///             let loss = critic.model.forward(fake).mean() - critic.model.forward(real).mean();
///             train(critic, loss);
///         }
///         let Gan { generator, critic, average } = &mut gan;
///         let noise = Tensor::<2>::random([2, 2], Distribution::Default, &device);
///         let loss = -critic.model.forward(generator.model.forward(noise)).mean();
///         train(generator, loss);
///         average_with(average, &generator.model);
///         session.stepped(&gan);
///     }
///     if session.epoch_done(&gan).is_stop() {
///         break;
///     }
/// }
/// session.finish(&gan)?;
/// # std::fs::remove_dir_all(&scratch).ok();
/// # Ok(())
/// # }
/// ```
///
/// Steps without a loader or epochs:
///
/// ```
/// use burn::optim::{AdamConfig, GradientsParams};
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_backup_restore::{BackupAndRestore, BackupError, Trainee};
/// # use burn::nn::LinearConfig;
///
/// # fn main() -> Result<(), BackupError> {
/// # let scratch = std::env::temp_dir().join(format!("doc-steps-{}", std::process::id()));
/// # let dir = scratch.join("backup");
/// let device = Device::flex().autodiff();
/// let model = LinearConfig::new(2, 1).init(&device);
/// let mut t = Trainee { model, optim: AdamConfig::new().init(), lr: 1e-2 };
/// let mut session = BackupAndRestore::new(dir).save_freq(50).resume(&mut t, &device)?;
/// let mut steps = session.steps(100)?;
/// while let Some(step) = session.next(&mut steps, &t)? {
///     let points = Tensor::<2>::random([8, 2], Distribution::Default, &device);
///     let loss = (t.model.forward(points.clone()) - points.sum_dim(1)).powi_scalar(2).mean();
///     let grads = GradientsParams::from_grads(loss.backward(), &t.model);
///     t.model = t.optim.step(t.lr / step as f64, t.model, grads);
///     session.stepped(&t);
/// }
/// session.finish(&t)?;
/// # std::fs::remove_dir_all(&scratch).ok();
/// # Ok(())
/// # }
/// ```
///
/// Gradients that are accumulated over four batches, and a long validation that is not run twice:
///
/// ```
/// use burn::optim::{AdamConfig, GradientsAccumulator, GradientsParams};
/// use burn_backup_restore::{BackupAndRestore, BackupError, Trainee, Value};
/// # use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
/// # use burn::data::dataloader::batcher::Batcher;
/// # use burn::data::dataset::InMemDataset;
/// # use burn::nn::{Linear, LinearConfig};
/// # use burn::tensor::{Device, Tensor};
/// # use std::sync::Arc;
/// # #[derive(Clone)] struct Rows;
/// # impl Batcher<f32, Tensor<2>> for Rows {
/// #     fn batch(&self, items: Vec<f32>, device: &Device) -> Tensor<2> {
/// #         Tensor::<1>::from_floats(items.as_slice(), device).reshape([-1, 1]).repeat_dim(1, 2)
/// #     }
/// # }
/// # fn validate(_model: &Linear) -> f64 { 0.5 }
///
/// # fn main() -> Result<(), BackupError> {
/// # let scratch = std::env::temp_dir().join(format!("doc-accumulate-{}", std::process::id()));
/// # let dir = scratch.join("backup");
/// # let device = Device::flex().autodiff();
/// # let items: Vec<f32> = (0..16).map(|item| item as f32).collect();
/// # let loader: Arc<dyn DataLoader<Tensor<2>>> = DataLoaderBuilder::new(Rows)
/// #     .batch_size(2).set_device(device.clone()).build(InMemDataset::new(items));
/// # let model = LinearConfig::new(2, 1).init(&device);
/// let trainee = Trainee { model, optim: AdamConfig::new().init(), lr: 1e-2 };
/// let mut state = (trainee, Value(f64::INFINITY));
/// let mut session = BackupAndRestore::new(dir).resume(&mut state, &device)?;
/// for epoch in session.epochs(2) {
///     let mut batches = session.batches(&loader)?;
///     let mut accumulator = GradientsAccumulator::new();
///     let mut accumulated = 0;
///     while let Some(batch) = session.next(&mut batches, &state)? {
///         let (t, _) = &mut state;
///         let loss = t.model.forward(batch).mean() / 4.0;
///         let grads = GradientsParams::from_grads(loss.backward(), &t.model);
///         accumulator.accumulate(&t.model, grads);
///         accumulated += 1;
///         if accumulated < 4 {
///             session.accumulated(&state);
///             continue;
///         }
///         accumulated = 0;
///         session.optimizer_begins();
///         let grads = accumulator.grads();
///         t.model = t.optim.step(t.lr, t.model.clone(), grads);
///         session.stepped(&state);
///     }
///     if session.trained(&state).is_stop() {
///         break;
///     }
///     let loss = session.once("valid", &state, |_| validate(&state.0.model))?;
///     *state.1 = state.1.min(loss);
///     if session.epoch_done(&state).is_stop() {
///         break;
///     }
/// }
/// session.finish(&state)?;
/// # std::fs::remove_dir_all(&scratch).ok();
/// # Ok(())
/// # }
/// ```
pub struct Session<S> {
    core: Core,
    /// Dropped after the core, which waits for what is in flight.
    farewell: Farewell,
    loaders: Loaders,
    metrics: Option<MetricLines>,
    /// The one that the training draws on first, and others.
    devices: Vec<Device>,
    has_fusion: bool,
    after: AfterPreemption,
    /// How many epochs were begun in this process.
    epoch_count: u64,
    is_validating: bool,
    has_split_begun: bool,
    has_stepped_in_epoch: bool,
    has_asked_for_loader: bool,
    /// How many epochs the loop is to have, if it has said so.
    num_epochs: Option<usize>,
    /// How many steps, by the place of their stream.
    num_steps: Vec<(usize, u64)>,
    state: PhantomData<fn(&S)>,
}

impl<S: State> Session<S> {
    /// The epochs that are left of `num_epochs`, which are counted from 1.
    ///
    /// None is left of a training that is complete, or whose loop has left it before.
    pub fn epochs(&mut self, num_epochs: usize) -> RangeInclusive<usize> {
        self.num_epochs = Some(
            self.num_epochs
                .map_or(num_epochs, |more| more.max(num_epochs)),
        );
        let progress = &mut self.core.progress;
        progress.num_epochs = progress.num_epochs.max(num_epochs);
        let epoch = progress.state.position.epoch;
        if self.was_left() {
            return RangeInclusive::new(1, 0);
        }
        if self.core.progress.remaining(num_epochs) == Remaining::Unfinished {
            self.core.warn_if_unprotected(num_epochs, None);
        }
        epoch..=num_epochs
    }

    /// The batches of `loader` that are left of the epoch in progress; those that are trained are skipped.
    ///
    /// To be called in each epoch, for the same loaders in the same order. After [`trained`](Self::trained),
    /// these are batches to validate with: all of them, and [`next`](Self::next) neither counts them as steps
    /// nor seeds a device.
    ///
    /// A loader that is built anew in each epoch has its batches in the order of a new one: give
    /// `loader.iter()` to [`batches_of`](Self::batches_of).
    ///
    /// # Errors
    ///
    /// When the loader does not give what it gave when the backup was made, or fails.
    pub fn batches<'l, O: 'static>(
        &mut self,
        loader: &'l Arc<dyn DataLoader<O>>,
    ) -> Result<Batches<'l, O>, BackupError> {
        let opened = self.loaders.open(loader);
        let kind = burn_api::loader_kind(loader.as_ref());
        let slot = opened.slot;
        if self.is_validating {
            announcement::say_of_validation(kind);
            for _ in 0..opened.to_ask {
                drop(loader.iter());
            }
            let rest = resume::Batches::of(loader);
            return Ok(Batches {
                role: Role::Validation { slot },
                source: Source::Loader { rest, kind },
                most_in_epoch: None,
            });
        }
        let is_restored = self.core.progress.is_restored();
        if !std::mem::replace(&mut self.has_asked_for_loader, true) {
            announcement::warn_of_workers(self.farewell.handle(), kind, is_restored);
        }
        if opened.is_other && opened.progress.is_rebuilt {
            log::warn!(
                target: super::LOG,
                "the training loader of epoch {} is another one than before: a restart at the end of the first \
                 epoch would take it for the same; give loader.iter() to Session::batches_of",
                self.core.progress.state.position.epoch,
            );
        }
        let rest = resume::train_loader(loader, &self.plan(opened.to_ask, opened.progress));
        let rest = rest.map_err(of_training)?;
        self.core
            .progress
            .warn_of_sampler(data_loader::take_finding());
        let rest = match rest {
            Rest::WholeEpoch => Some(resume::Batches::of(loader)),
            Rest::Batches { rest, .. } => Some(rest),
            Rest::Validation => None,
            Rest::Entered { rest, at, change } => {
                self.loaders.enter(slot, at);
                say_entered(at, change);
                Some(rest)
            }
            Rest::Anew(change) => {
                self.begin_epoch_anew(change)?;
                Some(resume::Batches::of(loader))
            }
        };
        let source = rest.map(|rest| Source::Loader { rest, kind });
        self.seed_before_batch();
        Ok(self.of_epoch(slot, source))
    }

    /// The batches of an iterator that are left of the epoch in progress: it is asked for those that are
    /// trained, one by one, and they are dropped.
    ///
    /// To be called in each epoch, with an iterator that gives the same again when the program is run again.
    ///
    /// # Errors
    ///
    /// When it has fewer batches than are trained.
    pub fn batches_of<'l, O>(
        &mut self,
        batches: impl IntoIterator<Item = O, IntoIter: 'l>,
    ) -> Result<Batches<'l, O>, BackupError> {
        let (slot, trained) = self.loaders.open_iterator();
        let mut batches = batches.into_iter();
        if self.is_validating {
            return Ok(Batches {
                role: Role::Validation { slot },
                source: Source::Iterator(Box::new(batches)),
                most_in_epoch: None,
            });
        }
        if self.core.progress.state.phase == Phase::Validate {
            return Ok(self.of_epoch(slot, None));
        }
        self.skip(&mut batches, trained)?;
        self.seed_before_batch();
        Ok(self.of_epoch(slot, Some(Source::Iterator(Box::new(batches)))))
    }

    /// Batches that go on from one epoch to the next, or of a loop without epochs: a restart asks the iterator
    /// for all that it has given so far, one by one, and drops them.
    ///
    /// To be called once, before the loop. [`Batches::take`] says how many make an epoch. What an epoch draws by
    /// itself, before its first batch, belongs in the state then.
    ///
    /// # Errors
    ///
    /// When it has fewer batches than are trained.
    pub fn stream<'l, O>(
        &mut self,
        batches: impl IntoIterator<Item = O, IntoIter: 'l>,
    ) -> Result<Batches<'l, O>, BackupError> {
        let (place, trained) = self.loaders.open_stream();
        let mut batches = batches.into_iter();
        self.skip(&mut batches, trained)?;
        self.seed_after_skipping();
        Ok(Batches {
            role: Role::Stream { place },
            source: Source::Iterator(Box::new(batches)),
            most_in_epoch: None,
        })
    }

    /// The numbers of the steps that are left of `num_steps`, which are counted from 1: for a loop without a
    /// loader.
    ///
    /// # Errors
    ///
    /// When the training has made more steps.
    pub fn steps(&mut self, num_steps: u64) -> Result<Batches<'static, u64>, BackupError> {
        let (place, trained) = self.loaders.open_stream();
        self.num_steps.push((place, num_steps));
        if trained > num_steps {
            return Err(BackupError::BeyondSteps {
                steps: trained,
                num_steps,
            });
        }
        self.seed_after_skipping();
        let left = match self.was_left() {
            true => RangeInclusive::new(1, 0),
            false => trained + 1..=num_steps,
        };
        Ok(Batches {
            role: Role::Stream { place },
            source: Source::Iterator(Box::new(left)),
            most_in_epoch: None,
        })
    }

    /// Fetches the next batch; none when no more is left, and when the training is being stopped.
    ///
    /// Before that it looks for notices of a preemption, and seeds the devices. A batch that is followed by
    /// none of [`stepped`](Self::stepped) and [`accumulated`](Self::accumulated), but by another `next`,
    /// belongs to the step of that one: so several loaders can give to one step, and a batch can be left out.
    ///
    /// # Errors
    ///
    /// When the loader fails, or ends before it has given what it promised.
    pub fn next<O>(
        &mut self,
        batches: &mut Batches<'_, O>,
        state: &S,
    ) -> Result<Option<O>, BackupError> {
        if let Role::Validation { slot } = batches.role {
            return self.next_to_validate(slot, batches, state);
        }
        let is_of_this_epoch = match batches.role {
            Role::Epoch { epoch, .. } => epoch == self.epoch_count,
            Role::Stream { .. } | Role::Validation { .. } => true,
        };
        if !is_of_this_epoch || self.is_validating {
            return Err(BackupError::NotThisEpoch);
        }
        // Only between two steps is the state one that can be saved.
        if !self.loaders.has_pending() {
            self.core.look_out(state, &mut NoMetrics);
            if self.core.interrupter().should_stop() {
                return Ok(None);
            }
        }
        self.begin_split(state);
        let given = match batches.role {
            Role::Epoch { slot, .. } | Role::Validation { slot } => self.loaders.batches(slot),
            Role::Stream { place } => self.loaders.stream(place).1,
        };
        if batches.most_in_epoch.is_some_and(|most| given >= most) {
            return Ok(None);
        }
        let seeds = self.core.progress.step_seeds();
        let seeds = seeds.map(|seeds| seeds.after(self.loaders.fetched()));
        if seeds.is_some() && self.has_fusion {
            // The step before.
            self.force_draws()?;
        }
        let devices = &self.devices;
        let fetched = batches.fetch(|| {
            for (index, device) in devices.iter().enumerate() {
                match (seeds, index) {
                    (Some(seeds), 0) => device.seed(seeds.batch(0)),
                    (Some(seeds), index) => device.seed(seeds.step(index)),
                    (None, _) => {}
                }
            }
        });
        if seeds.is_some() {
            self.force_draws()?;
        }
        let batch = fetched.transpose().map_err(BackupError::Dataset)?;
        match (batches.role, &batch) {
            (Role::Epoch { slot, .. } | Role::Validation { slot }, Some(_)) => {
                self.loaders.fetched_from(slot, batches.items());
            }
            (Role::Stream { place }, Some(_)) => self.loaders.fetched_from_stream(place),
            (Role::Epoch { slot, .. }, None) => self.has_ended(slot, batches, "training")?,
            (Role::Stream { .. } | Role::Validation { .. }, None) => {}
        }
        Ok(batch)
    }

    /// A batch is trained: the state is what it is after the optimizer's step. This is the moment at which a
    /// backup is taken, if one is due.
    ///
    /// The answer says whether the training is being stopped. It may be left alone, because
    /// [`next`](Self::next) then gives no batch.
    pub fn stepped(&mut self, state: &S) -> Flow {
        self.core.window.set_between(false);
        if !self.core.window.accumulates() {
            self.core.window.release();
        }
        self.step_done(state, true)
    }

    /// A batch's gradients are accumulated, and the optimizer has not stepped.
    ///
    /// They can't be saved. A backup that is due is taken after the next [`stepped`](Self::stepped), and a
    /// training that is stopped before goes back to the optimizer's step before this batch. Gradients
    /// may be accumulated beyond the end of an epoch.
    pub fn accumulated(&mut self, state: &S) -> Flow {
        self.core.window.accumulates_from_here();
        self.core.window.set_between(true);
        self.step_done(state, false)
    }

    /// The optimizer is about to use gradients that were accumulated. May be left out: then the step needs
    /// memory for the state before it as well.
    pub fn optimizer_begins(&mut self) {
        self.core.window.release();
    }

    /// Gradients that were accumulated are not used: the state is as after the last optimizer's step.
    pub fn gradients_dropped(&mut self, state: &S) {
        self.core.window.set_between(false);
        self.core.hold(state);
    }

    /// All batches of the epoch are trained, and its validation is next. The device is seeded for it.
    ///
    /// A restart from here on gives no batches of this epoch, and begins with the validation. It need not be
    /// called in a loop that does nothing between the last batch and [`epoch_done`](Self::epoch_done).
    #[must_use = "a training that is being stopped is left before its validation"]
    pub fn trained(&mut self, state: &S) -> Flow {
        if self.core.interrupter().should_stop() {
            return Flow::Stop;
        }
        self.end_training_split();
        if !self.core.window.is_between() {
            // What the loop changes from here on is saved with the end of the epoch, or not at all.
            self.core.hold(state);
        }
        self.is_validating = true;
        for device in &self.devices {
            self.core.progress.seed_validation(device);
        }
        Flow::Continue
    }

    /// The epoch is over, with its validation. This is the moment at which
    /// [`SaveFreq::Epoch`](crate::SaveFreq::Epoch) takes a backup.
    #[must_use = "a training that is being stopped has no other epoch"]
    pub fn epoch_done(&mut self, state: &S) -> Flow {
        if !self.is_validating {
            if self.core.interrupter().should_stop() {
                return Flow::Stop;
            }
            self.end_training_split();
        }
        let epoch = self.core.progress.state.position.epoch;
        if let Some(metrics) = &mut self.metrics {
            metrics.end_split(epoch, Split::Valid);
        }
        self.loaders.end_epoch();
        self.commit();
        let steps = self.core.progress.state.position.step_in_epoch as u64;
        if self.epoch_count == 0
            && let Some(num_epochs) = self.num_epochs
        {
            self.core.warn_if_unprotected(num_epochs, Some(steps));
        }
        if !self.core.window.is_between() {
            self.core.window.release();
        }
        self.core.epoch_done(state, &mut NoMetrics, false);
        self.is_validating = false;
        self.has_split_begun = false;
        self.has_stepped_in_epoch = false;
        self.epoch_count += 1;
        self.seed_before_epoch();
        let is_last = self.num_epochs.is_some_and(|epochs| epoch >= epochs);
        if !is_last {
            self.core.look_out(state, &mut NoMetrics);
        }
        self.flow()
    }

    /// Logs a value of a metric, which is the mean of so many `items`, if
    /// [`metric_logs`](crate::BackupAndRestore::metric_logs) are asked for: in Burn's files, which after a
    /// restart are those of an undisturbed training. Before [`trained`](Self::trained) it is one of the
    /// training, and after it one of the validation.
    pub fn log(&mut self, metric: &str, value: f64, items: usize) {
        if let Some(metrics) = &mut self.metrics {
            let split = match self.is_validating {
                true => Split::Valid,
                false => Split::Train,
            };
            let epoch = self.core.progress.state.position.epoch;
            metrics.log(metric, value, items, epoch, &split);
        }
    }

    /// Seeds another device as well before each batch: for a program that draws on several.
    pub fn also_on(&mut self, device: &Device) {
        self.has_fusion |= burn_api::has_fusion(device);
        self.devices.push(device.clone());
    }

    /// Where the training is.
    pub fn position(&self) -> Position {
        self.core.progress.state.position
    }

    /// Whether the training was resumed from a backup.
    pub fn is_restored(&self) -> bool {
        self.core.progress.is_restored()
    }

    /// Whether the training is being stopped. A long validation may be left then: it is run again when the
    /// training is resumed, from the state that [`trained`](Self::trained) was given.
    pub fn is_stopping(&self) -> bool {
        self.core.interrupter().should_stop()
    }

    /// Stops the training: from another thread, or from the loop.
    pub fn interrupter(&self) -> Interrupter {
        self.core.interrupter().clone()
    }

    /// A handle that answers while the training runs and after it.
    pub fn handle(&self) -> BackupHandle {
        self.farewell.handle().clone()
    }

    /// The loop has ended.
    ///
    /// A training that was stopped is saved, and said to be; the program resumes it when it is run again. One that
    /// has run to its end, or whose loop was left although it was not being stopped, needs its backup no
    /// longer: it is deleted, unless [`delete_checkpoint`](crate::BackupAndRestore::delete_checkpoint)
    /// says otherwise.
    ///
    /// # Errors
    ///
    /// When a backup has failed and ends the training (see
    /// [`OnBackupError`](crate::OnBackupError)).
    pub fn finish(mut self, state: &S) -> Result<Outcome, BackupError> {
        let is_stopping = self.core.interrupter().should_stop();
        if self.loaders.has_pending() {
            // The loop was left in the middle of a step.
            self.core.window.set_between(true);
        }
        match is_stopping {
            true => self.core.stopped(state, &mut NoMetrics),
            false => self.ends(state),
        }
        let Self {
            mut core,
            mut farewell,
            after,
            ..
        } = self;
        let ending = core.take_ending();
        core.conclude(ending.error.is_none() && ending.interrupted.is_none());
        let handle = farewell.handle().clone();
        let outcome = match (&ending.error, ending.beyond, &ending.interrupted) {
            (Some(_), _, _) => Outcome::Failed,
            (None, Some((at, num_epochs)), _) => Outcome::Beyond { at, num_epochs },
            (None, None, Some(_)) => Outcome::Stopped {
                saved: ending.saved_at,
            },
            (None, None, None) => Outcome::Finished,
        };
        farewell.finished(outcome);
        if let Some(error) = ending.error {
            return Err(BackupError::from_training(error));
        }
        let reason = ending.interrupted.and_then(|stop| stop.reason);
        let saved = ending.saved.as_deref();
        let line = closing::line(outcome, None, reason.as_deref(), saved, &handle);
        for note in handle.take_notes() {
            say(&format!("warning: {note}"));
        }
        match (line, after) {
            (Some(line), AfterPreemption::Exit(code)) if ending.is_preempted => {
                closing::exit(&line, code)
            }
            (Some(line), _) => say(&line),
            (None, _) => {}
        }
        Ok(outcome)
    }

    /// The loop has ended, and the training was not stopped.
    fn ends(&mut self, state: &S) {
        let progress = &mut self.core.progress;
        if let Some(num_epochs) = self.num_epochs {
            let is_left = !progress.state.early_stopped;
            match progress.remaining(num_epochs) {
                Remaining::Beyond if is_left => return self.core.beyond(num_epochs),
                // The loop has left it.
                Remaining::Unfinished => progress.state.early_stopped = true,
                Remaining::Beyond | Remaining::Complete => {}
            }
        }
        let are_left =
            |(place, num_steps): &(usize, u64)| self.loaders.stream(*place).0 < *num_steps;
        if self.num_steps.iter().any(are_left) {
            progress.state.early_stopped = true;
        }
        self.commit();
        self.core.finished(state, &mut NoMetrics);
    }

    /// Whether the loop has left the training before, without being stopped; then says so.
    fn was_left(&self) -> bool {
        let state = &self.core.progress.state;
        if state.early_stopped {
            announce(&format!(
                "the loop had left the training at {}: nothing is trained; to train anew, delete the directory \
                 or give another one",
                state.position,
            ));
        }
        state.early_stopped
    }

    fn flow(&self) -> Flow {
        match self.core.interrupter().should_stop() {
            true => Flow::Stop,
            false => Flow::Continue,
        }
    }

    /// The first batch of an epoch, or of what is left of it, is about to be fetched.
    fn begin_split(&mut self, state: &S) {
        if std::mem::replace(&mut self.has_split_begun, true) {
            return;
        }
        self.core.split_begins(state);
        let is_new = self.core.progress.state.position.global_step == 0;
        if is_new && !self.core.window.accumulates() {
            // Whether it accumulates is known after the first batch.
            self.core.hold(state);
        }
    }

    fn step_done(&mut self, state: &S, has_stepped: bool) -> Flow {
        self.has_stepped_in_epoch = true;
        self.commit();
        let items = self.loaders.first_items();
        self.core
            .step_done(state, &mut NoMetrics, items.as_slice(), has_stepped);
        self.seed_before_batch();
        self.flow()
    }

    fn seed_before_batch(&self) {
        let fetched = self.loaders.fetched();
        for device in &self.devices {
            self.core.progress.seed_before_batch(device, fetched);
        }
    }

    /// What was skipped may have drawn, and the loop may ask for no batches of an epoch.
    fn seed_after_skipping(&self) {
        match self.core.progress.state.position.step_in_epoch {
            0 => self.seed_before_epoch(),
            _ => self.seed_before_batch(),
        }
    }

    fn seed_before_epoch(&self) {
        for device in &self.devices {
            self.core.progress.seed_before_epoch(device);
        }
    }

    /// What was to be drawn is drawn, in this order and before anything else is: a device with fusion draws
    /// later than it is told to.
    fn force_draws(&self) -> Result<(), BackupError> {
        for (index, device) in self.devices.iter().enumerate() {
            device
                .flush()
                .map_err(|error| of_training(burn_api::device_failed(index, error.to_string())))?;
        }
        Ok(())
    }

    /// What was fetched and computed is part of the training.
    fn commit(&mut self) {
        let state = &mut self.core.progress.state;
        self.loaders.commit(state);
        state.results.clear();
    }

    fn end_training_split(&mut self) {
        let has_fetched = self.loaders.has_pending();
        if has_fetched && !self.has_stepped_in_epoch {
            warn(
                self.farewell.handle(),
                "this training runs WITHOUT BACKUPS: no batch of the epoch was followed by Session::stepped",
            );
        }
        if let Some(metrics) = &mut self.metrics {
            let epoch = self.core.progress.state.position.epoch;
            metrics.end_split(epoch, Split::Train);
        }
        self.loaders.commit(&mut self.core.progress.state);
        self.core.progress.state.phase = Phase::Validate;
    }

    fn next_to_validate<O>(
        &mut self,
        slot: usize,
        batches: &mut Batches<'_, O>,
        state: &S,
    ) -> Result<Option<O>, BackupError> {
        let was_stopping = self.is_stopping();
        self.core.look_out(state, &mut NoMetrics);
        if self.is_stopping() && !was_stopping {
            // The validation may take longer than is left.
            self.core.save_what_is_held(&mut NoMetrics);
        }
        let batch = batches
            .fetch(|| ())
            .transpose()
            .map_err(BackupError::Dataset)?;
        match (&batch, batches.items()) {
            (Some(_), Some(items)) => {
                if let Some(progress) = self.loaders.progress(slot)
                    && progress.data.items_processed == 0
                {
                    progress.data.after_batch(items, true);
                }
            }
            (Some(_), None) => {}
            (None, _) => self.has_ended(slot, batches, "validation")?,
        }
        Ok(batch)
    }

    /// Checks that a loader has given all that it promised.
    fn has_ended<O>(
        &mut self,
        slot: usize,
        batches: &Batches<'_, O>,
        split: &'static str,
    ) -> Result<(), BackupError> {
        let Source::Loader { rest, kind } = &batches.source else {
            return Ok(());
        };
        let is_allowed = self.core.progress.allow_short_epochs;
        let Some(progress) = self.loaders.progress(slot) else {
            return Ok(());
        };
        let first_batch = progress.data.first_batch_items;
        let epoch = WholeEpoch {
            items: rest.items(),
            first_batch: (first_batch > 0).then_some(first_batch),
            loader: *kind,
        };
        check_whole(epoch, &mut progress.data.epoch_items, split, is_allowed)
    }

    /// Where a loader goes on that is still to be asked for so many iterators.
    fn plan(&self, to_ask: u64, progress: LoaderProgress) -> Plan {
        let core = &self.core.progress;
        let has_trained = progress.data.items_total > 0;
        Plan {
            iterators: usize::try_from(to_ask).unwrap_or(usize::MAX),
            batches: usize::try_from(progress.batches).unwrap_or(usize::MAX),
            phase: core.state.phase,
            has_trained,
            recorded: has_trained.then_some(progress.data),
            is_only_loader: true,
            is_first: true,
            backup_dir: core.backup_dir.clone(),
            changes: core.changes.clone(),
        }
    }

    fn of_epoch<'l, O>(&self, slot: usize, source: Option<Source<'l, O>>) -> Batches<'l, O> {
        Batches {
            role: Role::Epoch {
                slot,
                epoch: self.epoch_count,
            },
            source: source.unwrap_or(Source::Over),
            most_in_epoch: None,
        }
    }

    /// The epoch begins anew, because batches or data are changed on purpose.
    fn begin_epoch_anew(&mut self, change: Change) -> Result<(), BackupError> {
        if self.loaders.has_several_open() {
            return Err(BackupError::SeveralLoaders { change });
        }
        self.core.progress.begins_epoch_anew(change);
        self.loaders.begin_epoch_anew();
        Ok(())
    }

    fn skip<O>(
        &self,
        batches: &mut impl Iterator<Item = O>,
        trained: u64,
    ) -> Result<(), BackupError> {
        for found in 0..trained {
            if batches.next().is_none() {
                return Err(BackupError::DataMismatch {
                    path: self.core.progress.backup_dir.clone(),
                    what: "the number of batches that an iterator gives, at least,",
                    recorded: usize::try_from(trained).unwrap_or(usize::MAX),
                    found: usize::try_from(found).unwrap_or(usize::MAX),
                    change: Change::Data,
                });
            }
        }
        Ok(())
    }
}

impl<S> fmt::Debug for Session<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("position", &self.core.progress.state.position)
            .finish_non_exhaustive()
    }
}

fn of_training(error: TrainingError) -> BackupError {
    BackupError::from_training(Arc::new(error))
}
