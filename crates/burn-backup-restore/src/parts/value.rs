use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::burn_api::DeviceRead;
use crate::change::Change;
use crate::error::BackupError;
use crate::resume::{Expected, LoadPart, Loaded, SavedPart};
use crate::save::{Fit, OtherRecords, RunningStates, SavePart, SharedModel, SharedPart};

/// A value of the program's own: counters, a curriculum, a best loss, a random number generator.
///
/// It is written as [CBOR](https://www.rfc-editor.org/rfc/rfc8949). Unlike JSON, CBOR keeps infinities and NaN, with
/// which a best loss often starts. Encoding happens on the training thread at every snapshot, so a value of many
/// megabytes delays the training.
///
/// # Example
///
/// ```
/// use burn_backup_restore::Value;
///
/// let mut best_loss = Value(f64::INFINITY);
/// *best_loss = best_loss.min(0.5);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Value<T>(pub T);

impl<T> Deref for Value<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Value<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Serialize + DeserializeOwned + 'static> SavePart for Value<T> {
    fn snapshot(&self, _running_states: RunningStates) -> Box<dyn SharedPart> {
        shared_value(encode(&self.0))
    }
}

/// The snapshot of a value: its encoded bytes, or the error of the encoding.
pub(crate) fn shared_value(bytes: Result<Vec<u8>, BackupError>) -> Box<dyn SharedPart> {
    Box::new(SharedValue(bytes.map(Arc::new).map_err(Arc::new)))
}

/// Encodes a value as CBOR.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, BackupError> {
    let mut bytes = Vec::new();
    match ciborium::into_writer(value, &mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => Err(BackupError::Value {
            operation: "encode",
            state: String::new(),
            source: io::Error::other(error.to_string()),
        }),
    }
}

/// Decodes a value from CBOR.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BackupError> {
    ciborium::from_reader(bytes).map_err(|error| BackupError::Value {
        operation: "decode",
        state: String::new(),
        source: io::Error::other(error.to_string()),
    })
}

/// The value's bytes, or the error of encoding them.
struct SharedValue(Result<Arc<Vec<u8>>, Arc<BackupError>>);

impl SharedPart for SharedValue {
    fn model(&self, _read: DeviceRead) -> Option<SharedModel> {
        None
    }

    fn others(&self, _fit: &mut Fit) -> Result<OtherRecords, BackupError> {
        Ok(OtherRecords {
            value: Some(self.0.clone().map_err(BackupError::Shared)?),
            ..OtherRecords::default()
        })
    }

    fn again(&self) -> Box<dyn SharedPart> {
        Box::new(Self(self.0.clone()))
    }
}

impl<T: Serialize + DeserializeOwned + 'static> LoadPart for Value<T> {
    fn check(
        &self,
        saved: &SavedPart,
        expected: &Expected<'_>,
    ) -> Result<Vec<Change>, BackupError> {
        let bytes = saved.value(expected.backup_dir)?;
        decode::<T>(bytes).map_err(|error| error.of_state(&saved.name))?;
        Ok(Vec::new())
    }

    fn load(
        &mut self,
        saved: SavedPart,
        _changed: &mut Vec<Change>,
        expected: &Expected<'_>,
    ) -> Result<Loaded, BackupError> {
        let bytes = saved.value(expected.backup_dir)?;
        self.0 = decode(bytes).map_err(|error| error.of_state(&saved.name))?;
        Ok(Loaded::default())
    }
}
