//! Generations that are read while newer ones are committed. They stay in their places until the readers have finished,
//! even if they would be pruned.

use std::sync::Arc;

use crate::error::StoreError;
use crate::layout::GenerationId;
use crate::manifest::{Manifest, PartEntry};
use crate::part_reader::PartReader;
use crate::store::Store;
use crate::verify::{self, Sealed};

/// A committed generation that stays in its place while this value exists. If a prune would remove it, a later prune
/// does so.
pub struct Pinned {
    store: Arc<Store>,
    manifest: Manifest,
    sealed: Vec<u8>,
}

impl Store {
    /// Pins the generation `id`. `None` if it is missing, or its manifest is damaged.
    ///
    /// # Errors
    ///
    /// [`StoreError::AnotherRun`], [`StoreError::AnotherSeed`], [`StoreError::NewerFormat`], [`StoreError::Gone`] and
    /// [`StoreError::TakenOver`] if the directory no longer belongs to this store, and [`StoreError::Io`] if the
    /// manifest can't be read.
    pub fn pin(self: &Arc<Self>, id: GenerationId) -> Result<Option<Pinned>, StoreError> {
        self.index.pin(id);
        // The generation is pinned before it is read, so it can't be removed meanwhile.
        let read = self.dir.check().and_then(|()| self.read_sealed(id));
        match read.map_err(|error| self.explain(error)) {
            Ok(Some(Sealed { manifest, bytes })) => Ok(Some(Pinned {
                store: self.clone(),
                manifest,
                sealed: bytes,
            })),
            nothing => {
                self.index.unpin(id);
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

    /// The parts and the state of the generation.
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
        self.store.index.unpin(self.id());
    }
}
