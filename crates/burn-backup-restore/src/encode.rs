//! From a snapshot to the parts of a generation: Burn's own records in the burnpack format.

mod frozen;
pub(crate) mod model;

use std::collections::{HashMap, HashSet};
use std::panic::resume_unwind;

use burn::store::RecordError;
use burn::train::LearnerModel;
use burn_backup_store::{PartDigest, Staging, StoreError};
use burn_pack::Tensor;
use xxhash_rust::xxh3::Xxh3;

use crate::burn_api::RecordReader;
use crate::burnpack::{Chunk, Container};
use crate::error::BackupError;
use crate::fingerprint;
use crate::poison;
use crate::snapshot::{Contents, ReadRecords, Taken};
use crate::state::TrainingState;

pub(crate) use frozen::Frozen;

/// The names of a backup's parts; also what messages call the records.
pub(crate) const MODEL: &str = "model";
/// Those of the model's tensors that training leaves alone, if that is worth a part.
pub(crate) const FROZEN: &str = "frozen";
pub(crate) const OPTIMIZER: &str = "optimizer";
pub(crate) const SCHEDULER: &str = "scheduler";

/// Makes the parts of backups.
pub(crate) struct Encoder<M: LearnerModel> {
    pub reader: RecordReader<M>,
    pub frozen: Frozen,
    /// Whether a model that holds NaN is an error.
    pub skip_nan: bool,
}

impl<M: LearnerModel> Encoder<M> {
    /// Writes the snapshot's parts, and gives the state document back with the model's fingerprint
    /// in it.
    pub(crate) fn encode(
        &mut self,
        snapshot: Taken<M>,
        staging: &mut Staging<'_>,
    ) -> Result<TrainingState, BackupError> {
        let Taken {
            mut state,
            contents,
        } = snapshot;
        let (optimizer, scheduler) = match contents {
            Contents::Shared(shared) => {
                let (model, learner) = shared.into_parts();
                let without_gradient = model::without_gradient(&learner.model());
                let tensors = model::tensors(&model);
                drop(model);
                state.model = fingerprint::of_tensors(&tensors);
                let (frozen, skip_nan) = (&mut self.frozen, self.skip_nan);
                // While the model is being written, the optimizer's state is read.
                let (written, read) = std::thread::scope(|scope| {
                    let writing = scope.spawn(|| {
                        let mut parts = ModelParts { frozen, skip_nan };
                        parts.write(tensors, &without_gradient, staging)
                    });
                    let read = self.reader.read(&learner);
                    let written = writing.join().unwrap_or_else(|panic| resume_unwind(panic));
                    (written, read)
                });
                written?;
                read.map_err(failed(OPTIMIZER))?
            }
            Contents::Read(records) => {
                let ReadRecords {
                    model,
                    without_gradient,
                    optimizer,
                    scheduler,
                } = records?;
                state.model = fingerprint::of_tensors(&model);
                let mut parts = ModelParts {
                    frozen: &mut self.frozen,
                    skip_nan: self.skip_nan,
                };
                parts.write(model, &without_gradient, staging)?;
                (optimizer, scheduler)
            }
        };
        write(OPTIMIZER, optimizer, staging, |_| Ok(()))?;
        let mut part = staging.part(SCHEDULER)?;
        part.append(scheduler.to_vec())?;
        part.finish()?;
        Ok(state)
    }
}

/// Refuses a model that is about to push the last good backup out.
pub(crate) fn check<M: LearnerModel>(model: M) -> Result<(), BackupError> {
    let container = Container::from(model::tensors(&model));
    container.stream(failed(MODEL), |chunk| refuse_nan(&chunk))
}

/// Writes the parts that hold the model.
struct ModelParts<'a> {
    frozen: &'a mut Frozen,
    skip_nan: bool,
}

impl ModelParts<'_> {
    fn write(
        &mut self,
        tensors: Vec<Tensor>,
        without_gradient: &HashSet<String>,
        staging: &mut Staging<'_>,
    ) -> Result<(), BackupError> {
        let skip_nan = self.skip_nan;
        let check = |chunk: &Chunk| if skip_nan { refuse_nan(chunk) } else { Ok(()) };
        let (changing, frozen) = loop {
            let divided = self.frozen.divide(&tensors, without_gradient);
            if divided.frozen.is_empty() {
                break (divided.changing, None);
            }
            let frozen = Container::from(divided.frozen.clone());
            let (digest, hashes) = digest(frozen, check)?;
            if !self.frozen.note(hashes) {
                break (divided.changing, Some((divided.frozen, digest)));
            }
        };
        drop(tensors);
        if let Some((frozen, digest)) = frozen
            && !staging.link(FROZEN, &digest)?
        {
            write(FROZEN, frozen.into(), staging, |_| Ok(()))?;
        }
        write(MODEL, changing.into(), staging, check)
    }
}

/// What the part would be, and the hash of each of its tensors.
fn digest(
    container: Container,
    check: impl Fn(&Chunk) -> Result<(), BackupError>,
) -> Result<(PartDigest, HashMap<String, u128>), BackupError> {
    let mut digest = PartDigest::default();
    let mut hashes: HashMap<String, Xxh3> = HashMap::new();
    container.stream(failed(FROZEN), |chunk| {
        check(&chunk)?;
        digest.update(chunk.as_ref());
        if let Some((name, _)) = &chunk.tensor {
            let hash = hashes.entry(name.clone()).or_default();
            hash.update(chunk.as_ref());
        }
        Ok(())
    })?;
    let hashes = hashes.into_iter();
    let hashes = hashes.map(|(name, hash)| (name, hash.digest128()));
    Ok((digest, hashes.collect()))
}

fn write(
    name: &'static str,
    container: Container,
    staging: &mut Staging<'_>,
    check: impl Fn(&Chunk) -> Result<(), BackupError>,
) -> Result<(), BackupError> {
    let mut part = staging.part(name)?;
    container.stream(failed(name), |chunk| {
        check(&chunk)?;
        part.append(chunk).map_err(StoreError::into)
    })?;
    Ok(part.finish()?)
}

fn refuse_nan(chunk: &Chunk) -> Result<(), BackupError> {
    match &chunk.tensor {
        Some((parameter, dtype)) if poison::holds_nan(*dtype, chunk.as_ref()) => {
            Err(BackupError::Poisoned {
                parameter: parameter.clone(),
            })
        }
        _ => Ok(()),
    }
}

pub(crate) fn failed(part: &'static str) -> impl Fn(RecordError) -> BackupError {
    move |source| BackupError::Record {
        operation: "encode",
        part,
        source,
    }
}
