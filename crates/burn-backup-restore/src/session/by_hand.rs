//! The session of a hand-written training loop.

mod batches;
mod drop_notice;
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
use crate::messages::{announce, warn};
use crate::parts::State;
use crate::position::Position;
use crate::preemption::AfterPreemption;
use crate::state::Phase;
pub use batches::Batches;
use drop_notice::DropNotice;
use loaders::Loaders;
use metric_lines::MetricLines;
use metric_values::MetricValues;

/// What a loop must do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flow {
    /// Continue with the next batch or epoch.
    Continue,
    /// The training is being stopped: leave the loop and call [`Session::finish`], which saves the training.
    Stop,
}

impl Flow {
    /// Whether the training is being stopped.
    pub fn is_stop(self) -> bool {
        self == Self::Stop
    }
}

/// Backs up and resumes a training with a hand-written loop.
///
/// [`BackupAndRestore::resume`](crate::BackupAndRestore::resume) creates it. The loop then reports its progress with
/// these calls:
///
/// | call | when |
/// |---|---|
/// | [`epochs`](Self::epochs) | gives the remaining epochs |
/// | [`batches`](Self::batches), [`batches_of`](Self::batches_of), [`stream`](Self::stream), [`steps`](Self::steps) | give the remaining batches |
/// | [`next`](Self::next) | fetches a batch, or gives none if the training is being stopped |
/// | [`stepped`](Self::stepped) or [`accumulated`](Self::accumulated) | after each batch |
/// | [`trained`](Self::trained) | before a validation |
/// | [`epoch_done`](Self::epoch_done) | after the epoch and its validation |
/// | [`roll_back`](Self::roll_back) | after the loop, to go back after a divergence |
/// | [`finish`](Self::finish) | at the end |
///
/// Between two calls, the state belongs to the program: each call borrows it only briefly. Each batch counts as one
/// step, and backups are taken between two batches.
///
/// Backups are taken in `stepped`, and a restart continues with the following [`next`](Self::next). Code between the
/// two does not run after a restart. So everything that belongs to a step must come before [`stepped`](Self::stepped),
/// including a validation in the middle of an epoch.
///
/// Random numbers are exact too: the device is seeded before each batch is fetched, after each step, and before each
/// epoch. Random values that the loop draws once and uses in many steps must be the same after a restart. Put them into
/// the state, or draw them before [`resume`](crate::BackupAndRestore::resume).
///
/// If a session is dropped before [`finish`](Self::finish), by an early return or a panic, the last backup is kept.
/// The program resumes from it when it runs again.
///
/// # Examples
///
/// A generator and a critic, with an average of the generator's weights. Both have their own batches, and the critic
/// trains on two batches for each one of the generator:
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
/// Gradient accumulation over four batches, and a long validation that a restart does not repeat:
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
    /// Dropped after `core`, which waits for the backup in flight.
    drop_notice: DropNotice,
    loaders: Loaders,
    metrics: Option<MetricLines>,
    values: MetricValues,
    /// The devices that the training draws random numbers on. The main one comes first.
    devices: Vec<Device>,
    has_fusion: bool,
    after: AfterPreemption,
    /// The number of epochs that this process has completed or rolled back.
    epoch_count: u64,
    is_validating: bool,
    has_split_begun: bool,
    has_stepped_in_epoch: bool,
    has_warned_of_workers: bool,
    /// The number of epochs of the loop, if the loop has given it.
    num_epochs: Option<usize>,
    /// The number of steps that the loop has given, with the index of the stream.
    num_steps: Vec<(usize, u64)>,
    /// The number of rollbacks in this process.
    rollbacks: u64,
    state: PhantomData<fn(&S)>,
}

impl<S: State> Session<S> {
    /// The remaining epochs out of `num_epochs`, counted from 1.
    ///
    /// The range is empty if the training is complete, or if an earlier run left the loop early.
    pub fn epochs(&mut self, num_epochs: usize) -> RangeInclusive<usize> {
        self.num_epochs = Some(
            self.num_epochs
                .map_or(num_epochs, |more| more.max(num_epochs)),
        );
        let progress = &mut self.core.progress;
        progress.num_epochs = progress.num_epochs.max(num_epochs);
        let epoch = progress.state.position.epoch;
        if self.was_left_early() {
            return RangeInclusive::new(1, 0);
        }
        if self.core.progress.remaining(num_epochs) == Remaining::Unfinished {
            self.core.warn_if_unprotected(num_epochs, None);
        }
        epoch..=num_epochs
    }

    /// Reports that a batch is trained, and that `state` is the state after the optimizer step. If a backup is due,
    /// it is taken here.
    ///
    /// Returns whether the training is being stopped. The result may be ignored, because [`next`](Self::next) then
    /// gives no batch.
    pub fn stepped(&mut self, state: &S) -> Flow {
        self.core.window.set_mid_step(false);
        if !self.core.window.accumulates() {
            self.core.window.release();
        }
        self.step_done(state, true)
    }

    /// Reports that the gradients of a batch were accumulated, without an optimizer step.
    ///
    /// Accumulated gradients can't be saved. If a backup is due, it is taken after the next
    /// [`stepped`](Self::stepped). If the training is stopped before that, it goes back to the last optimizer step.
    /// Gradients may be accumulated across the end of an epoch.
    pub fn accumulated(&mut self, state: &S) -> Flow {
        self.core.window.accumulates_from_here();
        self.core.window.set_mid_step(true);
        self.step_done(state, false)
    }

    /// Reports that the optimizer is about to use accumulated gradients. This call is optional: without it, the step
    /// also needs memory for the previous state.
    pub fn optimizer_begins(&mut self) {
        self.core.window.release();
    }

    /// Reports that accumulated gradients are discarded: `state` is unchanged since the last optimizer step.
    pub fn gradients_dropped(&mut self, state: &S) {
        self.core.window.set_mid_step(false);
        self.core.hold(state);
    }

    /// Reports that all batches of the epoch are trained and that its validation comes next. Seeds the device for the
    /// validation.
    ///
    /// A restart after this call gives no batches of this epoch and starts with the validation. A loop that does
    /// nothing between the last batch and [`epoch_done`](Self::epoch_done) does not need to call it.
    #[must_use = "leave the loop before the validation if the training is being stopped"]
    pub fn trained(&mut self, state: &S) -> Flow {
        if self.is_left() {
            return Flow::Stop;
        }
        self.end_training_split();
        if !self.core.window.is_mid_step() {
            // Later changes by the loop are saved with the end of the epoch, or not at all.
            self.core.hold(state);
        }
        self.is_validating = true;
        self.values.clear();
        for device in &self.devices {
            self.core.progress.seed_validation(device);
        }
        Flow::Continue
    }

    /// Reports that the epoch and its validation are done. [`SaveFreq::Epoch`](crate::SaveFreq::Epoch) takes its
    /// backup here.
    #[must_use = "leave the loop if the training is being stopped"]
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
        if !self.core.window.is_mid_step() {
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
            self.core.check_for_notice(state, &mut NoMetrics);
        }
        self.flow()
    }

    /// Logs a value of a metric: the mean of `items` items. Before [`trained`](Self::trained), it is a training
    /// value, afterwards a validation value.
    ///
    /// The validation result of each metric is stored in later backups, and [`Keep::best`](crate::Keep::best) uses
    /// it. With [`metric_logs`](crate::BackupAndRestore::metric_logs), each value is also written to Burn's files.
    /// After a restart, these files are the same as those of an uninterrupted training.
    ///
    /// Divergences are detected in the training values (see
    /// [`on_divergence`](crate::BackupAndRestore::on_divergence)). Each value belongs to the batches fetched last.
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

    /// Also seeds this device before each batch. Call it if the program draws random numbers on several devices.
    pub fn also_on(&mut self, device: &Device) {
        self.has_fusion |= burn_api::has_fusion(device);
        self.devices.push(device.clone());
    }

    /// The position of the training.
    pub fn position(&self) -> Position {
        self.core.progress.state.position
    }

    /// Whether the training was resumed from a backup.
    pub fn is_restored(&self) -> bool {
        self.core.progress.is_restored()
    }

    /// Whether the training is being stopped. A long validation may then be left early. It runs again when the
    /// training is resumed, from the state that was passed to [`trained`](Self::trained).
    pub fn is_stopping(&self) -> bool {
        self.is_left()
    }

    /// Burn's interrupter, which stops the training from another thread or from the loop.
    pub fn interrupter(&self) -> Interrupter {
        self.core.interrupter().clone()
    }

    /// A handle that works during the training and after it.
    pub fn handle(&self) -> BackupHandle {
        self.drop_notice.handle().clone()
    }

    /// Whether an earlier run left the loop early without being stopped. If so, prints a line about it.
    fn was_left_early(&self) -> bool {
        let state = &self.core.progress.state;
        if state.early_stopped {
            announce(&format!(
                "an earlier run left the training loop early, at {}: nothing is trained; to start a new training, \
                 delete the backup directory or use another one",
                state.position,
            ));
        }
        state.early_stopped
    }

    /// Whether the loop must end, because the training is being stopped or has diverged.
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

    /// Counts everything that was fetched and computed as part of the training.
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
                self.drop_notice.handle(),
                "this training runs WITHOUT BACKUPS: the loop did not call Session::stepped in this epoch: call it \
                 after each batch",
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
