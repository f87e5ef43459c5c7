//! The part of the backup with the record of an agent or a policy.

use std::mem;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::store::RecordError;
use burn::tensor::Bytes;
use burn::train::checkpoint::Checkpoint;
use burn_pack::Tensor;

use crate::burn_api::DeviceRead;
use crate::burn_api::burnpack::Container;
use crate::change::Change;
use crate::error::BackupError;
use crate::fingerprint::{differences_between, of_tensors};
use crate::part::{self, VALUE, failed, unreadable};
use crate::resume::{Expected, LoadPart, Loaded, SavedPart};
use crate::save::{
    Fit, OtherRecords, RunningStates, SavePart, SharedModel, SharedPart, refuse_nan,
};

/// The checks of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    /// The record of a model: a restart needs the same parameters, and NaN is rejected if `refuse_nan` is set.
    Model { refuse_nan: bool },
    /// No checks.
    Nothing,
}

/// Encodes a record, on any thread.
type Encode = Box<dyn FnOnce() -> Result<Bytes, RecordError> + Send>;

/// An encoder for a record. The record is made when it is encoded.
pub(super) fn encoding<R: Checkpoint>(record: impl FnOnce() -> R + Send + 'static) -> Encode {
    Box::new(|| record().checkpoint_into_bytes())
}

/// A part whose record is taken when it is saved.
pub(super) struct RecordOf<'t, S> {
    /// The part's name.
    pub name: &'static str,
    /// The owner of the record.
    pub of: &'t S,
    /// Captures what is needed to make the record.
    pub take: fn(&S) -> Encode,
    pub check: Check,
}

impl<S> RecordOf<'_, S> {
    fn record(&self) -> SharedRecord {
        SharedRecord::new(self.name, (self.take)(self.of), self.check)
    }
}

impl<S> SavePart for RecordOf<'_, S> {
    fn snapshot(&self, _running_states: RunningStates) -> Box<dyn SharedPart> {
        Box::new(self.record())
    }

    fn model(&self) -> Option<Vec<Tensor>> {
        match self.check {
            Check::Model { .. } => tensors(self.record().bytes().ok()?.as_slice()),
            Check::Nothing => None,
        }
    }
}

/// A record that its owner will load. Loading consumes the owner, so the owner itself can't take part in the restore.
pub(super) struct RecordSlot<R> {
    /// The program's own record.
    current: SharedRecord,
    loaded: Option<R>,
}

impl<R: Checkpoint> RecordSlot<R> {
    /// `current` is the program's own record, to compare with the saved one.
    pub(super) fn new(name: &'static str, current: R, check: Check) -> Self {
        Self {
            current: SharedRecord::new(name, encoding(|| current), check),
            loaded: None,
        }
    }

    /// The restored record.
    pub(super) fn into_loaded(self) -> Option<R> {
        self.loaded
    }

    /// Checks that a model has the saved parameters, as far as the records show.
    fn check_model(&self, saved: &[u8], backup_dir: &Path) -> Result<(), BackupError> {
        let Check::Model { .. } = self.current.check else {
            return Ok(());
        };
        let current = self.current.bytes().map_err(BackupError::Shared)?;
        let (Some(saved), Some(current)) = (tensors(saved), tensors(&current)) else {
            return Ok(());
        };
        let mut differences = differences_between(&of_tensors(&saved), &of_tensors(&current));
        if differences.is_empty() {
            return Ok(());
        }
        for difference in &mut differences {
            difference.path = format!("{}: {}", self.current.name, difference.path);
        }
        Err(BackupError::ModelMismatch {
            path: backup_dir.to_path_buf(),
            differences,
        })
    }

    fn read(saved: &SavedPart, backup_dir: &Path) -> Result<R, BackupError> {
        let bytes = saved.value(backup_dir)?;
        R::checkpoint_from_bytes(bytes.clone()).map_err(unreadable(&part::name(&saved.name, VALUE)))
    }
}

impl<R: Checkpoint> SavePart for RecordSlot<R> {
    fn snapshot(&self, _running_states: RunningStates) -> Box<dyn SharedPart> {
        self.current.again()
    }

    fn outline(&self) -> Option<Vec<Tensor>> {
        tensors(self.current.bytes().ok()?.as_slice())
    }
}

impl<R: Checkpoint> LoadPart for RecordSlot<R> {
    fn check(
        &self,
        saved: &SavedPart,
        expected: &Expected<'_>,
    ) -> Result<Vec<Change>, BackupError> {
        self.check_model(saved.value(expected.backup_dir)?, expected.backup_dir)?;
        Self::read(saved, expected.backup_dir)?;
        Ok(Vec::new())
    }

    fn load(
        &mut self,
        saved: SavedPart,
        _changed: &mut Vec<Change>,
        expected: &Expected<'_>,
    ) -> Result<Loaded, BackupError> {
        self.loaded = Some(Self::read(&saved, expected.backup_dir)?);
        Ok(Loaded::default())
    }

    fn load_weights(&mut self, saved: SavedPart, backup_dir: &Path) -> Result<(), BackupError> {
        if let Check::Model { .. } = self.current.check {
            self.check_model(saved.value(backup_dir)?, backup_dir)?;
            self.loaded = Some(Self::read(&saved, backup_dir)?);
        }
        Ok(())
    }
}

/// A record at one moment. It is encoded on first use, and its clones share the bytes.
struct SharedRecord {
    name: &'static str,
    check: Check,
    encoding: Arc<Mutex<Encoding>>,
}

enum Encoding {
    Pending(Encode),
    Bytes(Arc<Vec<u8>>),
    Failed(Arc<BackupError>),
}

impl SharedRecord {
    fn new(name: &'static str, encode: Encode, check: Check) -> Self {
        Self {
            name,
            check,
            encoding: Arc::new(Mutex::new(Encoding::Pending(encode))),
        }
    }

    fn bytes(&self) -> Result<Arc<Vec<u8>>, Arc<BackupError>> {
        let mut encoding = self.encoding();
        // This value stays if the record's code panics.
        let panicked = Encoding::Failed(Arc::new(BackupError::Panicked {
            message: format!("the record '{}' could not be encoded", self.name),
        }));
        *encoding = match mem::replace(&mut *encoding, panicked) {
            Encoding::Pending(encode) => match encode() {
                Ok(bytes) => Encoding::Bytes(Arc::new(bytes.to_vec())),
                Err(error) => Encoding::Failed(Arc::new(failed(self.name)(error))),
            },
            known => known,
        };
        match &*encoding {
            Encoding::Bytes(bytes) => Ok(bytes.clone()),
            Encoding::Failed(error) => Err(error.clone()),
            Encoding::Pending(_) => Ok(Arc::default()),
        }
    }

    /// After a panic the value is an error, so a poisoned lock is still used.
    fn encoding(&self) -> MutexGuard<'_, Encoding> {
        self.encoding.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SharedPart for SharedRecord {
    fn model(&self, _read: DeviceRead) -> Option<SharedModel> {
        None
    }

    fn others(&self, _fit: &mut Fit) -> Result<OtherRecords, BackupError> {
        let bytes = self.bytes().map_err(BackupError::Shared)?;
        if self.check == (Check::Model { refuse_nan: true })
            && let Some(tensors) = tensors(&bytes)
        {
            refuse_nan(tensors)?;
        }
        Ok(OtherRecords {
            value: Some(bytes),
            ..OtherRecords::default()
        })
    }

    fn again(&self) -> Box<dyn SharedPart> {
        Box::new(Self {
            name: self.name,
            check: self.check,
            encoding: self.encoding.clone(),
        })
    }
}

/// The tensors of a record in Burn's format. An agent's record may have another format.
fn tensors(bytes: &[u8]) -> Option<Vec<Tensor>> {
    let bytes = Bytes::from_bytes_vec(bytes.to_vec()).shared();
    Some(Container::from_bytes(bytes).ok()?.tensors)
}
