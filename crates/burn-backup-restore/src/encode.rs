//! From a snapshot to the parts of a generation: Burn's own records in the burnpack format.

mod frozen;

use std::collections::{HashMap, HashSet};
use std::panic::resume_unwind;
use std::sync::mpsc::{RecvError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::ScopedJoinHandle;

use burn::tensor::Bytes;
use burn::train::{Learner, LearnerModel};
use burn_backup_store::{PartDigest, Staging, StoreError};
use burn_pack::Tensor;
use xxhash_rust::xxh3::Xxh3;

use crate::burn_api::RecordReader;
use crate::burnpack::{Chunk, Container, Excess};
use crate::error::BackupError;
use crate::fingerprint;
use crate::fit::Fit;
use crate::model;
use crate::part::{FROZEN, MODEL, OPTIMIZER, SCHEDULER, failed};
use crate::poison;
use crate::snapshot::{Contents, ReadRecords, Shared};
use crate::state::TrainingState;

pub(crate) use frozen::Frozen;

/// Makes the parts of backups.
pub(crate) struct Encoder<M: LearnerModel> {
    pub reader: RecordReader<M>,
    pub fit: Fit,
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
                let model = within_limits(MODEL, model.into())?.tensors;
                let optimizer = within_limits(OPTIMIZER, optimizer)?;
                state.model = fingerprint::of_tensors(&model);
                state.untrained = Some(sorted(&without_gradient));
                let mut parts = ModelParts {
                    frozen: &mut self.frozen,
                    skip_nan: self.skip_nan,
                };
                parts.write(model, &without_gradient, staging)?;
                write_others((optimizer, scheduler), staging)
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
        let tensors = within_limits(MODEL, model::tensors(&model).into())?.tensors;
        drop(model);
        state.model = fingerprint::of_tensors(&tensors);
        state.untrained = Some(sorted(&without_gradient));
        let Self {
            reader,
            fit,
            frozen,
            skip_nan,
        } = self;
        let mut parts = ModelParts {
            frozen,
            skip_nan: *skip_nan,
        };
        // Nothing is written before it is known that a restart can use it. After that the model is
        // written while the others are read.
        if fit.is_unknown() {
            let records = read_others(&learner, reader, fit)?;
            drop(learner);
            parts.write(tensors, &without_gradient, staging)?;
            return write_others(records, staging);
        }
        let (sender, inbox) = channel();
        // Whoever reads takes these.
        let tools = Mutex::new(Some((learner, reader, fit, sender)));
        let read = || {
            let taken = tools.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some((learner, reader, fit, sender)) = taken {
                // Nobody waits for them if the model can't be written.
                let _ = sender.send(read_others(&learner, reader, fit));
                // What the training has replaced since goes with the learner, which takes its time.
                drop(learner);
            }
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("backup-read".to_owned());
            let reading = thread.spawn_scoped(scope, read).ok();
            parts.write(tensors, &without_gradient, staging)?;
            if reading.is_none() {
                // No thread could be had.
                read();
            }
            match inbox.recv() {
                Ok(records) => write_others(records?, staging),
                // It has panicked.
                Err(RecvError) => match reading.map(ScopedJoinHandle::join) {
                    Some(Err(panic)) => resume_unwind(panic),
                    _ => Err(BackupError::Panicked {
                        message: "no message".to_owned(),
                    }),
                },
            }
        })
    }
}

fn sorted(paths: &HashSet<String>) -> Vec<String> {
    let mut sorted: Vec<_> = paths.iter().cloned().collect();
    sorted.sort_unstable();
    sorted
}

/// The records of the optimizer and the scheduler.
type Others = (Container, Bytes);

fn read_others<M: LearnerModel>(
    learner: &Learner<M>,
    reader: &mut RecordReader<M>,
    fit: &mut Fit,
) -> Result<Others, BackupError> {
    let (optimizer, scheduler) = fit.read(learner, reader)?;
    Ok((within_limits(OPTIMIZER, optimizer)?, scheduler))
}

/// The container, if Burn's reader takes it.
pub(crate) fn within_limits(
    part: &'static str,
    container: Container,
) -> Result<Container, BackupError> {
    match container.excess().map_err(failed(part))? {
        None => Ok(container),
        Some(Excess { what, found, limit }) => Err(BackupError::TooLarge {
            part,
            what,
            found,
            limit,
        }),
    }
}

fn write_others(
    (optimizer, scheduler): Others,
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
