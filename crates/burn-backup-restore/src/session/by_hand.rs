//! The session of a loop that is written by hand.

mod batches;
mod farewell;
mod fetch;
mod finish;
mod loaders;
mod metric_lines;
mod metric_values;
mod open;
mod results;
mod roll_back;
mod sources;

use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::sync::Arc;

use burn::tensor::Device;
use burn::train::metric::store::Split;
use burn::train::{Interrupter, TrainingError};

use super::{Core, NoMetrics, Remaining};
use crate::burn_api;
use crate::error::BackupError;
use crate::handle::BackupHandle;
use crate::parts::State;
use crate::position::Position;
use crate::preemption::AfterPreemption;
use crate::say::{announce, warn};
use crate::state::Phase;
pub use batches::Batches;
use farewell::Farewell;
use loaders::Loaders;
use metric_lines::MetricLines;
use metric_values::MetricValues;

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
/// | [`roll_back`](Self::roll_back) | after the loop, if it goes back after a divergence |
/// | [`finish`](Self::finish) | at last |
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
    values: MetricValues,
    /// The one that the training draws on first, and others.
    devices: Vec<Device>,
    has_fusion: bool,
    after: AfterPreemption,
    /// How many epochs were begun in this process.
    epoch_count: u64,
    is_validating: bool,
    has_split_begun: bool,
    has_stepped_in_epoch: bool,
    has_warned_of_workers: bool,
    /// How many epochs the loop is to have, if it has said so.
    num_epochs: Option<usize>,
    /// How many steps, by the place of their stream.
    num_steps: Vec<(usize, u64)>,
    /// How often the training went back in this process.
    rollbacks: u64,
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
        if self.is_left() {
            return Flow::Stop;
        }
        self.end_training_split();
        if !self.core.window.is_between() {
            // What the loop changes from here on is saved with the end of the epoch, or not at all.
            self.core.hold(state);
        }
        self.is_validating = true;
        self.values.clear();
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
            if self.is_left() {
                return Flow::Stop;
            }
            self.end_training_split();
        }
        let epoch = self.core.progress.state.position.epoch;
        if let Some(metrics) = &mut self.metrics {
            metrics.end_split(epoch, Split::Valid);
        }
        let metric_history = self.core.metric_history();
        for (metric, value) in self.values.take() {
            metric_history.record(&metric, &Split::Valid, epoch, value);
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

    /// Logs a value of a metric, which is the mean of so many `items`. Before [`trained`](Self::trained) it is one of
    /// the training, and after it one of the validation.
    ///
    /// What a metric comes to in a validation is in the backups that follow, and
    /// [`Keep::best`](crate::Keep::best) goes by it. If [`metric_logs`](crate::BackupAndRestore::metric_logs) are asked
    /// for, each value is written to Burn's files as well, which after a restart are those of an undisturbed training.
    ///
    /// Divergences are looked for in the values of the training (see
    /// [`on_divergence`](crate::BackupAndRestore::on_divergence)), which belong to the batches fetched last.
    pub fn log(&mut self, metric: &str, value: f64, items: usize) {
        if !self.is_validating {
            let is_in_step = self.loaders.has_pending();
            self.core.look_at(metric, value, is_in_step);
        }
        if let Some(metrics) = &mut self.metrics {
            let split = match self.is_validating {
                true => Split::Valid,
                false => Split::Train,
            };
            let epoch = self.core.progress.state.position.epoch;
            metrics.log(metric, value, items, epoch, &split);
        } else if self.is_validating {
            self.values.add(metric, value, items);
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
        self.is_left()
    }

    /// Stops the training: from another thread, or from the loop.
    pub fn interrupter(&self) -> Interrupter {
        self.core.interrupter().clone()
    }

    /// A handle that answers while the training runs and after it.
    pub fn handle(&self) -> BackupHandle {
        self.farewell.handle().clone()
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

    /// Whether the loop is to be left: the training is being stopped, or has diverged.
    fn is_left(&self) -> bool {
        self.core.interrupter().should_stop() || self.core.has_diverged()
    }

    fn flow(&self) -> Flow {
        match self.is_left() {
            true => Flow::Stop,
            false => Flow::Continue,
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

    fn seed_before_epoch(&self) {
        for device in &self.devices {
            self.core.progress.seed_before_epoch(device);
        }
    }

    /// What was fetched and computed is part of the training.
    fn commit(&mut self) {
        let state = &mut self.core.progress.state;
        self.loaders.commit(state);
        state.results.clear();
    }

    fn end_training_split(&mut self) {
        if self.has_stepped_in_epoch {
            self.core.warn_if_unseen();
        }
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
