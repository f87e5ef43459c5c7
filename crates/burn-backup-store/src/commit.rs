//! The commit: only after it does a generation exist.

use jiff::Timestamp;

use crate::error::{MAYBE_COMMITTED, NOT_COMMITTED, StoreError};
use crate::layout::{GenerationId, MANIFEST_FILE};
use crate::manifest::{FORMAT_VERSION, Manifest};
use crate::persist::{self, Staging};
use crate::seal;

const LOG: &str = "burn_backup::commit";

/// A generation that is on disk, whole and durable.
#[derive(Debug, Clone)]
#[must_use = "older generations are pruned with it"]
pub struct Committed {
    id: GenerationId,
    created: Timestamp,
    bytes: u64,
    linked: u64,
}

impl Committed {
    /// The generation's number.
    pub fn id(&self) -> GenerationId {
        self.id
    }

    /// When it was committed.
    pub fn created(&self) -> Timestamp {
        self.created
    }

    /// The length of its parts together, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many of these bytes were not written, but linked to the generation before.
    pub fn linked(&self) -> u64 {
        self.linked
    }
}

impl Staging<'_> {
    /// Makes the staged parts a generation, with `state` as its maker's document.
    ///
    /// Payload first, then the directory, then the name that points at it: the manifest is written
    /// and synced, the staging directory synced, renamed into place, and both parents synced.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if a call fails. Before the rename, nothing is left of the generation;
    /// after it, the generation is in place but may not survive a power cut.
    pub fn commit(mut self, state: serde_json::Value) -> Result<Committed, StoreError> {
        let fs = self.store.fs.as_ref();
        let identity = &self.store.identity;
        let manifest = Manifest {
            format: FORMAT_VERSION,
            generation: self.id,
            run_id: identity.run_id.clone(),
            run_seed: identity.run_seed,
            created: Timestamp::now(),
            writer: concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).to_owned(),
            parts: std::mem::take(&mut self.parts),
            state,
        };
        let path = self.dir.join(MANIFEST_FILE);
        let bytes = seal::seal(&manifest).map_err(StoreError::State)?;
        persist::write_file(fs, &path, &bytes).map_err(StoreError::io(
            "write",
            &path,
            NOT_COMMITTED,
        ))?;
        fs.sync_dir(&self.dir)
            .map_err(StoreError::io("sync", &self.dir, NOT_COMMITTED))?;

        let layout = &self.store.layout;
        let place = layout.generation(self.id);
        fs.rename(&self.dir, &place).map_err(StoreError::io(
            "rename into place",
            &place,
            NOT_COMMITTED,
        ))?;
        for parent in [layout.generations(), layout.root().to_path_buf()] {
            fs.sync_dir(&parent)
                .map_err(StoreError::io("sync", &parent, MAYBE_COMMITTED))?;
        }

        let committed = Committed {
            id: self.id,
            created: manifest.created,
            bytes: manifest.bytes(),
            linked: self.linked,
        };
        log::debug!(
            target: LOG,
            "generation {} committed: {} bytes in {} parts",
            committed.id, committed.bytes, manifest.parts.len(),
        );
        self.store.set_latest(committed.id, manifest.parts);
        Ok(committed)
    }
}
