//! Generations that are read while newer ones are committed: they stay in their places until nobody reads them
//! any more, whatever is pruned.

use std::sync::Arc;

use crate::error::StoreError;
use crate::layout::GenerationId;
use crate::manifest::{Manifest, PartEntry};
use crate::part_reader::PartReader;
use crate::store::Store;
use crate::verify::{self, Sealed};

/// A committed generation that stays in its place as long as this is there. A prune that would have removed
/// it leaves it to the next one.
pub struct Pinned {
    store: Arc<Store>,
    manifest: Manifest,
    sealed: Vec<u8>,
}

impl Store {
    /// Pins the generation `id`. `None` if it is not there any more, or its manifest is damaged.
    ///
    /// # Errors
    ///
    /// [`StoreError::AnotherRun`], [`StoreError::AnotherSeed`], [`StoreError::NewerFormat`], [`StoreError::Gone`]
    /// and [`StoreError::TakenOver`] if the directory is not this store's any more, and [`StoreError::Io`] if
    /// the manifest can't be read.
    pub fn pin(self: &Arc<Self>, id: GenerationId) -> Result<Option<Pinned>, StoreError> {
        self.knowledge.pin(id);
        // From here on, what is read stays.
        let read = self.dir.check().and_then(|()| self.read_sealed(id));
        match read.map_err(|error| self.explain(error)) {
            Ok(Some(Sealed { manifest, bytes })) => Ok(Some(Pinned {
                store: self.clone(),
                manifest,
                sealed: bytes,
            })),
            nothing => {
                self.knowledge.unpin(id);
                nothing.map(|_| None)
            }
        }
    }

    fn read_sealed(&self, id: GenerationId) -> Result<Option<Sealed>, StoreError> {
        let (fs, layout) = (self.dir.fs(), &self.dir.layout);
        Ok(verify::sealed(fs, layout, id, Some(&self.identity))?.ok())
    }
}

impl Pinned {
    /// The generation's number.
    pub fn id(&self) -> GenerationId {
        self.manifest.generation
    }

    /// What the generation consists of.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The manifest, byte for byte.
    pub fn sealed(&self) -> &[u8] {
        &self.sealed
    }

    /// Opens a part.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if it can't be opened.
    pub fn part(&self, entry: &PartEntry) -> Result<PartReader, StoreError> {
        let dir = &self.store.dir;
        let path = dir.layout.generation(self.id()).join(&entry.file);
        let part = PartReader::open(dir.fs(), path, entry);
        part.map_err(|error| self.store.explain(error))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.store.knowledge.unpin(self.id());
    }
}
