//! Going back to an older generation: newer ones are moved aside, and not lost.

use std::path::Path;

use crate::directory::Directory;
use crate::error::{NOT_SET_ASIDE, StoreError, UNCHANGED};
use crate::fs::EntryKind;
use crate::layout::{GenerationId, Quarantined};
use crate::manifest::Manifest;
use crate::ownership::IfGone;
use crate::store::Store;
use crate::verify::{self, Chunking, Generation, OnRead};
use crate::{discover, quarantine};

const LOG: &str = "burn_backup::discover";

impl Store {
    /// The manifests of this training's generations that are in place, newest first. Leaves out generations that are
    /// damaged, of another training, or of a newer format. Reads no part.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`]; [`StoreError::Gone`] and [`StoreError::TakenOver`] if the directory no longer belongs to
    /// this store.
    pub fn manifests(&self) -> Result<Vec<Manifest>, StoreError> {
        self.manifests_inner().map_err(|error| self.explain(error))
    }

    fn manifests_inner(&self) -> Result<Vec<Manifest>, StoreError> {
        let (fs, layout) = (self.dir.fs(), &self.dir.layout);
        let mut manifests = Vec::new();
        for id in discover::generations(fs, layout)? {
            match verify::manifest(fs, layout, id, Some(&self.identity)) {
                Ok(Ok(manifest)) => manifests.push(manifest),
                Ok(Err(damage)) => {
                    log::warn!(target: LOG, "generation {id} is skipped: {damage}");
                }
                Err(error @ StoreError::Io { .. }) => return Err(error),
                Err(error) => {
                    log::warn!(target: LOG, "generation {id} is skipped: {error}");
                }
            }
        }
        Ok(manifests)
    }

    /// Reads and verifies the generation `id`, as [`newest_chunked`](Self::newest_chunked) does for the newest one, and
    /// makes it durable.
    ///
    /// # Errors
    ///
    /// [`StoreError::GenerationDamaged`] if it is damaged or missing, [`StoreError::NewerFormat`],
    /// [`StoreError::AnotherRun`], [`StoreError::AnotherSeed`], and the errors of [`manifests`](Self::manifests).
    pub fn generation(
        &self,
        id: GenerationId,
        chunking: &dyn Chunking,
        on_read: OnRead<'_>,
    ) -> Result<Generation, StoreError> {
        self.generation_inner(id, chunking, on_read)
            .map_err(|error| self.explain(error))
    }

    fn generation_inner(
        &self,
        id: GenerationId,
        chunking: &dyn Chunking,
        on_read: OnRead<'_>,
    ) -> Result<Generation, StoreError> {
        self.ensure_owned(IfGone::Fail)?;
        let (fs, layout) = (self.dir.fs(), &self.dir.layout);
        let read = verify::generation(fs, layout, id, &self.identity, chunking, on_read)?;
        let generation = match read {
            Ok(generation) => generation,
            Err(damage) => {
                return Err(StoreError::GenerationDamaged {
                    path: layout.generation(id),
                    damage,
                });
            }
        };
        self.make_durable(generation.manifest())?;
        self.dir.check()?;
        self.index
            .set_latest(id, generation.manifest().parts.clone());
        Ok(generation)
    }

    /// Moves all generations that are newer than `than` to the directory `aside`, whole or damaged, and returns their
    /// numbers, oldest first. New generations get greater numbers than these. To undo it, move them back by hand.
    ///
    /// The newest generation is moved last, after the moves of the others are durable. While it is in place, a restart
    /// finds what it says of the training. After an interruption, a second call moves the rest.
    ///
    /// # Errors
    ///
    /// [`StoreError::Foreign`] if something that this crate did not write has the name `aside`, [`StoreError::Gone`]
    /// and [`StoreError::TakenOver`] if the directory no longer belongs to this store, and [`StoreError::Io`]. Each
    /// generation is then in one of the two places.
    pub fn set_aside_newer(&self, than: GenerationId) -> Result<Vec<GenerationId>, StoreError> {
        self.set_aside_inner(than)
            .map_err(|error| self.explain(error))
    }

    fn set_aside_inner(&self, than: GenerationId) -> Result<Vec<GenerationId>, StoreError> {
        self.ensure_owned(IfGone::Fail)?;
        let (fs, layout) = (self.dir.fs(), &self.dir.layout);
        let mut newer = discover::generations(fs, layout)?;
        newer.retain(|id| *id > than);
        newer.reverse();
        let Some((newest, others)) = newer.split_last() else {
            // An earlier process may have moved them without a sync.
            sync_both(&self.dir)?;
            return Ok(newer);
        };
        self.index.last(*newest);
        for id in others {
            set_aside(&self.dir, *id)?;
        }
        if !others.is_empty() {
            sync_both(&self.dir)?;
        }
        set_aside(&self.dir, *newest)?;
        sync_both(&self.dir)?;
        self.index.forget_newer(than);
        Ok(newer)
    }
}

fn set_aside(dir: &Directory, id: GenerationId) -> Result<(), StoreError> {
    let from = dir.layout.generation(id);
    dir.check()?;
    let what = Quarantined::Generation { id, again: 1 };
    let to = quarantine::free_place(dir, &dir.layout.aside(), what)?;
    dir.rename(
        &from,
        &to,
        StoreError::io("set aside", &from, NOT_SET_ASIDE),
    )?;
    log::debug!(target: LOG, "generation {id} is in '{}'", to.display());
    Ok(())
}

/// Syncs the destination first, and then the directory that they were moved from.
fn sync_both(dir: &Directory) -> Result<(), StoreError> {
    let (aside, generations) = (dir.layout.aside(), dir.layout.generations());
    if kind(dir, &aside)? == Some(EntryKind::Dir) {
        sync(dir, &aside)?;
    }
    sync(dir, &generations)
}

fn kind(dir: &Directory, path: &Path) -> Result<Option<EntryKind>, StoreError> {
    let kind = dir.fs().kind(path);
    kind.map_err(StoreError::io("inspect", path, UNCHANGED))
}

fn sync(dir: &Directory, path: &Path) -> Result<(), StoreError> {
    let synced = dir.fs().sync_dir(path);
    synced.map_err(StoreError::io("sync", path, NOT_SET_ASIDE))
}
