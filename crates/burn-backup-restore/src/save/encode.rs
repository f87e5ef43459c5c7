//! Writes a snapshot as the parts of a generation: Burn's own records in the burnpack format.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::resume_unwind;
use std::sync::mpsc::{RecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ScopedJoinHandle;

use burn_backup_store::{PartDigest, Staging};
use burn_pack::Tensor;
use xxhash_rust::xxh3::Xxh3;

use super::fit::Fit;
use super::frozen::Frozen;
use super::poison;
use super::snapshot::{Contents, OtherRecords, PartSnapshot, Records, SharedModel, SharedPart};
use crate::burn_api::DeviceRead;
use crate::burn_api::burnpack::{Chunk, Container, ExceededLimit};
use crate::error::BackupError;
use crate::fingerprint;
use crate::part::{self, FROZEN, MODEL, OPTIMIZER, SCHEDULER, VALUE, failed};
use crate::state::TrainingState;

/// Writes the parts of backups.
pub(crate) struct Encoder {
    /// The memory of each part, by its name.
    pub memories: Memories,
    /// Whether a model that contains NaN is an error.
    pub refuse_nan: bool,
}

/// The memory of each part, by its name.
pub(crate) type Memories = BTreeMap<String, Memory>;

/// Information about a part that is kept from one backup to the next.
#[derive(Default)]
pub(crate) struct Memory {
    pub fit: Fit,
    pub frozen: Frozen,
}

impl Encoder {
    /// Writes the parts of a snapshot, and the fingerprints of the models into the state document.
    pub(crate) fn encode(
        &mut self,
        parts: Vec<PartSnapshot>,
        state: &mut TrainingState,
        staging: &mut Staging<'_>,
    ) -> Result<(), BackupError> {
        for PartSnapshot { name, contents } in parts {
            let mut writer = PartWriter {
                memory: self.memories.entry(name.clone()).or_default(),
                name,
                refuse_nan: self.refuse_nan,
                state,
            };
            match contents {
                Contents::Shared(shared) => writer.write_shared(shared, staging)?,
                Contents::Taken(records) => writer.write_read(records?, staging)?,
            }
        }
        Ok(())
    }
}

/// Writes one part of the training's state.
struct PartWriter<'e> {
    name: String,
    memory: &'e mut Memory,
    refuse_nan: bool,
    state: &'e mut TrainingState,
}

impl PartWriter<'_> {
    fn write_read(
        &mut self,
        Records { model, others }: Records,
        staging: &mut Staging<'_>,
    ) -> Result<(), BackupError> {
        let others = checked(&self.name, others)?;
        if let Some(model) = model {
            let model = self.described(model)?;
            self.model_parts().write(model, staging)?;
        }
        write_others(&self.name, others, staging)
    }

    /// Writes the model while the other records are read, and then the other records.
    fn write_shared(
        &mut self,
        shared: Box<dyn SharedPart>,
        staging: &mut Staging<'_>,
    ) -> Result<(), BackupError> {
        let model = match shared.model(DeviceRead::Now) {
            Some(model) => self.described(model)?,
            None => {
                let others = shared.others(&mut self.memory.fit)?;
                let others = others.into_memory(&self.name)?;
                return write_others(&self.name, checked(&self.name, others)?, staging);
            }
        };
        let name = self.name.clone();
        let read_others = |shared: Box<dyn SharedPart>, fit: &mut Fit| {
            let others = shared.others(fit)?.into_memory(&name)?;
            drop(shared);
            checked(&name, others)
        };
        // Before the first backup, check that a restart can use the records, and write only then. Later
        // backups write the model while the other records are read.
        if self.memory.fit.is_unknown() {
            let others = read_others(shared, &mut self.memory.fit)?;
            self.model_parts().write(model, staging)?;
            return write_others(&name, others, staging);
        }
        let Memory { fit, frozen } = &mut *self.memory;
        let mut parts = ModelParts {
            name: &self.name,
            frozen,
            refuse_nan: self.refuse_nan,
        };
        let (sender, inbox) = channel();
        // The thread that reads takes these.
        let tools = Mutex::new(Some((shared, fit, sender)));
        let read = || {
            let taken = tools.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some((shared, fit, sender)) = taken {
                // If the model can't be written, nothing receives the records.
                let _ = sender.send(read_others(shared, fit));
            }
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("backup-read".to_owned());
            let reading = thread.spawn_scoped(scope, read).ok();
            parts.write(model, staging)?;
            if reading.is_none() {
                // The thread could not be started, so read here.
                read();
            }
            match inbox.recv() {
                Ok(others) => write_others(&name, others?, staging),
                // The reading thread has panicked.
                Err(RecvError) => match reading.map(ScopedJoinHandle::join) {
                    Some(Err(panic)) => resume_unwind(panic),
                    _ => Err(BackupError::Panicked {
                        message: "no message".to_owned(),
                    }),
                },
            }
        })
    }

    /// Checks that the model can be read again, and describes it in the state document.
    fn described(&mut self, model: SharedModel) -> Result<SharedModel, BackupError> {
        let name = part::name(&self.name, MODEL);
        let tensors = within_limits(&name, model.tensors.into())?.tensors;
        let mut document = self.state.document(&self.name);
        document.model = fingerprint::of_tensors(&tensors);
        document.untrained = Some(sorted(&model.without_gradient));
        self.state.describe(&self.name, document);
        Ok(SharedModel { tensors, ..model })
    }

    fn model_parts(&mut self) -> ModelParts<'_> {
        ModelParts {
            name: &self.name,
            frozen: &mut self.memory.frozen,
            refuse_nan: self.refuse_nan,
        }
    }
}

fn sorted(paths: &HashSet<String>) -> Vec<String> {
    let mut sorted: Vec<_> = paths.iter().cloned().collect();
    sorted.sort_unstable();
    sorted
}

/// Returns the records other than the model, if Burn's reader accepts them.
fn checked(name: &str, others: OtherRecords) -> Result<OtherRecords, BackupError> {
    let optimizer = others.optimizer.map(|optimizer| {
        let part = part::name(name, OPTIMIZER);
        within_limits(&part, optimizer)
    });
    Ok(OtherRecords {
        optimizer: optimizer.transpose()?,
        ..others
    })
}

/// Returns the container, if Burn's reader accepts it.
pub(crate) fn within_limits(part: &str, container: Container) -> Result<Container, BackupError> {
    match container.exceeded_limit().map_err(failed(part))? {
        None => Ok(container),
        Some(ExceededLimit { what, found, limit }) => Err(BackupError::TooLarge {
            part: part.to_owned(),
            what,
            found,
            limit,
        }),
    }
}

fn write_others(
    name: &str,
    others: OtherRecords,
    staging: &mut Staging<'_>,
) -> Result<(), BackupError> {
    let OtherRecords {
        optimizer,
        scheduler,
        value,
        segments,
    } = others;
    if let Some(optimizer) = optimizer {
        write(&part::name(name, OPTIMIZER), optimizer, staging, false)?;
    }
    if let Some(scheduler) = scheduler {
        let mut part = staging.part(&part::name(name, SCHEDULER))?;
        part.append(scheduler.to_vec())?;
        part.finish()?;
    }
    if let Some(value) = value {
        let mut part = staging.part(&part::name(name, VALUE))?;
        part.append(Arc::unwrap_or_clone(value))?;
        part.finish()?;
    }
    for segment in segments {
        write_segment(&part::name(name, &segment.name), segment.bytes, staging)?;
    }
    Ok(())
}

/// Writes bytes, unless the previous backup has the same ones.
fn write_segment(
    name: &str,
    bytes: Arc<Vec<u8>>,
    staging: &mut Staging<'_>,
) -> Result<(), BackupError> {
    let mut digest = PartDigest::default();
    digest.update(&bytes);
    if staging.link(name, &digest)? {
        return Ok(());
    }
    let mut part = staging.part(name)?;
    part.append(Arc::unwrap_or_clone(bytes))?;
    Ok(part.finish()?)
}

/// Refuses a model with NaN that would replace the last good backup.
pub(crate) fn refuse_nan(model: Vec<Tensor>) -> Result<(), BackupError> {
    let container = Container::from(model);
    container.stream(failed(MODEL), |chunk| refuse_nan_in(&chunk))
}

/// Writes the parts of a model.
struct ModelParts<'a> {
    name: &'a str,
    frozen: &'a mut Frozen,
    refuse_nan: bool,
}

impl ModelParts<'_> {
    fn write(&mut self, model: SharedModel, staging: &mut Staging<'_>) -> Result<(), BackupError> {
        let SharedModel {
            tensors,
            without_gradient,
        } = model;
        let (model_part, frozen_part) =
            (part::name(self.name, MODEL), part::name(self.name, FROZEN));
        let refuse_nan = self.refuse_nan;
        let check = |chunk: &Chunk| {
            if refuse_nan {
                refuse_nan_in(chunk)
            } else {
                Ok(())
            }
        };
        let (changing, frozen) = loop {
            let divided = self.frozen.divide(&tensors, &without_gradient);
            if divided.frozen.is_empty() {
                break (divided.changing, None);
            }
            let frozen = || Container::from(divided.frozen.clone());
            let digest = digest(&frozen_part, frozen(), check)?;
            let is_known = self.frozen.is_as_before(&digest);
            if is_known || !self.frozen.note(hashes(&frozen_part, frozen())?) {
                self.frozen.remember(digest.clone());
                break (divided.changing, Some((divided.frozen, digest)));
            }
        };
        drop(tensors);
        if let Some((frozen, digest)) = frozen
            && !staging.link(&frozen_part, &digest)?
        {
            write(&frozen_part, frozen.into(), staging, false)?;
        }
        write(&model_part, changing.into(), staging, refuse_nan)
    }
}

/// The digest of the part, without writing it.
fn digest(
    part: &str,
    container: Container,
    check: impl Fn(&Chunk) -> Result<(), BackupError>,
) -> Result<PartDigest, BackupError> {
    let mut digest = PartDigest::default();
    container.stream(failed(part), |chunk| {
        check(&chunk)?;
        digest.update(chunk.as_ref());
        Ok(())
    })?;
    Ok(digest)
}

/// The hash of each of the container's tensors.
fn hashes(part: &str, container: Container) -> Result<HashMap<String, u128>, BackupError> {
    let mut hashes: HashMap<String, Xxh3> = HashMap::new();
    container.stream(failed(part), |chunk| {
        if let Some((name, _)) = &chunk.tensor {
            let hash = hashes.entry(name.clone()).or_default();
            hash.update(chunk.as_ref());
        }
        Ok::<_, BackupError>(())
    })?;
    let hashes = hashes.into_iter();
    Ok(hashes
        .map(|(name, hash)| (name, hash.digest128()))
        .collect())
}

/// Writes a part. If `refuse_nan` is set and a tensor contains NaN, an error reports it: from this call, from a later
/// part, or from the commit.
fn write(
    name: &str,
    container: Container,
    staging: &mut Staging<'_>,
    refuse_nan: bool,
) -> Result<(), BackupError> {
    let mut part = staging.part(name)?;
    container.stream(failed(name), |chunk| {
        let appended = match chunk.tensor.clone().filter(|_| refuse_nan) {
            // The writing threads inspect the bytes.
            Some((parameter, dtype)) => {
                part.append_inspected(chunk, move |bytes| match poison::holds_nan(dtype, bytes) {
                    true => Err(BackupError::ContainsNan {
                        parameter: parameter.clone(),
                    }),
                    false => Ok(()),
                })
            }
            None => part.append(chunk),
        };
        appended.map_err(BackupError::from)
    })?;
    Ok(part.finish()?)
}

fn refuse_nan_in(chunk: &Chunk) -> Result<(), BackupError> {
    match &chunk.tensor {
        Some((parameter, dtype)) if poison::holds_nan(*dtype, chunk.as_ref()) => {
            Err(BackupError::ContainsNan {
                parameter: parameter.clone(),
            })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Bytes, DType};
    use burn_backup_store::{OpenOptions, Store};

    use super::*;

    /// More than one block of the store, and not a whole number of its pieces.
    const NUMBERS: usize = 9 * 1024 * 1024 / 4 + 5;

    #[test]
    fn nan_is_refused_anywhere_in_a_part() {
        let temporary = tempfile::tempdir().unwrap();
        let store = Store::open(temporary.path().join("b"), OpenOptions::default()).unwrap();
        let bias = Bytes::from_bytes_vec(1_f32.to_le_bytes().repeat(7));
        let bias = Tensor::new("bias".to_owned(), DType::F32, vec![7], None, bias.shared());
        let ones = 1_f32.to_le_bytes().repeat(NUMBERS);
        let written = |nan_at: Option<usize>, refuse_nan| {
            let mut numbers = ones.clone();
            if let Some(at) = nan_at {
                numbers[4 * at..4 * at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
            }
            let bytes = Bytes::from_bytes_vec(numbers);
            let weight = Tensor::new("weight".to_owned(), DType::F32, vec![NUMBERS], None, bytes);
            let tensors = vec![bias.clone(), weight];
            let mut staging = store.stage()?;
            write(MODEL, tensors.into(), &mut staging, refuse_nan)?;
            staging.commit(1).map_err(BackupError::from)
        };
        let per_mebibyte = 1024 * 1024 / 4;
        let ends = (1..=9).map(|mebibytes| mebibytes * per_mebibyte);
        // Headers and the bias come first, so the ends of pieces and blocks are slightly earlier.
        let around = ends.flat_map(|end| (end - 200..end + 2).step_by(20));
        for at in [0, NUMBERS - 1].into_iter().chain(around) {
            match written(Some(at), true) {
                Err(BackupError::ContainsNan { parameter }) => assert_eq!(parameter, "weight"),
                other => panic!("{at}: {other:?}"),
            }
        }
        assert!(written(Some(7), false).is_ok());
        assert!(written(None, true).is_ok());
    }
}
