//! From a verified generation to a learner that is where it was.

use std::path::Path;

use burn::lr_scheduler::LrSchedulerRecord;
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::Bytes;
use burn::train::{Learner, LearnerModel};
use burn_backup_store::Generation;

use crate::burn_api::{Outline, RecordReader, optimizer_record};
use crate::burnpack::{Container, aligned};
use crate::encode::{FROZEN, Frozen, MODEL, OPTIMIZER, SCHEDULER};
use crate::error::BackupError;
use crate::fingerprint;
use crate::fit::{self, Fit};
use crate::state::TrainingState;

/// What a generation says besides what is in the learner now.
pub(crate) struct Restored {
    pub state: TrainingState,
    pub frozen: Frozen,
    pub fit: Fit,
}

/// Loads `generation` into `learner`, after checking that it fits: Burn panics on a model that
/// doesn't, and says nothing of an optimizer or a scheduler that doesn't.
pub(crate) fn restore<M: LearnerModel>(
    learner: &mut Learner<M>,
    mut generation: Generation,
    reader: &mut RecordReader<M>,
    backup_dir: &Path,
) -> Result<Restored, BackupError> {
    let state: TrainingState = serde_json::from_value(generation.manifest().state.clone())
        .map_err(|source| foreign(backup_dir, Some(source)))?;
    if !state.is_possible() {
        return Err(foreign(backup_dir, None));
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
    load_scheduler(learner, scheduler.clone())?;
    let optimizer = Container::of_pieces(optimizer).map_err(failed(OPTIMIZER))?;
    let misfit = fit::misfit(learner, &optimizer, scheduler, reader);
    if let Some(misfit) = misfit.map_err(failed(OPTIMIZER))? {
        return Err(misfit.into_mismatch(backup_dir));
    }
    let fit = Fit::checked(optimizer.scalars.len() + optimizer.tensors.len());
    learner.load_optim(optimizer_record(optimizer).map_err(failed(OPTIMIZER))?);
    let frozen = match frozen {
        Some(bytes) => {
            let outline = Outline::of(bytes).map_err(failed(FROZEN))?;
            Frozen::continued(outline.entries.into_keys().collect())
        }
        None => Frozen::default(),
    };
    Ok(Restored { state, frozen, fit })
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
