//! From a snapshot to the bytes of its parts: Burn's own records in the burnpack format.

use burn::store::RecordError;
use burn::tensor::Bytes;
use burn::train::LearnerModel;

use crate::burn_api::RecordReader;
use crate::error::BackupError;
use crate::fingerprint;
use crate::poison;
use crate::snapshot::Snapshot;
use crate::state::TrainingState;

/// The names of a backup's parts; also what messages call the records.
pub(crate) const MODEL: &str = "model";
pub(crate) const OPTIMIZER: &str = "optimizer";
pub(crate) const SCHEDULER: &str = "scheduler";

/// Hands the snapshot's parts to `write`, each once it is read from the device, and gives the
/// state document back with the model's fingerprint in it. With `skip_nan`, a model that holds NaN
/// is an error.
pub(crate) fn encode<M: LearnerModel>(
    snapshot: Snapshot<M>,
    reader: &mut RecordReader<M>,
    skip_nan: bool,
    mut write: impl FnMut(&'static str, Bytes) -> Result<(), BackupError>,
) -> Result<TrainingState, BackupError> {
    let Snapshot {
        model,
        learner,
        mut state,
    } = snapshot;
    state.model = fingerprint::of_record(&model);

    let model = model.into_record().into_bytes().map_err(failed(MODEL))?;
    let model = model.shared();
    if skip_nan {
        refuse_nan(model.clone())?;
    }
    write(MODEL, model)?;

    let (optimizer, scheduler) = reader.read(&learner).map_err(failed(OPTIMIZER))?;
    drop(learner);
    write(
        OPTIMIZER,
        optimizer.into_bytes().map_err(failed(OPTIMIZER))?,
    )?;
    write(
        SCHEDULER,
        scheduler.into_bytes().map_err(failed(SCHEDULER))?,
    )?;
    Ok(state)
}

/// Refuses a model that is about to push the last good backup out.
pub(crate) fn check<M: LearnerModel>(model: M) -> Result<(), BackupError> {
    let record = model.into_record().into_bytes().map_err(failed(MODEL))?;
    refuse_nan(record.shared())
}

fn refuse_nan(record: Bytes) -> Result<(), BackupError> {
    match poison::first_nan(record).map_err(failed(MODEL))? {
        Some(parameter) => Err(BackupError::Poisoned { parameter }),
        None => Ok(()),
    }
}

fn failed(part: &'static str) -> impl FnOnce(RecordError) -> BackupError {
    move |source| BackupError::Record {
        operation: "encode",
        part,
        source,
    }
}
