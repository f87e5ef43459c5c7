//! The part of the backup with the replay buffer.

use std::sync::Arc;

use super::replay_buffer::{ReplayBuffer, Ring, RingDocument};
use super::replay_item::ReplayItem;
use crate::burn_api::DeviceRead;
use crate::change::Change;
use crate::error::BackupError;
use crate::parts::{decode, encode};
use crate::resume::{Expected, LoadPart, Loaded, SavedPart, foreign};
use crate::save::{Fit, OtherRecords, RunningStates, SavePart, Segment, SharedModel, SharedPart};

impl<O: ReplayItem, A: ReplayItem> SavePart for ReplayBuffer<O, A> {
    fn snapshot(&self, _running_states: RunningStates) -> Box<dyn SharedPart> {
        Box::new(SharedRing(self.ring().clone()))
    }
}

/// The rows at one moment, shared with the training.
struct SharedRing(Ring);

impl SharedPart for SharedRing {
    fn model(&self, _read: DeviceRead) -> Option<SharedModel> {
        None
    }

    fn others(&self, _fit: &mut Fit) -> Result<OtherRecords, BackupError> {
        let segments = self.0.segments();
        let segments = segments.map(|(name, bytes)| Segment { name, bytes });
        Ok(OtherRecords {
            value: Some(Arc::new(encode(&self.0.document())?)),
            segments: segments.collect(),
            ..OtherRecords::default()
        })
    }

    fn again(&self) -> Box<dyn SharedPart> {
        Box::new(Self(self.0.clone()))
    }
}

impl<O: ReplayItem, A: ReplayItem> LoadPart for ReplayBuffer<O, A> {
    fn check(
        &self,
        saved: &SavedPart,
        expected: &Expected<'_>,
    ) -> Result<Vec<Change>, BackupError> {
        let document = document(saved, expected)?;
        if document.capacity != self.ring().capacity() {
            return Err(BackupError::RlMismatch {
                path: expected.backup_dir.to_path_buf(),
                what: "OffPolicyConfig::replay_buffer_size",
                recorded: document.capacity,
                found: self.ring().capacity(),
            });
        }
        ring(document, saved, expected)?;
        Ok(Vec::new())
    }

    fn load(
        &mut self,
        saved: SavedPart,
        _changed: &mut Vec<Change>,
        expected: &Expected<'_>,
    ) -> Result<Loaded, BackupError> {
        let document = document(&saved, expected)?;
        *self = Self::from_ring(ring(document, &saved, expected)?);
        Ok(Loaded::default())
    }
}

fn document(saved: &SavedPart, expected: &Expected<'_>) -> Result<RingDocument, BackupError> {
    let bytes = saved.value(expected.backup_dir)?;
    decode(bytes).map_err(|error| error.of_state(&saved.name))
}

fn ring(
    document: RingDocument,
    saved: &SavedPart,
    expected: &Expected<'_>,
) -> Result<Ring, BackupError> {
    let segments = saved.segments.iter();
    let segments = segments.map(|segment| (segment.name.clone(), segment.bytes.clone()));
    let ring = Ring::from_parts(document, segments.collect());
    ring.ok_or_else(|| foreign(expected.backup_dir, None))
}
