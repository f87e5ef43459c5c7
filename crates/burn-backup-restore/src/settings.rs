//! What a program asks for: plain data, with its methods.

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

/// Backs a training up while it runs, and continues it when the program is run again.
///
/// Made with the directory that holds the backups, which belongs to one training, and given to
/// [`backup_and_restore`](crate::BackupExt::backup_and_restore). Wrong settings show when the training is
/// launched: it does not start, and its result carries the [`BackupError`].
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
    /// The backup to go on from, if that is not the newest.
    pub(crate) restore_from: Which,
    pub(crate) delete_checkpoint: bool,
    pub(crate) on_error: OnBackupError,
    pub(crate) divergence: Divergence,
    pub(crate) divergence_rule: DivergenceRule,
    pub(crate) run_seed: Option<u64>,
    pub(crate) reseed_steps: bool,
    pub(crate) skip_nan: bool,
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
    /// States of the program's own. Taken at the launch.
    pub(crate) states: Mutex<Option<Vec<NamedState>>>,
    pub(crate) metric_logs: Option<PathBuf>,
    pub(crate) has_artifacts: bool,
    pub(crate) checkpointing: Mutex<Option<Box<dyn CheckpointingStrategy>>>,
    pub(crate) dashboard: bool,
    #[cfg(feature = "testing")]
    pub(crate) ddp_on_host: Option<Vec<Device>>,
    pub(crate) threads: Threads,
    /// How long the next try waits after a backup that failed.
    pub(crate) retry_after: Duration,
    pub(crate) handle: BackupHandle,
}

/// A state of the program's own, and its name.
pub(crate) type NamedState = (String, Box<dyn State + Send>);

/// How the training is held still for a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Snapshot {
    /// The backup shares the training's tensors, which takes microseconds whatever the model's
    /// size, and reads them in the background. While it does, the training's next steps need memory
    /// of their own: up to the size of the state (model and optimizer) on the device, and that of
    /// the optimizer's state on the host.
    ///
    /// On a GPU the training's thread asks for the tensors, which takes some 40 microseconds each. They are read in
    /// the background. With Burn's fusion, tensors that another thread asks for can be lost (Burn's issues 3990 and
    /// 4347). On several, and on remote devices with fusion, it is the same as
    /// [`Blocking`](Self::Blocking).
    #[default]
    Shared,
    /// The training waits until its state is read into the host's memory, which then holds the
    /// state once until it is written. For devices that have no memory to spare.
    Blocking,
}

/// How loaders are brought to where they were when a training is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum FastForward {
    /// Loaders are asked for as many iterators as before, and the trained batches of the epoch in
    /// progress are skipped. This is exact if what a dataset and a batcher give follows from the index
    /// of an item, and from the epoch in a [`data::SamplerDataset`](crate::data::SamplerDataset).
    #[default]
    Skip,
    /// Everything that was loaded before is loaded once more, in the same order, and thrown away:
    /// training and validation batches of all epochs. For datasets and batchers with a state of their own,
    /// such as Burn's `SamplerDataset` with a seed, or a generator for augmentation. It takes as long
    /// as loading took, and needs a loader without workers of Burn's. Not for DDP.
    Replay,
}

impl BackupAndRestore {
    /// Backs up into `backup_dir`, which belongs to one training and is created when missing. A relative
    /// path is resolved here, once.
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
            skip_nan: true,
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

    /// How often to take a backup: [`SaveFreq::Epoch`] (the default), [`SaveFreq::Steps`] (or just
    /// a number of batches), [`SaveFreq::Every`] (or just a duration), [`SaveFreq::auto`],
    /// [`SaveFreq::Continuous`], or [`SaveFreq::Never`].
    pub fn save_freq(mut self, frequency: impl Into<SaveFreq>) -> Self {
        self.frequency = frequency.into();
        self
    }

    /// How many backups stay, the newest ones; 1 by default.
    ///
    /// While the training runs, the directory takes the space of one more: it is being written, or is an old
    /// one whose files the next one is written over.
    pub fn keep_last(self, backups: usize) -> Self {
        self.keep(Keep::last(backups))
    }

    /// Which backups stay: the newest ones, the best ones, one every so many epochs or so often, or all of these. See
    /// [`Keep`]. This takes the place of [`keep_last`](Self::keep_last), and the call that comes last counts.
    ///
    /// What stays can be gone on from ([`restore_from`](Self::restore_from)), and its model written to a file
    /// ([`BackupHandle::export`]). At the training's end all backups are deleted, unless
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

    /// Goes on from this backup, and not from the newest one. Those that are newer are moved to the directory `aside` in
    /// the backup directory, which is announced.
    ///
    /// The line may stay in the program. The backups that follow note what was asked for, so a restart goes on from the
    /// newest of them. A start that asks for another backup goes back to that one. A start that asks for none goes on
    /// from the newest one, and the next that asks goes back again.
    ///
    /// If the backup is not there, the training does not start, and nothing is changed.
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

    /// Keeps two backups if `double`, and one if not: Keras's name for
    /// [`keep_last`](Self::keep_last).
    pub fn double_checkpoint(self, double: bool) -> Self {
        self.keep_last(if double { 2 } else { 1 })
    }

    /// Whether the backup is deleted once the training has run to its end; true by default.
    ///
    /// The model that `launch` then returns is lost if the process dies before the program has
    /// saved it. To be safe from that too, turn this off and call [`BackupHandle::discard`] after
    /// saving.
    pub fn delete_checkpoint(mut self, delete: bool) -> Self {
        self.delete_checkpoint = delete;
        self
    }

    /// What a failed backup does to the training; by default it goes on.
    pub fn on_backup_error(mut self, on_error: OnBackupError) -> Self {
        self.on_error = on_error;
        self
    }

    /// What happens when the training diverges: a loss of NaN, or one that explodes. By default metrics are not
    /// looked at, and only a backup of a model that holds NaN is refused.
    ///
    /// With Burn's builders it needs [`artifacts`](Self::artifacts) or [`metric_logs`](Self::metric_logs): Burn shows
    /// metrics to loggers only. A loop that is written by hand gives its values with
    /// [`Session::log`](crate::Session::log).
    pub fn on_divergence(mut self, divergence: Divergence) -> Self {
        self.divergence = divergence;
        self
    }

    /// Which values of which metrics count as a divergence; by default those of the metric "Loss" that are NaN,
    /// infinite, or far above those before.
    pub fn divergence_rule(mut self, rule: DivergenceRule) -> Self {
        self.divergence_rule = rule;
        self
    }

    /// Gives the seed that all random numbers of the steps are derived from. By default it is
    /// drawn from the device's own generator when the training first starts, and kept in the backup
    /// directory: a program that seeds its device (`device.seed(42)`) gives the same result each time.
    /// Each start draws it once, so that the generator is left the same.
    pub fn seed(mut self, run_seed: u64) -> Self {
        self.run_seed = Some(run_seed);
        self
    }

    /// Whether the device is seeded, from the run seed and the number of the batch, before each
    /// training batch is fetched; true by default.
    ///
    /// Without it, the random numbers of the steps (augmentation in the batcher, dropout, noise)
    /// are those that Burn would draw without this crate, and after an interruption they are
    /// others than the undisturbed training would have drawn: the result is as good, but not the
    /// same. Models that draw nothing lose nothing.
    pub fn reseed_steps(mut self, reseed: bool) -> Self {
        self.reseed_steps = reseed;
        self
    }

    /// Lets a restart pass that finds this changed. Can be given several times.
    ///
    /// A change that is found is logged with what follows from it. One that is not there changes nothing.
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

    /// A fingerprint of the program's own, such as a fold, a version of the data or a configuration. A
    /// restart with another one is refused, unless [`Change::Label`] is allowed.
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

    /// Begins a new training with the weights of the newest backup in `backup_dir`, which is another
    /// training's. Optimizer, scheduler and position begin anew. Once this training has a backup of its
    /// own, that is what a restart continues.
    ///
    /// A model that differs is refused with the parameters that do, as at a restart. No training may be
    /// using `backup_dir` meanwhile; it is left as it is.
    pub fn warm_start(mut self, backup_dir: impl Into<PathBuf>) -> Self {
        self.warm_start = Some(absolute(backup_dir.into()));
        self
    }

    /// Takes the end of an epoch for what it is, also if its loader has given fewer items than it promised.
    ///
    /// By default that is an error: a worker of Burn's loader that panics looks just like it, and the rest
    /// of the epoch would be left out in silence. A loader that leaves out its last batch if that is not
    /// full is known by its first epoch and needs no such call.
    pub fn allow_short_epochs(mut self) -> Self {
        self.allow_short_epochs = true;
        self
    }

    /// How the loaders are brought to where they were when a training is restored:
    /// [`FastForward::Skip`] by default.
    pub fn fast_forward(mut self, fast_forward: FastForward) -> Self {
        self.fast_forward = fast_forward;
        self
    }

    /// Whether a backup is refused if a parameter or running statistic of floating point holds NaN;
    /// true by default.
    ///
    /// Such a training has gone wrong, and the last backup from before is worth more: it stays, at
    /// the training's end too. A refused backup counts as failed. The check is done in the
    /// background; with [`SaveFreq::Never`], once more at the end, before the backup is deleted.
    /// Turn it off for a model that holds NaN on purpose.
    pub fn skip_nan(mut self, skip: bool) -> Self {
        self.skip_nan = skip;
        self
    }

    /// How the training is held still for a backup: [`Snapshot::Shared`] (the default) takes
    /// microseconds and needs memory while the backup is being written, [`Snapshot::Blocking`] the
    /// other way round.
    pub fn snapshot(mut self, snapshot: Snapshot) -> Self {
        self.snapshot = snapshot;
        self
    }

    /// Where the training runs; by default on the first device of the learner's model, as Burn
    /// does. This takes the place of Burn's `with_training_strategy`, which would replace the
    /// backups along with the strategy.
    ///
    /// With several devices, one batch on each counts as one step. In the middle of an epoch a
    /// training goes on with as many devices as before only, for each has a share of the epoch's data
    /// of its own; from an epoch's start, with any number.
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

    /// Computes activations again in the backward pass instead of keeping them, as Burn's
    /// `SupervisedTraining::gradient_checkpointing` does, which is not passed on to a strategy that
    /// stands in for Burn's own: with backups, call this one. As with Burn's, the model must have been
    /// made on such a device too: `device.autodiff().gradient_checkpointing()`.
    pub fn gradient_checkpointing(mut self) -> Self {
        self.gradient_checkpointing = true;
        self
    }

    /// Saves the training, and ends it in order, when there is a notice that the machine or the process
    /// is about to go: see [`Preemption`]. Works with any [`SaveFreq`], with [`SaveFreq::Never`] too.
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

    /// Saves and restores a state of the program's own as well, under this name: lower-case letters, digits
    /// and underscores. Can be given several times.
    ///
    /// With Burn's builder, give a clone of a [`SharedState`](crate::SharedState), another clone of which the
    /// model's `step`, a metric or a callback has. It is saved as it is between two batches, and restored before
    /// the first step. On several devices and under DDP, it is as it is when the first worker has trained
    /// its batch: what the others add to it at the same time may be in it or not.
    ///
    /// What a model keeps in plain fields, or under `#[module(skip)]`, is in none of Burn's records, and so not
    /// saved: this is the way to have it saved.
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

    /// Writes the metric logs, in Burn's format and where Burn has them in `directory`, so that after a
    /// restart they are line by line those of an undisturbed training. Give the directory that the
    /// training was made with, and these files take the place of Burn's own.
    ///
    /// Burn's own logger begins each file anew that it opens: of the epoch in which a training was
    /// interrupted it loses what came before, and so does what the training metrics come to in that
    /// epoch, by which early stopping may decide. Metrics whose value for an epoch is not the mean of
    /// its lines (perplexity, AUROC, F-scores) can't be continued inside an epoch by anybody: their
    /// last line is of the rest of the epoch, and a line in the log says so.
    ///
    /// Loggers given with Burn's `with_metric_logger` are used as well; let none of them write to the
    /// same directory.
    pub fn metric_logs(mut self, directory: impl Into<PathBuf>) -> Self {
        self.metric_logs = Some(absolute(directory.into()));
        self
    }

    /// Keeps everything that Burn writes into the training's artifact directory as it would be without an
    /// interruption. Give the directory that the training was made with:
    ///
    /// - metric logs: as [`metric_logs`](Self::metric_logs), and what past epochs came to is written again
    ///   where the program has wiped the directory at its start;
    /// - checkpoints: as [`checkpointing_strategy`](Self::checkpointing_strategy), with Burn's default
    ///   strategy unless another one is given here;
    /// - the summary at the end, which then covers all epochs.
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

    /// Which of Burn's checkpoints are kept: this takes the place of Burn's
    /// `with_checkpointing_strategy`, and has the strategy decide after a restart as it would have
    /// without one.
    ///
    /// A strategy remembers what it has decided, and Burn has no way to ask it. Here it makes its
    /// decisions for the epochs before once more, by the metrics in the backup, and what they say to do
    /// is not done again. (Burn writes its checkpoints on other threads, and does not sync them: one that a
    /// kill or a power cut finds half written is not written again.)
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

    /// Mirrors every backup to a place that outlives the machine: a URL such as `s3://bucket/prefix`, or a
    /// [`Mirror`] that says more. On a machine with an empty disk, or an older backup, the newest one is fetched from
    /// there at the start.
    ///
    /// Backups are written to the disk first, as without a mirror, and sent in the background. A slow link leaves
    /// some out: the newest one goes next. The end of a training waits until the last one is there. A mirror belongs
    /// to one training. See [`Mirror`] for the URLs and where credentials come from.
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

    /// The same with a store that the program has made, under `prefix`: for credentials and clients that no URL
    /// describes.
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

    /// Calls `callback` with what happens to the backups: restored, committed, failed, a notice, the end, and so on
    /// (see [`Event`]). For a chat, a monitor, or a bar of the program's own.
    ///
    /// It is called on a thread of its own, in the order in which things happen, and may take its time: the training
    /// goes on meanwhile. A panic in it is logged, and the next event comes all the same. At most 256 events wait; of
    /// more the oldest are dropped, which [`Event::Dropped`] counts. The end of the training waits until all events are
    /// told, for 5 seconds at most.
    ///
    /// Given twice, the last one is called.
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

    /// Whether the training's dashboard shows a text metric "Backup": the last committed position, when
    /// it was saved (a time of day, UTC), and any failure since; true by default. Burn's file logger does not write it down, as it does
    /// not with anything that is "N/A"; loggers of others may.
    ///
    /// While a restore, or the wait for the mirror at the end, takes more than a second, the bottom border of the
    /// dashboard shows how far it is. With false it does not: give that with a full-screen renderer of your own.
    pub fn dashboard(mut self, dashboard: bool) -> Self {
        self.dashboard = dashboard;
        self
    }

    /// Trains as under DDP, with the gradients brought together on the host: this is how tests run
    /// that loop without CUDA.
    #[cfg(feature = "testing")]
    pub fn ddp_on_host(mut self, devices: Vec<Device>) -> Self {
        self.ddp_on_host = Some(devices);
        self
    }

    /// Uses `filesystem` for every call that concerns the backup directory: this is how tests
    /// inject faults. Handles taken before keep to the one before.
    #[cfg(feature = "testing")]
    pub fn filesystem(mut self, filesystem: Arc<dyn Filesystem>) -> Self {
        self.handle.set_filesystem(filesystem);
        self
    }

    /// Waits this long for the next try after a backup that failed, and twice as long after each further one in a row:
    /// this is how tests have one fail and the next succeed.
    #[cfg(feature = "testing")]
    pub fn retry_after(mut self, first: Duration) -> Self {
        self.retry_after = first;
        self
    }

    /// Tells of no silence that is shorter: this is how tests have a training hang.
    #[cfg(feature = "testing")]
    pub fn hung_after(self, least: Duration) -> Self {
        self.handle.hung_after(least);
        self
    }

    /// Has no more than so many threads for devices: this is how tests run out of them.
    #[cfg(feature = "testing")]
    pub fn limit_threads(mut self, threads: usize) -> Self {
        self.threads = Threads::limited_to(threads);
        self
    }

    /// A handle that answers while the training runs and after it.
    pub fn handle(&self) -> BackupHandle {
        self.handle.clone()
    }

    /// Whether a strategy for Burn's checkpoints was given.
    pub(crate) fn has_checkpointing_strategy(&self) -> bool {
        let strategy = self.checkpointing.lock();
        let strategy = strategy.unwrap_or_else(PoisonError::into_inner);
        strategy.is_some()
    }

    /// Checks what can be checked without looking at the disk.
    pub(crate) fn validate(&self) -> Result<(), BackupError> {
        if !self.frequency.is_valid() {
            return Err(BackupError::InvalidFrequency {
                frequency: self.frequency,
            });
        }
        self.keep.check()?;
        self.divergence.validate()?;
        self.divergence_rule.validate()?;
        let goes_back = matches!(self.divergence, Divergence::RollBack { .. });
        if goes_back && self.frequency == SaveFreq::Never {
            return Err(BackupError::InvalidDivergence {
                setting: "Divergence::RollBack with SaveFreq::Never",
                needed: "a save_freq that takes backups, to go back to",
            });
        }
        if goes_back && self.fast_forward == FastForward::Replay {
            return Err(BackupError::InvalidDivergence {
                setting: "Divergence::RollBack with FastForward::Replay",
                needed: "FastForward::Skip, and a dataset without a state of its own",
            });
        }
        Ok(())
    }
}

/// The place that a path names now: the program may change its working directory later. What can't be
/// resolved, such as an empty path, is refused at the launch.
pub(crate) fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// What is there is used once.
pub(crate) fn taken<T>(once: &Mutex<Option<T>>) -> Option<T> {
    once.lock().unwrap_or_else(PoisonError::into_inner).take()
}
