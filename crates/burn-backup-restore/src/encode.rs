//! From a snapshot to the parts of a generation: Burn's own records in the burnpack format.

mod frozen;
pub(crate) mod model;

use std::collections::{HashMap, HashSet};
use std::panic::resume_unwind;
use std::sync::mpsc::channel;

use burn::store::RecordError;
use burn::tensor::Bytes;
use burn::train::LearnerModel;
use burn_backup_store::{PartDigest, Staging, StoreError};
use burn_pack::Tensor;
use xxhash_rust::xxh3::Xxh3;

use crate::burn_api::RecordReader;
use crate::burnpack::{Chunk, Container};
use crate::error::BackupError;
use crate::fingerprint;
use crate::poison;
use crate::snapshot::{Contents, ReadRecords, Shared};
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
    /// Writes the parts of a snapshot with these contents, and the model's fingerprint into the state
    /// document.
    pub(crate) fn encode(
        &mut self,
        contents: Contents<M>,
        state: &mut TrainingState,
        staging: &mut Staging<'_>,
    ) -> Result<(), BackupError> {
        match contents {
            Contents::Shared(shared) => self.write_shared(*shared, state, staging),
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
                write_others(optimizer, &scheduler, staging)
            }
        }
    }

    /// Writes the model while the optimizer's and the scheduler's records are read, and then these.
    fn write_shared(
        &mut self,
        shared: Shared<M>,
        state: &mut TrainingState,
        staging: &mut Staging<'_>,
    ) -> Result<(), BackupError> {
        let (model, learner) = shared.into_parts();
        let without_gradient = model::without_gradient(&learner.model());
        let tensors = model::tensors(&model);
        drop(model);
        state.model = fingerprint::of_tensors(&tensors);
        let Self {
            reader,
            frozen,
            skip_nan,
        } = self;
        let mut parts = ModelParts {
            frozen,
            skip_nan: *skip_nan,
        };
        std::thread::scope(|scope| {
            let (sender, records) = channel();
            let read = move || {
                // Nobody waits for them if the model can't be written.
                let _ = sender.send(reader.read(&learner));
                // What the training has replaced since goes with the learner, which takes its time.
                drop(learner);
            };
            let reading = std::thread::Builder::new()
                .name("backup-read".to_owned())
                .spawn_scoped(scope, read)
                .map_err(BackupError::Thread)?;
            parts.write(tensors, &without_gradient, staging)?;
            match records.recv() {
                Ok(read) => {
                    let (optimizer, scheduler) = read.map_err(failed(OPTIMIZER))?;
                    write_others(optimizer, &scheduler, staging)
                }
                // It has panicked.
                Err(_) => match reading.join() {
                    Err(panic) => resume_unwind(panic),
                    Ok(()) => Err(BackupError::Panicked {
                        message: "no message".to_owned(),
                    }),
                },
            }
        })
    }
}

fn write_others(
    optimizer: Container,
    scheduler: &Bytes,
    staging: &mut Staging<'_>,
) -> Result<(), BackupError> {
    write(OPTIMIZER, optimizer, staging, |_| Ok(()))?;
    let mut part = staging.part(SCHEDULER)?;
    part.append(scheduler.to_vec())?;
    Ok(part.finish()?)
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
