use std::fmt;
use std::mem::{Discriminant, discriminant};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::data::dataset::DatasetError;
use burn::store::RecordError;
use burn::train::TrainingError;
use burn::train::checkpoint::CheckpointerError;
use burn_backup_store::StoreError;

use crate::change::Change;
use crate::exit_code;
use crate::fingerprint::ParamDifference;
use crate::mirror::{Mirror, MirrorError};
use crate::position::Position;
use crate::save_freq::SaveFreq;

/// How many differing parameters a message names.
const NAMED_DIFFERENCES: usize = 3;

/// Why a training could not be backed up or restored.
///
/// Each message says which operation failed and on what, what state the backup is in, and what to do.
///
/// The message ends with the cause, because Burn and most programs print only the message. The cause is also in
/// [`source`](std::error::Error::source). If the error ends a training, it is in
/// [`LearningResult::error`](burn::train::LearningResult). [`BackupError::find`] gets it from there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The frequency is 0 batches or no time, or a share of the training's time that is not finite and above 0.
    #[error(
        "save_freq(SaveFreq::{frequency:?}) never makes a backup due; nothing was changed: use Steps with 1 or \
         more, Every with a duration above 0, Auto with a finite share above 0, or SaveFreq::Never"
    )]
    #[non_exhaustive]
    InvalidFrequency {
        /// The frequency that was given.
        frequency: SaveFreq,
    },

    /// `keep_last(0)`.
    #[error("keep_last(0) would keep no backup; nothing was changed: give 1 or more")]
    InvalidKeepLast,

    /// A setting of [`Divergence`](crate::Divergence) or of its rule is invalid.
    #[error("{setting} is invalid; nothing was changed: give {needed}")]
    #[non_exhaustive]
    InvalidDivergence {
        /// The setting.
        setting: &'static str,
        /// What a valid setting is.
        needed: &'static str,
    },

    /// `on_divergence` is set for a training with Burn's builder, but this crate can't see its metrics.
    #[error(
        "on_divergence can't see this training's metrics, because Burn passes metrics only to loggers; nothing was \
         changed: also call BackupAndRestore::{setting} with the training's directory"
    )]
    #[non_exhaustive]
    DivergenceWithoutMetrics {
        /// The setting that makes this crate log the metrics.
        setting: &'static str,
    },

    /// The training has none of the metrics that `on_divergence` watches.
    #[error(
        "on_divergence watches the metrics {}, but the training has {}; the backup is unchanged: register the \
         metric with the training (metric_train_numeric), or name another one with DivergenceRule::of",
        quoted(.wanted), quoted(.there)
    )]
    #[non_exhaustive]
    NoSuchMetric {
        /// The metrics that `on_divergence` watches.
        wanted: Vec<String>,
        /// The metrics that the training has.
        there: Vec<String>,
    },

    /// A rollback needs the batches in the same order again, but the loader can't repeat its order.
    #[error(
        "Divergence::RollBack needs the same batches in the same order again, but {loader} can't repeat its order; the \
         backup is unchanged: build the training loader with burn_backup_restore::data::DataLoaderBuilder, which \
         has the same methods as Burn's builder"
    )]
    #[non_exhaustive]
    UnrepeatableLoader {
        /// The loader, in words.
        loader: &'static str,
    },

    /// The training has diverged, and no rollback is allowed or none is left.
    #[error(
        "the training has diverged: the metric '{metric}' {}, first at batch {first} of the training; {}{}: look at \
         the data of this batch and of those before it, lower the learning rate, or {}",
        beyond(*.value, *.bound), tried(.skipped), kept(.backup),
        match .skipped.is_empty() {
            true => "skip the batch with Divergence::RollBack",
            false => "allow more rollbacks",
        }
    )]
    #[non_exhaustive]
    Diverged {
        /// The metric that diverged.
        metric: String,
        /// The metric's last value.
        value: f64,
        /// The bound that the value exceeds; `None` if the value is not finite.
        bound: Option<f64>,
        /// The first batch with such a value, counted from 1 over all epochs.
        first: u64,
        /// The batches that earlier rollbacks skipped, as the first and the last batch of each rollback.
        skipped: Vec<(u64, u64)>,
        /// The position of the last backup.
        backup: Option<Position>,
    },

    /// The training diverged before the position of a backup.
    #[error(
        "the backup was not written, because the training had already diverged; the last good backup stays"
    )]
    DivergedBefore,

    /// There is no backup from before a divergence.
    #[error(
        "cannot roll back: '{}' has no complete backup from before batch {batch} of the training, which must be \
         skipped; existing backups were not touched: look at the data of the batches before it, continue from an \
         older backup with restore_from, or keep more backups with keep_last",
        .path.display()
    )]
    #[non_exhaustive]
    NoBackupBeforeDivergence {
        /// The backup directory.
        path: PathBuf,
        /// The first batch to skip.
        batch: u64,
    },

    /// A rule of `keep` keeps nothing.
    #[error(
        "keep(..) has a rule that keeps nothing: {rule}; nothing was changed: give it 1 or more, or a time above 0"
    )]
    #[non_exhaustive]
    InvalidKeep {
        /// The rule, in words.
        rule: String,
    },

    /// The backup that the program asks for is missing.
    #[error(
        "{asked} is not in '{}'; nothing was changed: ask for one of the existing backups: {}",
        path.display(), name_backups(found)
    )]
    #[non_exhaustive]
    NoSuchBackup {
        /// The backup directory.
        path: PathBuf,
        /// The requested backup, in words.
        asked: String,
        /// The existing backups, in words, newest first.
        found: Vec<String>,
    },

    /// A backup's model can't be written to a file.
    #[error(
        "cannot {operation} '{}'; the backups are unchanged, and so is the file if it existed: check the path, its \
         permissions, and the free space{}",
        path.display(), caused_by(Some(source))
    )]
    #[non_exhaustive]
    Export {
        /// The operation that failed.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },

    /// A backup has several models, or none, or not the requested one.
    #[error(
        "cannot choose the model to export: backup {generation} in '{}' has {}; nothing was written: name one of \
         these states with BackupHandle::export_state",
        path.display(), name_models(models)
    )]
    #[non_exhaustive]
    AmbiguousModel {
        /// The backup directory.
        path: PathBuf,
        /// The backup's generation number.
        generation: u64,
        /// The names of the states that have a model. If the training has only one state, its name is empty.
        models: Vec<String>,
    },

    /// A `Preemption` without signals and watchers.
    #[error(
        "save_before_preemption(Preemption::new()) has nothing to watch for; nothing was changed: \
         use Preemption::signals(), or give it a signal or a watcher"
    )]
    EmptyPreemption,

    /// A signal that can't be a notice of preemption.
    #[error(
        "the signal {signal} can't be a notice of preemption: no program can handle it, or it reports \
         a fault in the program itself, or it has no name on this system; nothing was changed: give another \
         one, such as SIGTERM"
    )]
    #[non_exhaustive]
    ForbiddenSignal {
        /// The signal's number.
        signal: i32,
    },

    /// The signal handlers can't be installed.
    #[error(
        "cannot listen for the signals of save_before_preemption; nothing was changed: check that this \
         system has them{}",
        caused_by(Some(.0))
    )]
    Signals(#[source] std::io::Error),

    /// An execution strategy without devices.
    #[error(
        "execution(ExecutionStrategy::{strategy}) has no devices; nothing was changed: give one or \
         more"
    )]
    #[non_exhaustive]
    NoDevices {
        /// The strategy's name.
        strategy: &'static str,
    },

    /// Loaders can't be replayed under DDP, because each worker has its own loader.
    #[error(
        "fast_forward(FastForward::Replay) can't be used with DistributedDataParallel, because its workers load in \
         parallel; nothing was changed: use datasets and batchers without internal state, or another \
         execution strategy"
    )]
    ReplayUnderDdp,

    /// The model and the training use different gradient-checkpointing strategies.
    #[error(
        "the model is on a device with the gradient checkpointing {model}, but the training runs with {training}, \
         and Burn can't compute with both; nothing was changed: make the model on \
         device.autodiff().gradient_checkpointing(), or use no gradient checkpointing in either"
    )]
    #[non_exhaustive]
    GradientCheckpointing {
        /// The strategy of the model's device.
        model: String,
        /// The strategy of the training's device.
        training: String,
    },

    /// The backup directory can't be used, or a save failed.
    #[error("{}", with_causes(.0))]
    Store(#[source] StoreError),

    /// The mirror can't be used.
    #[cfg(feature = "mirror")]
    #[error("{}", with_causes(.0))]
    Mirror(#[source] Arc<MirrorError>),

    /// The mirror can't be reached, so it is unknown whether it has a backup.
    #[cfg(feature = "mirror")]
    #[error(
        "there is no backup in '{}', and the mirror, which may have one, can't be reached; no training was started: \
         try again when the mirror is reachable, or start a new training on purpose with \
         Mirror::start_new_if_unreachable(true){}",
        path.display(), caused_by(Some(source.as_ref()))
    )]
    #[non_exhaustive]
    MirrorUnreachable {
        /// The backup directory.
        path: PathBuf,
        /// The mirror's error.
        source: Arc<MirrorError>,
    },

    /// The manifest's state document is complete, but this crate did not write it, or its contents are invalid.
    #[error(
        "the backup in '{}' was not made by burn-backup-restore, lacks a part, or contains invalid values; it \
         was not touched: give this training a directory of its own, or, to start over, delete the directory \
         while no training uses it{}",
        path.display(), caused_by(source.as_ref())
    )]
    #[non_exhaustive]
    ForeignBackup {
        /// The backup directory.
        path: PathBuf,
        /// What is wrong with the document; `None` if a part is missing.
        source: Option<std::io::Error>,
    },

    /// The backup belongs to another model.
    #[error(
        "the backup in '{}' belongs to another model: {}; the backup was not touched: run the program \
         that made it, or, to start over, delete the directory while no training uses it",
        path.display(), name_differences(differences)
    )]
    #[non_exhaustive]
    ModelMismatch {
        /// The backup directory.
        path: PathBuf,
        /// Every parameter that differs.
        differences: Vec<ParamDifference>,
    },

    /// The program's optimizer can't load the state in the backup.
    #[error(
        "the backup in '{}' was made with another optimizer: this one can't load {lost} of the backup's {total} \
         state entries, the first is '{first}'; the backup was not touched: use the \
         optimizer that made it, or, to start over, delete the directory while no training uses it",
        path.display()
    )]
    #[non_exhaustive]
    OptimizerMismatch {
        /// The backup directory.
        path: PathBuf,
        /// How many entries can't be loaded.
        lost: usize,
        /// How many entries the backup has.
        total: usize,
        /// The parameter and field of the first one that can't be loaded.
        first: String,
    },

    /// Burn would load the optimizer's state with a dtype other than the saved one.
    #[error(
        "Burn would change the optimizer's state: it loads it on its default device, where '{entry}' becomes \
         {loaded}, but the backup in '{}' has {saved}; the backup was not touched: give the default device the \
         float type of the training's device, or set the variable BURN_DEVICE to that device (to start over, \
         delete the directory while no training uses it)",
        path.display()
    )]
    #[non_exhaustive]
    OptimizerConverted {
        /// The backup directory.
        path: PathBuf,
        /// The parameter and field of the first entry that differs.
        entry: String,
        /// The entry's dtype in the backup.
        saved: &'static str,
        /// The entry's dtype after loading.
        loaded: &'static str,
    },

    /// No restart could use the backups, because Burn would load the optimizer's state with another dtype.
    #[error(
        "no backup of this training could be restored: Burn loads the optimizer's state with the type of its \
         default device, so '{entry}', which is {saved}, would become {loaded}; nothing was changed: give \
         the default device that type before the first tensor is made, with \
         `Device::default().configure(..)`, or train all parameters in {loaded}"
    )]
    #[non_exhaustive]
    PrecisionLost {
        /// The parameter and field of the first entry that would change.
        entry: String,
        /// The entry's dtype in the training.
        saved: &'static str,
        /// The entry's dtype after loading.
        loaded: &'static str,
    },

    /// No restart could use the backups, because the optimizer or the scheduler doesn't load what it saves.
    #[error(
        "no backup of this training could be restored: its optimizer or learning-rate scheduler doesn't \
         load what it saves, and the first lost entry is '{entry}'; existing backups were \
         not touched: fix its `RecordState` implementation so that it loads everything that it saves"
    )]
    #[non_exhaustive]
    NotLoadable {
        /// The parameter and field of the first lost entry, or the scheduler's entry.
        entry: String,
    },

    /// No restart could use the backups, because a record exceeds a limit that Burn's record reader enforces.
    #[error(
        "the {part} can't be backed up: {what} is {found}, but Burn can only read records with {limit} \
         at most; existing backups were not touched: divide the model's large parameters, or \
         merge its small ones"
    )]
    #[non_exhaustive]
    TooLarge {
        /// The record.
        part: String,
        /// The quantity that is too large.
        what: String,
        /// Its value.
        found: u64,
        /// The largest allowed value.
        limit: u64,
    },

    /// Burn panicked while the backup was loaded.
    #[error(
        "Burn panicked while the backup in '{}' was restored: {message}; the backup was not touched. \
         Burn loads the optimizer's state on its default device first: if the program is built with \
         several backends and the default one has no device on this machine, name the one to use in the \
         environment variable BURN_DEVICE; or, to start over, delete the directory while no training uses it",
        path.display()
    )]
    #[non_exhaustive]
    RestorePanicked {
        /// The backup directory.
        path: PathBuf,
        /// The panic's message.
        message: String,
    },

    /// The program's learning-rate scheduler can't load the state in the backup.
    #[error(
        "the backup in '{}' was made with another learning-rate scheduler: this one can't load the backup's \
         entry '{first}'; the backup was not touched: use the scheduler that made it, or, to start over, delete \
         the directory while no training uses it",
        path.display()
    )]
    #[non_exhaustive]
    SchedulerMismatch {
        /// The backup directory.
        path: PathBuf,
        /// The first entry that can't be loaded.
        first: String,
    },

    /// The training loader yields other items than it did before the interruption.
    #[error(
        "the training data has changed since the backup in '{}' was made: {what} was {recorded}, and is {found} \
         now; the backup was not touched: use the same data, batch size and loader, or allow the change with \
         BackupAndRestore::allow({change}), or, to start over, delete the directory while no training uses it",
        path.display()
    )]
    #[non_exhaustive]
    DataMismatch {
        /// The backup directory.
        path: PathBuf,
        /// The quantity that differs.
        what: &'static str,
        /// Its value in the backup.
        recorded: usize,
        /// Its value in the loader now.
        found: usize,
        /// The change to allow.
        change: Change,
    },

    /// The training's configuration has changed since the backup was made.
    #[error(
        "the training's configuration has changed since the backup in '{}' was made: {what} was {recorded}, \
         and is {found} now; the backup was not touched: configure it as before, or allow the change with \
         BackupAndRestore::allow({change}), or, to start over, delete the directory while no training uses it",
        path.display()
    )]
    #[non_exhaustive]
    ConfigurationMismatch {
        /// The backup directory.
        path: PathBuf,
        /// The setting that differs.
        what: String,
        /// Its value in the backup.
        recorded: String,
        /// Its value in the program.
        found: String,
        /// The change to allow.
        change: Change,
    },

    /// The program trains other parameters than it did when the backup was made. Burn's records don't contain this
    /// (`set_require_grad`), and this crate can't change it in a learner that already exists.
    #[error(
        "the trained parameters have changed since the backup in '{}' was made: {}; the backup was not \
         touched: give the model to BackupAndRestore::restore_trained before the learner is made, or allow \
         the change with BackupAndRestore::allow(Change::TrainedParameters)",
        path.display(), name_trained(trained_before, frozen_before)
    )]
    #[non_exhaustive]
    TrainedMismatch {
        /// The backup directory.
        path: PathBuf,
        /// The paths of parameters that were trained, and are frozen now.
        trained_before: Vec<String>,
        /// The paths of parameters that were frozen, and are trained now.
        frozen_before: Vec<String>,
    },

    /// An epoch ended before its loader gave all the items that it promised.
    #[error(
        "the {split} loader ended its epoch after {given} of {promised} items, probably because one of its workers \
         panicked in the dataset or the batcher; the last backup stays: look for a panic message above, or call \
         BackupAndRestore::allow_short_epochs if the loader drops items on purpose"
    )]
    #[non_exhaustive]
    ShortEpoch {
        /// `training` or `validation`.
        split: &'static str,
        /// The number of items that the loader gave.
        given: usize,
        /// The number of items that it promised, or gave in the first epoch.
        promised: usize,
    },

    /// The directory given to `warm_start` has no usable backup.
    #[error(
        "warm_start('{}') has no backup to take weights from; nothing was changed: give the directory of a \
         backup, which a training keeps with delete_checkpoint(false)",
        path.display()
    )]
    #[non_exhaustive]
    NoWarmStart {
        /// The directory.
        path: PathBuf,
    },

    /// The number of devices has changed in the middle of an epoch, whose data is split among them.
    #[error(
        "the number of devices can't change inside an epoch: the backup in '{}', at {position}, was made with \
         {recorded} device(s), and this run has {found}; the backup was not touched: train with {recorded} \
         device(s) until the end of the epoch, or, to start over, delete the directory while no training uses it",
        path.display()
    )]
    #[non_exhaustive]
    DevicesMismatch {
        /// The backup directory.
        path: PathBuf,
        /// The backup's position.
        position: Position,
        /// The number of devices in the backup.
        recorded: usize,
        /// The number of devices now.
        found: usize,
    },

    /// A state's name is not valid in a backup, or two states have the same name.
    #[error(
        "'{name}' can't be the name of a state: a name consists of lower-case letters, digits and underscores, \
         and each state has its own; nothing was changed: give it another name"
    )]
    #[non_exhaustive]
    StateName {
        /// The name, prefixed with the names of the states that contain it.
        name: String,
    },

    /// The program's states are not the states in the backup.
    #[error(
        "the backup in '{}' has other states: {}; the backup was not touched: give the training the states \
         that it had, or, to start over, delete the directory while no training uses it",
        path.display(), name_states(missing, surplus)
    )]
    #[non_exhaustive]
    StatesMismatch {
        /// The backup directory.
        path: PathBuf,
        /// The names of states that are in the backup, and not in the program.
        missing: Vec<String>,
        /// The names of states that are in the program, and not in the backup.
        surplus: Vec<String>,
    },

    /// A value of the program can't be written as CBOR, or can't be read as the program's type.
    #[error(
        "cannot {operation} a value of the program{}; existing backups were not touched: use the type that was \
         saved, and check that it can be deserialized from its own serialized form{}",
        of_state(state),
        caused_by(Some(source))
    )]
    #[non_exhaustive]
    Value {
        /// The operation that failed.
        operation: &'static str,
        /// The name of the state; empty if it is not known.
        state: String,
        /// The cause.
        source: std::io::Error,
    },

    /// A setting that only Burn's builder can use.
    #[error(
        "BackupAndRestore::{setting} is for Burn's builder, and a custom loop can't use it; \
         nothing was changed: leave it out"
    )]
    #[non_exhaustive]
    OnlyForBuilder {
        /// The setting's name.
        setting: &'static str,
    },

    /// The program asks for fewer steps than the training has already made.
    #[error(
        "Session::steps({num_steps}) asks for fewer steps than the {steps} that the training has made; the \
         backup was not touched: ask for at least as many"
    )]
    #[non_exhaustive]
    TooFewSteps {
        /// The number of steps that the training has made.
        steps: u64,
        /// The number of steps that the program asks for.
        num_steps: u64,
    },

    /// The batches to fetch belong to an earlier epoch, or are training batches although
    /// [`Session::trained`](crate::Session::trained) was called.
    #[error(
        "Session::next was given batches of an earlier epoch, or training batches during the validation; \
         nothing was fetched, and the backups are unchanged: call Session::batches in each epoch, before \
         Session::trained for training, and after it for validation"
    )]
    OutdatedBatches,

    /// A change would restart the epoch, but an epoch with several loaders can't be restarted.
    #[error(
        "{change} is allowed and was found, but the epoch in progress has several loaders and can't be restarted; \
         the backup was not touched: stop after the end of this epoch, and then make the change"
    )]
    #[non_exhaustive]
    SeveralLoaders {
        /// The change.
        change: Change,
    },

    /// A setting that reinforcement learning can't use.
    #[cfg(feature = "rl")]
    #[error(
        "BackupAndRestore::{setting} can't be used with reinforcement learning; nothing was changed: leave it \
         out{hint}"
    )]
    #[non_exhaustive]
    NotForRl {
        /// The setting's name.
        setting: &'static str,
        /// What to use instead, if there is an alternative.
        hint: &'static str,
    },

    /// A field of Burn's `OffPolicyConfig` is 0, so nothing could be learned.
    #[cfg(feature = "rl")]
    #[error(
        "OffPolicyConfig::{field} is 0, so nothing could be learned; nothing was changed: give 1 or more"
    )]
    #[non_exhaustive]
    InvalidOffPolicy {
        /// The field's name.
        field: &'static str,
    },

    /// The setup of the reinforcement learning has changed since the backup was made.
    #[cfg(feature = "rl")]
    #[error(
        "the training's setup has changed since the backup in '{}' was made: {what} was {recorded}, and is \
         {found} now; the backup was not touched: use the same number as before, or, to start over, delete the \
         directory while no training uses it",
        path.display()
    )]
    #[non_exhaustive]
    RlMismatch {
        /// The backup directory.
        path: PathBuf,
        /// The quantity that differs.
        what: &'static str,
        /// Its value in the backup.
        recorded: usize,
        /// Its value in the program.
        found: usize,
    },

    /// A policy or an environment gave a value that the replay buffer can't hold.
    #[cfg(feature = "rl")]
    #[error(
        "the replay buffer holds {expected}, and was given {given}; the training ends, and the last backup \
         stays: make the environment and the policy give one row at a time, always with the same shape and type"
    )]
    #[non_exhaustive]
    Transition {
        /// What the buffer holds.
        expected: String,
        /// What the buffer was given.
        given: String,
    },

    /// A transition can't be read from its device.
    #[cfg(feature = "rl")]
    #[error(
        "cannot read a transition for the replay buffer from its device; the training ends, and the last backup \
         stays: check the device, and run the program again to resume{}",
        caused_by(Some(.0))
    )]
    TransitionUnread(#[source] burn::tensor::ExecutionError),

    /// The data of a custom loop can't be loaded.
    #[error(
        "the training data can't be loaded; the last backup stays: run the program again to resume from it{}",
        caused_by(Some(.0))
    )]
    Dataset(#[source] DatasetError),

    /// The training ended with one of Burn's errors.
    #[error("the training ended with an error; the last backup stays{}", caused_by(Some(.0.as_ref())))]
    Training(#[source] Arc<TrainingError>),

    /// An error that is also held elsewhere, for example by the handle.
    #[error(transparent)]
    Shared(Arc<BackupError>),

    /// A record can't be encoded, or can't be decoded although its bytes are the saved ones.
    #[error(
        "cannot {operation} the {part} record; existing backups were not touched: check \
         that the program uses the version of Burn that this crate was built with{}",
        caused_by(Some(source))
    )]
    #[non_exhaustive]
    Record {
        /// The operation that failed.
        operation: &'static str,
        /// The record.
        part: String,
        /// The cause.
        source: RecordError,
    },

    /// The model contains NaN, so this backup would replace a good one with one that is useless.
    #[error(
        "the backup is refused: the parameter '{parameter}' contains NaN; the last good backup stays, and, if \
         the training continues, the next due backup is tried: stop the training and find where the NaN comes \
         from, or allow such backups with refuse_nan(false)"
    )]
    #[non_exhaustive]
    ContainsNan {
        /// The path of the first parameter that contains NaN.
        parameter: String,
    },

    /// The training ended with NaN in its model, so its backup is not discarded.
    #[error(
        "the backup in '{}' was not discarded: the training ended with NaN in its model, so this is its last good \
         backup: if you don't need it, delete it with 'burn-backup discard' (with --mirror, also in the mirror)",
        .path.display()
    )]
    #[non_exhaustive]
    LastGoodBackup {
        /// The backup directory.
        path: PathBuf,
    },

    /// The metrics up to the backup's position were not logged: a metric has failed, or hangs.
    #[error(
        "the metrics of the batches before the backup were not logged in time, so the backup would be \
         inconsistent; existing backups were not touched, and, if the training continues, the next due backup is \
         tried: look for errors of the metrics, or of the disk that metric_logs writes to"
    )]
    MetricsMissing,

    /// The state of the training can't be written as JSON.
    #[error(
        "cannot write the training's state as JSON; existing backups were not touched, and, if the training \
         continues, the next due backup is tried{}",
        caused_by(Some(.0))
    )]
    State(#[source] std::io::Error),

    /// The thread that writes backups panicked.
    #[error(
        "the backup failed with a panic: {message}; existing backups were not touched, \
         and, if the training continues, the next due backup is tried: report the panic if it happens again"
    )]
    #[non_exhaustive]
    Panicked {
        /// The panic's message.
        message: String,
    },

    /// A thread that writes backups, or watches for a preemption, can't be started.
    #[error(
        "cannot start a thread for the backups; nothing was changed: check the limits on threads and \
         memory{}",
        caused_by(Some(.0))
    )]
    Thread(#[source] std::io::Error),

    /// A thread for one of several devices can't be started.
    #[error(
        "cannot start a thread for each device of the training; no batch was trained, and the backup was \
         not touched: check the limits on threads and memory, or train on fewer devices{}",
        caused_by(Some(.0))
    )]
    DeviceThread(#[source] std::io::Error),
}

impl From<StoreError> for BackupError {
    fn from(error: StoreError) -> Self {
        match error {
            // This crate checks bytes before the store writes them, so the refusal is one of its own errors.
            StoreError::Refused { source, .. } if source.is::<Self>() => {
                match source.downcast::<Self>() {
                    Ok(refusal) => *refusal,
                    Err(other) => Self::State(std::io::Error::other(other)),
                }
            }
            error => Self::Store(error),
        }
    }
}

impl From<MirrorError> for BackupError {
    fn from(error: MirrorError) -> Self {
        Self::from(Arc::new(error))
    }
}

impl From<Arc<MirrorError>> for BackupError {
    #[cfg(feature = "mirror")]
    fn from(error: Arc<MirrorError>) -> Self {
        match Arc::try_unwrap(error) {
            Ok(MirrorError::Store(error)) => Self::from(error),
            Ok(error) => Self::Mirror(Arc::new(error)),
            Err(error) => Self::Mirror(error),
        }
    }

    #[cfg(not(feature = "mirror"))]
    fn from(error: Arc<MirrorError>) -> Self {
        error.never()
    }
}

impl BackupError {
    /// There is no local backup, and it is unknown whether the mirror has one.
    #[cfg(feature = "mirror")]
    pub(crate) fn mirror_unreachable(path: &Path, source: MirrorError) -> Self {
        Self::MirrorUnreachable {
            path: path.to_path_buf(),
            source: Arc::new(source),
        }
    }

    #[cfg(not(feature = "mirror"))]
    pub(crate) fn mirror_unreachable(_path: &Path, source: MirrorError) -> Self {
        source.never()
    }

    /// The training in the backup directory was finished by another process.
    #[cfg(feature = "mirror")]
    pub(crate) fn finished_elsewhere(mirror: &Mirror) -> Self {
        Self::from(MirrorError::finished(mirror))
    }

    #[cfg(not(feature = "mirror"))]
    pub(crate) fn finished_elsewhere(mirror: &Mirror) -> Self {
        mirror.never()
    }

    /// Whether a restart would fail in the same way until the program, its settings, or the backup directory is
    /// changed. It is false for failures that may pass on their own, such as a full disk or an unreachable mirror.
    pub fn needs_a_change(&self) -> bool {
        match self {
            Self::Store(error) => !matches!(
                error,
                StoreError::Io { .. } | StoreError::InUse { .. } | StoreError::Gone { .. }
            ),
            #[cfg(feature = "mirror")]
            Self::Mirror(error) => !error.is_transient(),
            #[cfg(feature = "mirror")]
            Self::MirrorUnreachable { .. } => false,
            Self::Shared(error) => error.needs_a_change(),
            Self::Signals(_)
            | Self::Export { .. }
            | Self::RestorePanicked { .. }
            | Self::ShortEpoch { .. }
            | Self::Dataset(_)
            | Self::Training(_)
            | Self::Record { .. }
            | Self::MetricsMissing
            | Self::DivergedBefore
            | Self::Panicked { .. }
            | Self::Thread(_)
            | Self::DeviceThread(_) => false,
            Self::InvalidFrequency { .. }
            | Self::InvalidKeepLast
            | Self::InvalidDivergence { .. }
            | Self::DivergenceWithoutMetrics { .. }
            | Self::NoSuchMetric { .. }
            | Self::UnrepeatableLoader { .. }
            | Self::Diverged { .. }
            | Self::NoBackupBeforeDivergence { .. }
            | Self::InvalidKeep { .. }
            | Self::NoSuchBackup { .. }
            | Self::AmbiguousModel { .. }
            | Self::EmptyPreemption
            | Self::ForbiddenSignal { .. }
            | Self::NoDevices { .. }
            | Self::ReplayUnderDdp
            | Self::GradientCheckpointing { .. }
            | Self::ForeignBackup { .. }
            | Self::ModelMismatch { .. }
            | Self::OptimizerMismatch { .. }
            | Self::OptimizerConverted { .. }
            | Self::PrecisionLost { .. }
            | Self::NotLoadable { .. }
            | Self::TooLarge { .. }
            | Self::SchedulerMismatch { .. }
            | Self::DataMismatch { .. }
            | Self::ConfigurationMismatch { .. }
            | Self::TrainedMismatch { .. }
            | Self::NoWarmStart { .. }
            | Self::DevicesMismatch { .. }
            | Self::StateName { .. }
            | Self::StatesMismatch { .. }
            | Self::Value { .. }
            | Self::OnlyForBuilder { .. }
            | Self::TooFewSteps { .. }
            | Self::OutdatedBatches
            | Self::SeveralLoaders { .. }
            | Self::ContainsNan { .. }
            | Self::LastGoodBackup { .. }
            | Self::State(_) => true,
            #[cfg(feature = "rl")]
            Self::Transition { .. } | Self::TransitionUnread(_) => false,
            #[cfg(feature = "rl")]
            Self::NotForRl { .. } | Self::InvalidOffPolicy { .. } | Self::RlMismatch { .. } => true,
        }
    }

    /// The exit code of a program that ends with this error: one of [`exit_code`](crate::exit_code).
    pub fn exit_code(&self) -> u8 {
        match self.needs_a_change() {
            true => exit_code::FIX_FIRST,
            false => exit_code::FAILED,
        }
    }

    /// Finds this crate's error in the error that ended a training. `None` if it ended for another reason.
    pub fn find(error: &TrainingError) -> Option<&Self> {
        match error {
            TrainingError::Checkpoint(CheckpointerError::IOError(error)) => error
                .get_ref()
                .and_then(|error| error.downcast_ref::<Reported>())
                .map(|reported| reported.0.as_ref()),
            _ => None,
        }
    }

    /// Extracts this crate's error, or the dataset's, from the error that ended a training.
    pub(crate) fn from_training(error: Arc<TrainingError>) -> Self {
        if let TrainingError::Checkpoint(CheckpointerError::IOError(error)) = error.as_ref()
            && let Some(error) = error.get_ref()
            && let Some(Reported(error)) = error.downcast_ref()
        {
            return Self::Shared(error.clone());
        }
        match Arc::try_unwrap(error) {
            Ok(TrainingError::Dataset(error)) => Self::Dataset(error),
            Ok(error) => Self::Training(Arc::new(error)),
            Err(error) => Self::Training(error),
        }
    }

    /// Adds the state's name to a `Value` error.
    pub(crate) fn of_state(self, name: &str) -> Self {
        match self {
            Self::Value {
                operation, source, ..
            } => Self::Value {
                operation,
                state: name.to_owned(),
                source,
            },
            other => other,
        }
    }

    /// The kind of failure. Failures of one kind often repeat, and are reported once.
    pub(crate) fn kind(&self) -> FailureKind {
        let mut source = std::error::Error::source(self);
        let mut cause = None;
        while let Some(error) = source
            && cause.is_none()
        {
            cause = error.downcast_ref::<std::io::Error>();
            source = error.source();
        }
        FailureKind {
            variant: discriminant(self),
            of_store: match self {
                Self::Store(error) => Some(discriminant(error)),
                _ => None,
            },
            io: cause.map(|cause| (cause.kind(), cause.raw_os_error())),
        }
    }

    /// Wraps the error in one of Burn's, which has no variant for other crates' errors.
    ///
    /// This variant keeps the error itself, so that [`find`](Self::find) can return it, but its message begins with
    /// "Checkpoint error: I/O Error:". The other variants are worse: one holds only a text, and the others say that
    /// the dataset or a worker has failed.
    pub(crate) fn into_training_error(error: Arc<Self>) -> TrainingError {
        TrainingError::Checkpoint(CheckpointerError::IOError(std::io::Error::other(Reported(
            error,
        ))))
    }
}

/// Failures with the same kind are reported once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FailureKind {
    variant: Discriminant<BackupError>,
    of_store: Option<Discriminant<StoreError>>,
    /// The kind and the OS code of the I/O error that caused the failure.
    io: Option<(std::io::ErrorKind, Option<i32>)>,
}

/// An error that the handle shares with Burn.
#[derive(Debug)]
struct Reported(Arc<BackupError>);

impl fmt::Display for Reported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Reported {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// The error and all its causes, on one line. A cause that the message already contains is not repeated.
pub(crate) fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(&format!(" (cause: {said})"));
        }
        cause = error.source();
    }
    text
}

/// The end of a message: its cause, if there is one.
fn caused_by<E: std::error::Error + 'static>(cause: Option<&E>) -> String {
    match cause {
        Some(cause) => format!(" (cause: {})", with_causes(cause)),
        None => String::new(),
    }
}

/// `'Loss', 'Accuracy'`, or `none`.
fn quoted(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    let names: Vec<_> = names.iter().map(|name| format!("'{name}'")).collect();
    names.join(", ")
}

/// Says that a value exceeds its bound or is not finite.
fn beyond(value: f64, bound: Option<f64>) -> String {
    match bound {
        Some(bound) => format!("is {value}, above its bound of {bound:.4}"),
        None => format!("is {value}"),
    }
}

/// The number of earlier rollbacks, and the batches that they skipped.
fn tried(skipped: &[(u64, u64)]) -> String {
    if skipped.is_empty() {
        return String::new();
    }
    let range = |(from, to): &(u64, u64)| match from == to {
        true => format!("{from}"),
        false => format!("{from} to {to}"),
    };
    let ranges: Vec<_> = skipped.iter().map(range).collect();
    let times = match skipped.len() {
        1 => "once".to_owned(),
        times => format!("{times} times"),
    };
    format!(
        "it was rolled back {times} before, skipping the batches {}; ",
        ranges.join(", ")
    )
}

/// Which backup stays.
fn kept(backup: &Option<Position>) -> String {
    match backup {
        Some(position) => format!("the backup at {position} stays"),
        None => "there is no backup".to_owned(),
    }
}

/// How many of the existing backups a message names.
const NAMED_BACKUPS: usize = 10;

fn name_backups(found: &[String]) -> String {
    match found.split_at_checked(NAMED_BACKUPS) {
        _ if found.is_empty() => "there are none".to_owned(),
        Some((named, more)) if !more.is_empty() => {
            format!("{} and {} more", named.join(", "), more.len())
        }
        _ => found.join(", "),
    }
}

fn name_models(models: &[String]) -> String {
    let named = |model: &String| match model.as_str() {
        "" => "one without a name".to_owned(),
        name => format!("'{name}'"),
    };
    match models {
        [] => "no model".to_owned(),
        models => {
            let named: Vec<_> = models.iter().map(named).collect();
            format!("the models {}", named.join(", "))
        }
    }
}

fn name_trained(trained_before: &[String], frozen_before: &[String]) -> String {
    let list = |paths: &[String]| {
        let named: Vec<_> = paths
            .iter()
            .take(NAMED_DIFFERENCES)
            .map(|path| format!("'{path}'"))
            .collect();
        let more = match paths.len().saturating_sub(NAMED_DIFFERENCES) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        named.join(", ") + &more
    };
    let mut said = Vec::new();
    if !trained_before.is_empty() {
        said.push(format!(
            "{} were trained and are frozen now",
            list(trained_before)
        ));
    }
    if !frozen_before.is_empty() {
        said.push(format!(
            "{} were frozen and are trained now",
            list(frozen_before)
        ));
    }
    said.join(", ")
}

fn name_states(missing: &[String], surplus: &[String]) -> String {
    let list = |names: &[String]| {
        let name = |name: &String| match name.as_str() {
            "" => "one without a name".to_owned(),
            name => format!("'{name}'"),
        };
        names.iter().map(name).collect::<Vec<_>>().join(", ")
    };
    let mut said = Vec::new();
    if !missing.is_empty() {
        said.push(format!("the program lacks {}", list(missing)));
    }
    if !surplus.is_empty() {
        said.push(format!("the backup lacks {}", list(surplus)));
    }
    said.join(", and ")
}

fn of_state(name: &str) -> String {
    match name {
        "" => String::new(),
        name => format!(" (the state '{name}')"),
    }
}

fn name_differences(differences: &[ParamDifference]) -> String {
    let named: Vec<_> = differences
        .iter()
        .take(NAMED_DIFFERENCES)
        .map(ToString::to_string)
        .collect();
    let mut text = named.join(", ");
    if differences.len() > NAMED_DIFFERENCES {
        text.push_str(&format!(
            ", and {} more",
            differences.len() - NAMED_DIFFERENCES
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::io;

    use super::*;

    #[test]
    fn equal_variants_and_causes_are_one_kind_of_failure() {
        let os = |code| BackupError::Thread(io::Error::from_raw_os_error(code));
        assert_eq!(os(28).kind(), os(28).kind());
        // The messages differ, but the cause is the same full disk.
        let full = |text: &'static str| {
            BackupError::Thread(io::Error::new(io::ErrorKind::StorageFull, text))
        };
        assert_eq!(full("one").kind(), full("two").kind());
        let different = [
            os(28),
            os(5),
            full("no space left"),
            BackupError::Signals(io::Error::from_raw_os_error(28)),
            BackupError::from(StoreError::EmptyPath),
            BackupError::MetricsMissing,
        ];
        for (at, one) in different.iter().enumerate() {
            for other in different.iter().skip(at + 1) {
                assert_ne!(one.kind(), other.kind(), "{one} and {other}");
            }
        }
    }

    fn refused() -> io::Error {
        io::Error::other("permission refused")
    }

    fn json() -> io::Error {
        serde_json::from_str::<u8>("no number").unwrap_err().into()
    }

    fn with_a_cause() -> Vec<BackupError> {
        vec![
            BackupError::Signals(refused()),
            BackupError::Thread(refused()),
            BackupError::State(json()),
            BackupError::ForeignBackup {
                path: PathBuf::new(),
                source: Some(json()),
            },
            BackupError::Record {
                operation: "encode",
                part: "model".to_owned(),
                source: RecordError::Io("a tensor is gone".to_owned()),
            },
        ]
    }

    #[test]
    fn a_message_ends_with_the_cause_once() {
        for error in with_a_cause() {
            let cause = error.source().unwrap().to_string();
            let text = error.to_string();
            assert!(text.ends_with(&format!(" (cause: {cause})")), "{text}");
            assert_eq!(with_causes(&error), text, "the cause is not repeated");
        }
    }

    #[test]
    fn burns_error_has_our_message_and_contains_ours() {
        for error in with_a_cause() {
            let text = error.to_string();
            let burns = BackupError::into_training_error(Arc::new(error));
            assert!(burns.to_string().contains(&text), "{burns}");
            assert_eq!(BackupError::find(&burns).unwrap().to_string(), text);
        }
    }

    #[test]
    fn errors_that_advise_a_deletion_say_when() {
        let error = BackupError::ForeignBackup {
            path: PathBuf::new(),
            source: None,
        };
        let text = error.to_string();
        assert!(
            text.contains("delete the directory while no training uses it"),
            "{text}"
        );
    }
}
