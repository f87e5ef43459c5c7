//! From a verified generation to a learner that is where it was.

use std::path::Path;
use std::sync::Arc;

use burn::lr_scheduler::LrSchedulerRecord;
use burn::module::Module;
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::{Bytes, Device};
use burn::train::{Learner, LearnerModel};
use burn_backup_store::{Filesystem, Generation, OpenOptions, Store};

use crate::burn_api::{BURN_VERSION, Outline, RecordReader, optimizer_record};
use crate::burnpack::{Container, aligned};
use crate::change::{Change, Changes};
use crate::configuration::Configuration;
use crate::encode::Frozen;
use crate::error::BackupError;
use crate::fingerprint;
use crate::fit::{self, Fit, Misfit};
use crate::part::{FROZEN, MODEL, OPTIMIZER, SCHEDULER};
use crate::settings::BackupAndRestore;
use crate::state::TrainingState;
use crate::trained;

/// What a generation says besides what is in the learner now.
pub(crate) struct Restored {
    pub state: TrainingState,
    pub frozen: Frozen,
    pub fit: Fit,
    /// What is changed on purpose.
    pub changed: Vec<Change>,
}

/// What the program expects of a backup.
pub(crate) struct Expected<'a> {
    pub configuration: &'a Configuration,
    pub changes: &'a Changes,
    /// The device that the model is trained on, or the first of them.
    pub main: &'a Device,
}

/// Loads `generation` into `learner`, after checking that it fits: Burn panics on a model that
/// doesn't, and says nothing of an optimizer or a scheduler that doesn't.
pub(crate) fn restore<M: LearnerModel>(
    learner: &mut Learner<M>,
    mut generation: Generation,
    reader: &mut RecordReader<M>,
    expected: Expected<'_>,
    backup_dir: &Path,
) -> Result<Restored, BackupError> {
    let Expected {
        configuration,
        changes,
        main,
    } = expected;
    let mut state: TrainingState = serde_json::from_value(generation.manifest().state.clone())
        .map_err(|source| foreign(backup_dir, Some(source)))?;
    if !state.is_possible() {
        return Err(foreign(backup_dir, None));
    }
    // A backup of an earlier version does not say.
    state.optimizer_steps = state.optimizer_steps();
    let mut changed = match &state.configuration {
        Some(recorded) => configuration.check(recorded, changes, backup_dir)?,
        None => Vec::new(),
    };
    if state.burn != BURN_VERSION {
        if !changes.allows(Change::BurnVersion) {
            return Err(BackupError::ConfigurationMismatch {
                path: backup_dir.to_path_buf(),
                what: "the version of Burn".to_owned(),
                recorded: state.burn,
                found: BURN_VERSION.to_owned(),
                change: Change::BurnVersion,
            });
        }
        changed.push(Change::BurnVersion);
        BURN_VERSION.clone_into(&mut state.burn);
    }
    let mut taken = |name| {
        let bytes = generation.take_part(name)?;
        Some(aligned(bytes).shared())
    };
    let frozen = taken(FROZEN);
    let mut part = |name| taken(name).ok_or_else(|| foreign(backup_dir, None));
    let (model, scheduler) = (part(MODEL)?, part(SCHEDULER)?);
    let optimizer = generation.take_pieces(OPTIMIZER);
    let optimizer = optimizer.ok_or_else(|| foreign(backup_dir, None))?;

    load_model(learner, &state, model, frozen.clone(), backup_dir)?;
    if let Some(untrained) = &state.untrained {
        // As it will be trained.
        let trained = trained::check(untrained, &learner.model().fork(main), backup_dir);
        match trained {
            Err(BackupError::TrainedMismatch { .. })
                if changes.allows(Change::TrainedParameters) =>
            {
                changed.push(Change::TrainedParameters);
            }
            trained => trained?,
        }
    }

    let fresh = learner.clone();
    load_scheduler(learner, scheduler.clone())?;
    let optimizer = Container::of_pieces(optimizer).map_err(failed(OPTIMIZER))?;
    let misfit = fit::misfit(learner, &optimizer, scheduler, reader);
    let misfit = misfit.map_err(failed(OPTIMIZER))?;
    let keeps_optimizer = match misfit {
        None => true,
        Some(Misfit::SchedulerLost { .. }) if changes.allows(Change::Schedule) => {
            changed.push(Change::Schedule);
            true
        }
        Some(Misfit::OptimizerLost { .. } | Misfit::OptimizerConverted { .. })
            if changes.allows(Change::Optimizer) =>
        {
            changed.push(Change::Optimizer);
            false
        }
        Some(misfit) => return Err(misfit.into_mismatch(backup_dir)),
    };
    if changed.contains(&Change::Schedule) {
        // The program's own, where it would be now.
        *learner = fresh;
        for _ in 0..state.optimizer_steps() {
            learner.lr_step();
        }
        state.learning_rate = Some(learner.lr_current().base()).filter(|rate| rate.is_finite());
    }
    let fit = match keeps_optimizer {
        true => {
            let fit = Fit::checked(optimizer.scalars.len() + optimizer.tensors.len());
            learner.load_optim(optimizer_record(optimizer).map_err(failed(OPTIMIZER))?);
            fit
        }
        false => Fit::default(),
    };
    state.configuration = Some(configuration.clone());
    let frozen = match frozen {
        Some(bytes) => {
            let outline = Outline::of(bytes).map_err(failed(FROZEN))?;
            Frozen::continued(outline.entries.into_keys().collect())
        }
        None => Frozen::default(),
    };
    Ok(Restored {
        state,
        frozen,
        fit,
        changed,
    })
}

/// Loads the weights of `generation`, which may be another training's, into `learner`.
pub(crate) fn load_weights<M: LearnerModel>(
    learner: &mut Learner<M>,
    mut generation: Generation,
    backup_dir: &Path,
) -> Result<(), BackupError> {
    let state: TrainingState = serde_json::from_value(generation.manifest().state.clone())
        .map_err(|source| foreign(backup_dir, Some(source)))?;
    let mut taken = |name| Some(aligned(generation.take_part(name)?).shared());
    let frozen = taken(FROZEN);
    let model = taken(MODEL).ok_or_else(|| foreign(backup_dir, None))?;
    load_model(learner, &state, model, frozen, backup_dir)
}

impl BackupAndRestore {
    /// Has `model` train the parameters that were trained when the newest backup was made, and freezes the
    /// others; gives it as it is if there is no backup. For programs that freeze or unfreeze layers while
    /// they train: Burn's records don't hold `set_require_grad`. Call it before the learner is made.
    ///
    /// # Errors
    ///
    /// [`BackupError::Store`] if the backup can't be read, or another training uses it, and
    /// [`BackupError::ForeignBackup`].
    ///
    /// # Example
    ///
    /// ```no_run
    /// use burn::module::Module;
    /// use burn_backup_restore::{BackupAndRestore, BackupError};
    ///
    /// fn prepare<M: Module>(model: M) -> Result<(M, BackupAndRestore), BackupError> {
    ///     let backup = BackupAndRestore::new("backup");
    ///     let model = backup.restore_trained(model)?;
    ///     Ok((model, backup))
    /// }
    /// ```
    pub fn restore_trained<M: Module>(&self, model: M) -> Result<M, BackupError> {
        match untrained(&self.backup_dir, self.handle.filesystem())? {
            Some(untrained) => Ok(trained::apply(&untrained, model)),
            None => Ok(model),
        }
    }
}

/// The paths of the parameters that were not trained when the newest backup in `backup_dir` was made; `None`
/// if there is no backup, or it does not say.
fn untrained(
    backup_dir: &Path,
    filesystem: Arc<dyn Filesystem>,
) -> Result<Option<Vec<String>>, BackupError> {
    if !Store::is_present(backup_dir, filesystem.as_ref())? {
        return Ok(None);
    }
    let store = Store::open(backup_dir, OpenOptions::default().filesystem(filesystem))?;
    let Some(generation) = store.newest()? else {
        return Ok(None);
    };
    let state: TrainingState = serde_json::from_value(generation.manifest().state.clone())
        .map_err(|source| foreign(backup_dir, Some(source)))?;
    Ok(state.untrained)
}

fn load_model<M: LearnerModel>(
    learner: &mut Learner<M>,
    state: &TrainingState,
    changing: Bytes,
    frozen: Option<Bytes>,
    backup_dir: &Path,
) -> Result<(), BackupError> {
    let differences = fingerprint::differences(&state.model, &learner.model());
    if !differences.is_empty() {
        return Err(BackupError::ModelMismatch {
            path: backup_dir.to_path_buf(),
            differences,
        });
    }
    let mut records = vec![ModuleRecord::from_bytes(changing).map_err(failed(MODEL))?];
    if let Some(frozen) = frozen {
        records.push(ModuleRecord::from_bytes(frozen).map_err(failed(FROZEN))?);
    }
    if records.iter().map(ModuleRecord::len).sum::<usize>() != state.model.len() {
        return Err(foreign(backup_dir, None));
    }
    for record in records {
        // That it fits is known by now; what follows must not panic.
        let record = record.validate(false).allow_partial(true);
        learner.load_model(record.allow_unused(true));
    }
    Ok(())
}

fn load_scheduler<M: LearnerModel>(
    learner: &mut Learner<M>,
    bytes: Bytes,
) -> Result<(), BackupError> {
    let record = LrSchedulerRecord::from_bytes(bytes).map_err(failed(SCHEDULER))?;
    learner.load_scheduler(record);
    Ok(())
}

fn foreign(backup_dir: &Path, source: Option<serde_json::Error>) -> BackupError {
    BackupError::ForeignBackup {
        path: backup_dir.to_path_buf(),
        source,
    }
}

fn failed(part: &'static str) -> impl FnOnce(RecordError) -> BackupError {
    move |source| BackupError::Record {
        operation: "decode",
        part,
        source,
    }
}
