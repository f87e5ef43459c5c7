//! The settings of a program: plain data with builder methods.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

#[cfg(feature = "testing")]
use burn::tensor::Device;
use burn::train::ExecutionStrategy;
use burn::train::checkpoint::CheckpointingStrategy;
#[cfg(feature = "mirror")]
use burn_backup_remote::ObjectStore;
#[cfg(feature = "testing")]
use burn_backup_store::Filesystem;
use burn_backup_store::RealFilesystem;

use crate::change::{Change, Changes};
use crate::divergence::{Divergence, DivergenceRule};
use crate::error::BackupError;
use crate::event::Event;
use crate::handle::BackupHandle;
use crate::keep::Keep;
#[cfg(feature = "mirror")]
use crate::mirror::Mirror;
use crate::on_backup_error::OnBackupError;
use crate::parts::State;
use crate::preemption::Preemption;
use crate::save_freq::SaveFreq;
use crate::threads::Threads;
use crate::trigger::RETRY_AFTER;
use crate::which::Which;

/// Backs up a training while it runs, and resumes it when the program runs again.
///
/// Create it with the backup directory, which belongs to one training, and pass it to
/// [`backup_and_restore`](crate::BackupExt::backup_and_restore). Invalid settings are reported when the training
/// starts. `launch` then returns a result that contains the [`BackupError`], and [`resume`](Self::resume) returns it.
/// No batch is trained.
///
/// # Example
///
/// ```
/// use burn_backup_restore::{BackupAndRestore, SaveFreq};
///
/// let backup = BackupAndRestore::new("backup")
///     .save_freq(SaveFreq::Steps(500))
///     .keep_last(2);
/// let handle = backup.handle();
/// assert_eq!(handle.last_backup(), None);
/// ```
pub struct BackupAndRestore {
    pub(crate) backup_dir: PathBuf,
    pub(crate) frequency: SaveFreq,
    pub(crate) keep: Keep,
    /// The backup to resume from, if it is not the newest one.
    pub(crate) restore_from: Which,
    pub(crate) delete_checkpoint: bool,
    pub(crate) on_error: OnBackupError,
    pub(crate) divergence: Divergence,
    pub(crate) divergence_rule: DivergenceRule,
    pub(crate) run_seed: Option<u64>,
    pub(crate) reseed_steps: bool,
    pub(crate) refuse_nan: bool,
    pub(crate) snapshot: Snapshot,
    pub(crate) execution: Option<ExecutionStrategy>,
    pub(crate) gradient_checkpointing: bool,
    /// Taken at the launch.
    pub(crate) preemption: Mutex<Option<Preemption>>,
    pub(crate) changes: Changes,
    pub(crate) label: Option<String>,
    /// The directory of the backup whose weights a new training begins with.
    pub(crate) warm_start: Option<PathBuf>,
    pub(crate) allow_short_epochs: bool,
    pub(crate) fast_forward: FastForward,
    /// The program's own states. Taken at the launch.
    pub(crate) states: Mutex<Option<Vec<NamedState>>>,
    pub(crate) metric_logs: Option<PathBuf>,
    pub(crate) has_artifacts: bool,
    pub(crate) checkpointing: Mutex<Option<Box<dyn CheckpointingStrategy>>>,
    pub(crate) dashboard: bool,
    #[cfg(feature = "testing")]
    pub(crate) ddp_on_host: Option<Vec<Device>>,
    pub(crate) threads: Threads,
    /// How long to wait after a failed backup before the next attempt.
    pub(crate) retry_after: Duration,
    pub(crate) handle: BackupHandle,
}

/// A state of the program's own, with its name.
pub(crate) type NamedState = (String, Box<dyn State + Send>);

/// How a backup gets a consistent copy of the training's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Snapshot {
    /// The backup shares the training's tensors and reads them in the background. Sharing takes microseconds,
    /// whatever the size of the model.
    ///
    /// While the backup reads, the next training steps need additional memory. On the device, it is at most the size
    /// of the state (model and optimizer). On the host, it is at most the size of the optimizer's state.
    ///
    /// On a GPU, the training thread requests the tensors itself, which takes about 40 microseconds per tensor. (With
    /// Burn's fusion, tensors that another thread requests can be lost: Burn's issues 3990 and 4347.) Their contents
    /// are then read in the background.
    ///
    /// On several GPUs, and on remote devices with fusion, this is the same as [`Blocking`](Self::Blocking).
    #[default]
    Shared,
    /// The training waits until its state is copied into host memory. The host holds this copy until it is written.
    /// Use it for devices that have no memory to spare.
    Blocking,
}

/// How data loaders return to their position when a training is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum FastForward {
    /// Requests as many iterators from each loader as the interrupted run did. Then skips the batches of the current
    /// epoch that are already trained. This is exact if the dataset and the batcher depend only on the index of an
    /// item, and on the epoch in a [`data::SamplerDataset`](crate::data::SamplerDataset).
    #[default]
    Skip,
    /// Loads all batches again that earlier runs have loaded, and discards them: training and validation batches of all
    /// epochs, in the same order. Use it for datasets and batchers with internal state, such as Burn's `SamplerDataset`
    /// with a seed, or a random generator for augmentation.
    ///
    /// It takes as long as the original loading, and needs a loader without Burn's workers. DDP does not support it.
    Replay,
}

impl BackupAndRestore {
    /// Backs up into `backup_dir`, which belongs to one training and is created if it is missing. A relative path is
    /// resolved once, by this call.
    pub fn new(backup_dir: impl Into<PathBuf>) -> Self {
        let backup_dir = absolute(backup_dir.into());
        Self {
            handle: BackupHandle::new(backup_dir.clone(), Arc::new(RealFilesystem)),
            backup_dir,
            frequency: SaveFreq::default(),
            keep: Keep::default(),
            restore_from: Which::Newest,
            delete_checkpoint: true,
            on_error: OnBackupError::default(),
            divergence: Divergence::default(),
            divergence_rule: DivergenceRule::default(),
            run_seed: None,
            reseed_steps: true,
            refuse_nan: true,
            snapshot: Snapshot::default(),
            execution: None,
            gradient_checkpointing: false,
            preemption: Mutex::default(),
            changes: Changes::default(),
            label: None,
            warm_start: None,
            allow_short_epochs: false,
            fast_forward: FastForward::default(),
            states: Mutex::default(),
            metric_logs: None,
            has_artifacts: false,
            checkpointing: Mutex::default(),
            dashboard: true,
            #[cfg(feature = "testing")]
            ddp_on_host: None,
            retry_after: RETRY_AFTER,
            threads: Threads::default(),
        }
    }

    /// How often to take a backup: [`SaveFreq::Epoch`] (the default), [`SaveFreq::Steps`] (or just a number of
    /// batches), [`SaveFreq::Every`] (or just a duration), [`SaveFreq::auto`], [`SaveFreq::Continuous`], or
    /// [`SaveFreq::Never`].
    pub fn save_freq(mut self, frequency: impl Into<SaveFreq>) -> Self {
        self.frequency = frequency.into();
        self
    }

    /// Keeps the newest `backups` backups; 1 by default.
    ///
    /// While the training runs, the directory uses the space of one more backup. That is either the backup being
    /// written, or an old one whose files the next backup overwrites.
    pub fn keep_last(self, backups: usize) -> Self {
        self.keep(Keep::last(backups))
    }

    /// Which backups are kept: the newest ones, the best ones, one per number of epochs or per interval of time, or a
    /// combination. See [`Keep`]. This replaces [`keep_last`](Self::keep_last): the last call of the two wins.
    ///
    /// A training can resume from any kept backup ([`restore_from`](Self::restore_from)), and
    /// [`BackupHandle::export`] writes its model to a file. When the training ends, all backups are deleted, unless
    /// [`delete_checkpoint`](Self::delete_checkpoint) is turned off.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_backup_restore::{BackupAndRestore, Direction, Keep};
    ///
    /// let backup = BackupAndRestore::new("backup")
    ///     .keep(Keep::last(2).and(Keep::best("Loss", Direction::Lowest, 3)))
    ///     .delete_checkpoint(false);
    /// ```
    pub fn keep(mut self, keep: Keep) -> Self {
        self.keep = keep;
        self
    }

    /// Resumes from this backup instead of the newest one. Newer backups are moved to the directory `aside` in the
    /// backup directory, and a printed line says so.
    ///
    /// The call may stay in the program. Later backups record the request, so a restart resumes from the newest of
    /// them. A start that requests another backup goes back to that one. A start without this call resumes from the
    /// newest backup, and forgets the request. If the call is added again later, the training goes back again.
    ///
    /// If the backup does not exist, the training does not start and nothing is changed.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_backup_restore::{BackupAndRestore, Which};
    ///
    /// let backup = BackupAndRestore::new("backup").restore_from(Which::Epoch(7));
    /// ```
    pub fn restore_from(mut self, which: Which) -> Self {
        self.restore_from = which;
        self
    }

    /// Keeps two backups if `double` is true, otherwise one. This is Keras's name for [`keep_last`](Self::keep_last).
    pub fn double_checkpoint(self, double: bool) -> Self {
        self.keep_last(if double { 2 } else { 1 })
    }

    /// Whether the backups are deleted when the training completes; true by default.
    ///
    /// The model that `launch` returns is lost if the process dies before the program has saved it. To prevent that,
    /// turn this off and call [`BackupHandle::discard`] after saving.
    pub fn delete_checkpoint(mut self, delete: bool) -> Self {
        self.delete_checkpoint = delete;
        self
    }

    /// How the training reacts to a failed backup; by default it continues.
    pub fn on_backup_error(mut self, on_error: OnBackupError) -> Self {
        self.on_error = on_error;
        self
    }

    /// How the training reacts when it diverges: its loss is NaN or explodes. By default, metrics are not checked,
    /// and only a backup of a model that contains NaN is refused.
    ///
    /// With Burn's builders, this needs [`artifacts`](Self::artifacts) or [`metric_logs`](Self::metric_logs), because
    /// Burn passes metrics only to loggers. A hand-written loop reports its values with
    /// [`Session::log`](crate::Session::log).
    pub fn on_divergence(mut self, divergence: Divergence) -> Self {
        self.divergence = divergence;
        self
    }

    /// Which metric values count as a divergence. By default, these are values of the metric "Loss" that are NaN,
    /// infinite, or far above the previous ones.
    pub fn divergence_rule(mut self, rule: DivergenceRule) -> Self {
        self.divergence_rule = rule;
        self
    }

    /// Sets the seed from which all random numbers of the steps are derived.
    ///
    /// By default, the seed is drawn from the device's own generator when the training first starts, and is stored in
    /// the backup directory. A program that seeds its device (`device.seed(42)`) therefore gives the same result each
    /// time. Every start draws the seed once, so the generator is always left in the same state.
    pub fn seed(mut self, run_seed: u64) -> Self {
        self.run_seed = Some(run_seed);
        self
    }

    /// Whether the device is seeded, from the run seed and the batch number, before each training batch is fetched;
    /// true by default.
    ///
    /// If it is off, the random numbers of the steps (augmentation in the batcher, dropout, noise) are those that
    /// Burn draws without this crate. After an interruption they differ from those of an uninterrupted training: the
    /// result is as good, but not the same. Models that draw no random numbers are unaffected.
    pub fn reseed_steps(mut self, reseed: bool) -> Self {
        self.reseed_steps = reseed;
        self
    }

    /// Allows a restart in which this setting has changed. Can be called several times.
    ///
    /// If the change is found, it is logged together with its consequences. If it is not found, this has no effect.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_backup_restore::{BackupAndRestore, Change};
    ///
    /// let backup = BackupAndRestore::new("backup")
    ///     .allow(Change::Schedule)
    ///     .allow(Change::BatchSize);
    /// ```
    pub fn allow(mut self, change: Change) -> Self {
        self.changes.allow(change);
        self
    }

    /// A fingerprint chosen by the program, such as a fold, a data version or a configuration. A restart with a
    /// different label is refused, unless [`Change::Label`] is allowed.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_backup_restore::BackupAndRestore;
    ///
    /// let fold = 3;
    /// let backup = BackupAndRestore::new(format!("backup/{fold}")).label(format!("fold {fold}, data v2"));
    /// ```
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Starts a new training with the weights of the newest backup in `backup_dir`, which belongs to another
    /// training. The optimizer, the scheduler and the position start fresh. Once this training has a backup of its
    /// own, a restart resumes from that backup.
    ///
    /// If the models differ, the training is refused, and the error names the parameters that differ, as at a
    /// restart. No other training may use `backup_dir` at the same time. The directory is left unchanged.
    pub fn warm_start(mut self, backup_dir: impl Into<PathBuf>) -> Self {
        self.warm_start = Some(absolute(backup_dir.into()));
        self
    }

    /// Accepts the end of an epoch even if its loader gave fewer items than it promised.
    ///
    /// By default, this is an error. A panicking worker of Burn's loader looks exactly like a short epoch, and the
    /// rest of the epoch would be skipped silently. A loader that always drops an incomplete last batch is recognized
    /// in its first epoch and does not need this call.
    pub fn allow_short_epochs(mut self) -> Self {
        self.allow_short_epochs = true;
        self
    }

    /// How the loaders return to their position when a training is restored; [`FastForward::Skip`] by default.
    pub fn fast_forward(mut self, fast_forward: FastForward) -> Self {
        self.fast_forward = fast_forward;
        self
    }

    /// Whether a backup is refused if a floating-point parameter or running statistic contains NaN; true by default.
    ///
    /// A model with NaN can't be trained further, so the last backup without NaN is kept. That backup is kept, even
    /// when the training ends. A refused backup counts as failed.
    ///
    /// The check runs in the background. With [`SaveFreq::Never`], it also runs at the end, before the backup is
    /// deleted. Turn it off for a model that contains NaN on purpose.
    pub fn refuse_nan(mut self, refuse: bool) -> Self {
        self.refuse_nan = refuse;
        self
    }

    /// How a backup gets a consistent copy of the training's state. [`Snapshot::Shared`] (the default) takes
    /// microseconds and needs memory while the backup is written. [`Snapshot::Blocking`] makes the training wait and
    /// needs no additional device memory.
    pub fn snapshot(mut self, snapshot: Snapshot) -> Self {
        self.snapshot = snapshot;
        self
    }

    /// Where the training runs; by default on the first device of the learner's model, as in Burn. Use this instead of
    /// Burn's `with_training_strategy`. That call would replace this crate's strategy, and no backups would be taken.
    ///
    /// With several devices, one batch on each device counts as one step. Each device has its own share of the
    /// epoch's data. So in the middle of an epoch, a training can resume only with the same number of devices. At the
    /// start of an epoch, it can resume with any number of devices.
    ///
    /// # Example
    ///
    /// ```
    /// use burn::tensor::Device;
    /// use burn::train::{ExecutionStrategy, MultiDeviceOptim};
    /// use burn_backup_restore::BackupAndRestore;
    ///
    /// # fn devices() -> Vec<Device> { Vec::new() }
    /// let backup = BackupAndRestore::new("backup").execution(ExecutionStrategy::multi(
    ///     devices(),
    ///     MultiDeviceOptim::OptimMainDevice,
    /// ));
    /// ```
    pub fn execution(mut self, execution: ExecutionStrategy) -> Self {
        self.execution = Some(execution);
        self
    }

    /// Recomputes activations in the backward pass instead of storing them, like Burn's
    /// `SupervisedTraining::gradient_checkpointing`. Burn does not pass its own setting to a strategy that replaces
    /// Burn's, so call this method when you use backups. As in Burn, the model must also be created on such a device:
    /// `device.autodiff().gradient_checkpointing()`.
    pub fn gradient_checkpointing(mut self) -> Self {
        self.gradient_checkpointing = true;
        self
    }

    /// Saves the training and stops it cleanly when a notice says that the machine or the process will end soon: see
    /// [`Preemption`]. Works with any [`SaveFreq`], including [`SaveFreq::Never`].
    ///
    /// # Example
    ///
    /// ```
    /// use burn_backup_restore::{BackupAndRestore, Preemption};
    ///
    /// let backup = BackupAndRestore::new("backup").save_before_preemption(Preemption::signals());
    /// ```
    pub fn save_before_preemption(mut self, preemption: Preemption) -> Self {
        self.preemption = Mutex::new(Some(preemption));
        self
    }

    /// Also saves and restores a state of the program's own under this name, which consists of lower-case letters,
    /// digits and underscores. Can be called several times.
    ///
    /// With Burn's builder, pass a clone of a [`SharedState`](crate::SharedState), and give another clone to the
    /// model's `step`, a metric or a callback. The state is saved between two batches, and restored before the first
    /// step. On several devices, it is saved when all of them have trained their batch. Under DDP, it is saved when the
    /// first worker has trained its batch. Changes that other workers make at the same time may or may not be included.
    ///
    /// Burn's records do not contain plain fields of a model, or fields marked `#[module(skip)]`. Such data is saved
    /// only if it is given here.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_backup_restore::{BackupAndRestore, SharedState, Value};
    ///
    /// let best_loss = SharedState::new(Value(f64::INFINITY));
    /// let backup = BackupAndRestore::new("backup").state("best_loss", best_loss.clone());
    /// ```
    pub fn state(mut self, name: impl Into<String>, state: impl State + Send + 'static) -> Self {
        let states = self
            .states
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        let states = states.get_or_insert_default();
        states.push((name.into(), Box::new(state)));
        self
    }

    /// Writes the metric logs, in Burn's format and at Burn's places in `directory`. After a restart they are the
    /// same, line by line, as those of an uninterrupted training. Pass the directory that the training was created
    /// with. These files replace Burn's own.
    ///
    /// Burn's own logger truncates each file that it opens. After an interruption inside an epoch, the epoch's earlier
    /// lines are therefore lost. The epoch value of the training metrics then also lacks these lines, and early
    /// stopping may use that value.
    ///
    /// For some metrics the epoch value is not the mean of its lines: perplexity, AUROC, F-scores. Such metrics can't
    /// be continued inside an epoch. Their last line covers only the rest of the epoch, and a line in the log says
    /// so.
    ///
    /// Loggers given with Burn's `with_metric_logger` are used as well, but none of them may write to the same
    /// directory.
    pub fn metric_logs(mut self, directory: impl Into<PathBuf>) -> Self {
        self.metric_logs = Some(absolute(directory.into()));
        self
    }

    /// Makes everything that Burn writes into the training's artifact directory the same as in an uninterrupted
    /// training. Pass the directory that the training was created with:
    ///
    /// - Metric logs: as with [`metric_logs`](Self::metric_logs). If the program clears the directory when it starts,
    ///   the results of past epochs are written again.
    /// - Checkpoints: as with [`checkpointing_strategy`](Self::checkpointing_strategy), using Burn's default strategy
    ///   unless another one is given there.
    /// - The summary at the end, which then covers all epochs.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_backup_restore::BackupAndRestore;
    ///
    /// let backup = BackupAndRestore::new("backup").artifacts("artifacts");
    /// ```
    pub fn artifacts(mut self, directory: impl Into<PathBuf>) -> Self {
        self.has_artifacts = true;
        self.metric_logs(directory)
    }

    /// Which of Burn's checkpoints are kept. Use this instead of Burn's `with_checkpointing_strategy`. After a
    /// restart, the strategy makes the same decisions as in an uninterrupted training.
    ///
    /// A strategy remembers its decisions, and Burn offers no way to read them. On a restart, the strategy therefore
    /// decides again for all past epochs, based on the metrics in the backup, but its actions are not repeated. (Burn
    /// writes its checkpoints on other threads and does not sync them. A checkpoint that a kill or a power cut left
    /// half written is not written again.)
    ///
    /// # Example
    ///
    /// ```
    /// use burn::train::checkpoint::MetricCheckpointingStrategy;
    /// use burn::train::metric::LossMetric;
    /// use burn::train::metric::store::{Aggregate, Direction, Split};
    /// use burn_backup_restore::BackupAndRestore;
    ///
    /// let best = MetricCheckpointingStrategy::new(
    ///     &LossMetric::new(),
    ///     Aggregate::Mean,
    ///     Direction::Lowest,
    ///     Split::Valid,
    /// );
    /// let backup = BackupAndRestore::new("backup").checkpointing_strategy(best);
    /// ```
    pub fn checkpointing_strategy(
        mut self,
        strategy: impl CheckpointingStrategy + 'static,
    ) -> Self {
        self.checkpointing = Mutex::new(Some(Box::new(strategy)));
        self
    }

    /// Mirrors every backup to a place that outlives the machine: a URL such as `s3://bucket/prefix`, or a [`Mirror`]
    /// with more settings. On a machine with an empty disk or an older backup, the newest backup is fetched from the
    /// mirror at the start.
    ///
    /// Backups are first written to the disk, as without a mirror, and uploaded in the background. If the link is
    /// slow, some backups are skipped, and the newest one is uploaded next. At the end, the training waits until the
    /// last backup is uploaded.
    ///
    /// A mirror belongs to one training. See [`Mirror`] for the URLs and where credentials come from.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_backup_restore::{BackupAndRestore, Mirror};
    ///
    /// let backup = BackupAndRestore::new("backup").mirror("s3://bucket/run-7");
    /// let slowly = Mirror::new("gs://bucket/run-7").max_bytes_per_second(20_000_000);
    /// let backup = BackupAndRestore::new("backup").mirror(slowly);
    /// ```
    #[cfg(feature = "mirror")]
    pub fn mirror(self, mirror: impl Into<Mirror>) -> Self {
        self.handle.set_mirror(mirror.into());
        self
    }

    /// Mirrors to an object store that the program has created, under `prefix`. Use it for credentials and clients
    /// that no URL describes.
    ///
    /// # Example
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use burn_backup_restore::BackupAndRestore;
    /// use object_store::memory::InMemory;
    ///
    /// let store = Arc::new(InMemory::new());
    /// let backup = BackupAndRestore::new("backup").mirror_to(store, "run-7");
    /// ```
    #[cfg(feature = "mirror")]
    pub fn mirror_to(self, store: Arc<dyn ObjectStore>, prefix: impl Into<String>) -> Self {
        self.mirror(Mirror::with_store(store, prefix))
    }

    /// Calls `callback` with each event of the backups: a restore, a commit, a failure, a notice, the end, and so on
    /// (see [`Event`]). Use it for a chat, a monitor, or a progress bar of your own.
    ///
    /// The callback runs on its own thread, in the order of the events. It may be slow, because the training does not
    /// wait for it. A panic in it is logged, and later events are still delivered. At most 256 events wait. If there
    /// are more, the oldest ones are dropped, and [`Event::Dropped`] counts them. The training's end waits until all
    /// events are delivered, for at most 5 seconds.
    ///
    /// If this is called twice, only the last callback is used.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_backup_restore::BackupAndRestore;
    ///
    /// let backup = BackupAndRestore::new("backup").on_event(|event| log::info!("{event}"));
    /// ```
    pub fn on_event(self, callback: impl FnMut(Event) + Send + 'static) -> Self {
        self.handle.listen(Box::new(callback));
        self
    }

    /// Whether the training's dashboard shows a text metric "Backup"; true by default. It shows the last committed
    /// position, when it was saved (a time of day, UTC), and any failure since. Burn's file logger does not write
    /// this metric, because it skips every value that is "N/A". Other loggers may write it.
    ///
    /// If a restore, or the wait for the mirror at the end, takes more than a second, the bottom border of the
    /// dashboard shows its progress. With false, the border is left alone: use that with a full-screen renderer of
    /// your own.
    pub fn dashboard(mut self, dashboard: bool) -> Self {
        self.dashboard = dashboard;
        self
    }

    /// Trains as under DDP, but combines the gradients on the host, so that tests can run that loop without CUDA.
    #[cfg(feature = "testing")]
    pub fn ddp_on_host(mut self, devices: Vec<Device>) -> Self {
        self.ddp_on_host = Some(devices);
        self
    }

    /// Uses `filesystem` for every call that concerns the backup directory, so that tests can inject faults. Handles
    /// taken before this call keep the previous filesystem.
    #[cfg(feature = "testing")]
    pub fn filesystem(mut self, filesystem: Arc<dyn Filesystem>) -> Self {
        self.handle.set_filesystem(filesystem);
        self
    }

    /// Waits this long before the next attempt after a failed backup, and twice as long after each further failure in
    /// a row. Tests use it to let one backup fail and the next one succeed.
    #[cfg(feature = "testing")]
    pub fn retry_after(mut self, first: Duration) -> Self {
        self.retry_after = first;
        self
    }

    /// Reports a hang only after at least this long without progress, so that tests can simulate a hanging training.
    #[cfg(feature = "testing")]
    pub fn hung_after(self, least: Duration) -> Self {
        self.handle.hung_after(least);
        self
    }

    /// Limits the number of threads for devices, so that tests can run out of them.
    #[cfg(feature = "testing")]
    pub fn limit_threads(mut self, threads: usize) -> Self {
        self.threads = Threads::limited_to(threads);
        self
    }

    /// A handle that works during the training and after it.
    pub fn handle(&self) -> BackupHandle {
        self.handle.clone()
    }

    /// Whether a strategy for Burn's checkpoints was given.
    pub(crate) fn has_checkpointing_strategy(&self) -> bool {
        let strategy = self.checkpointing.lock();
        let strategy = strategy.unwrap_or_else(PoisonError::into_inner);
        strategy.is_some()
    }

    /// Checks everything that can be checked without reading the disk.
    pub(crate) fn validate(&self) -> Result<(), BackupError> {
        if !self.frequency.is_valid() {
            return Err(BackupError::InvalidFrequency {
                frequency: self.frequency,
            });
        }
        self.keep.check()?;
        self.divergence.validate()?;
        self.divergence_rule.validate()?;
        let rolls_back = matches!(self.divergence, Divergence::RollBack { .. });
        if rolls_back && self.frequency == SaveFreq::Never {
            return Err(BackupError::InvalidDivergence {
                setting: "Divergence::RollBack with SaveFreq::Never",
                needed: "a save_freq that takes backups, because a rollback needs one",
            });
        }
        if rolls_back && self.fast_forward == FastForward::Replay {
            return Err(BackupError::InvalidDivergence {
                setting: "Divergence::RollBack with FastForward::Replay",
                needed: "FastForward::Skip, with a dataset that has no internal state",
            });
        }
        Ok(())
    }
}

/// Makes the path absolute now, because the program may change its working directory later. A path that can't be
/// resolved, such as an empty one, is refused at the launch.
pub(crate) fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// Takes a value that is used only once.
pub(crate) fn taken<T>(once: &Mutex<Option<T>>) -> Option<T> {
    once.lock().unwrap_or_else(PoisonError::into_inner).take()
}
