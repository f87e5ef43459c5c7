//! The part of the backup with the environments' states.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::change::Change;
use crate::error::BackupError;
use crate::parts::{decode, encode, shared_value};
use crate::resume::{Expected, LoadPart, Loaded, SavedPart};
use crate::save::{RunningStates, SavePart, SharedPart};

/// The saved states of the environments.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedEnvironments<S> {
    /// The environments that the agent learns in.
    pub training: Vec<S>,
    /// The environment for evaluations. During an evaluation, its state at the start of the episode
    /// in progress.
    pub evaluation: S,
}

/// A part whose value is encoded when it is saved.
pub(super) struct ValueOf<'t, S> {
    pub of: &'t S,
    pub encode: fn(&S) -> Result<Vec<u8>, BackupError>,
}

impl<S> SavePart for ValueOf<'_, S> {
    fn snapshot(&self, _running_states: RunningStates) -> Box<dyn SharedPart> {
        shared_value((self.encode)(self.of))
    }
}

/// The states that the environments load once they are made.
pub(super) struct EnvironmentsSlot<S> {
    /// The number of environments that the agent learns in.
    pub expected: usize,
    pub loaded: Option<SavedEnvironments<S>>,
}

impl<S: Serialize + DeserializeOwned> EnvironmentsSlot<S> {
    fn read(
        saved: &SavedPart,
        expected: &Expected<'_>,
    ) -> Result<SavedEnvironments<S>, BackupError> {
        let bytes = saved.value(expected.backup_dir)?;
        decode(bytes).map_err(|error| error.of_state(&saved.name))
    }
}

impl<S: Serialize + DeserializeOwned> SavePart for EnvironmentsSlot<S> {
    fn snapshot(&self, _running_states: RunningStates) -> Box<dyn SharedPart> {
        shared_value(encode(&self.loaded))
    }
}

impl<S: Serialize + DeserializeOwned> LoadPart for EnvironmentsSlot<S> {
    fn check(
        &self,
        saved: &SavedPart,
        expected: &Expected<'_>,
    ) -> Result<Vec<Change>, BackupError> {
        let recorded = Self::read(saved, expected)?.training.len();
        if recorded == self.expected {
            return Ok(Vec::new());
        }
        Err(BackupError::RlMismatch {
            path: expected.backup_dir.to_path_buf(),
            what: "OffPolicyConfig::num_envs",
            recorded,
            found: self.expected,
        })
    }

    fn load(
        &mut self,
        saved: SavedPart,
        _changed: &mut Vec<Change>,
        expected: &Expected<'_>,
    ) -> Result<Loaded, BackupError> {
        self.loaded = Some(Self::read(&saved, expected)?);
        Ok(Loaded::default())
    }
}
