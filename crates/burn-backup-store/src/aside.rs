//! Going back to an older generation: what is newer is moved out of the way, and not lost.

use std::path::Path;

use crate::directory::Directory;
use crate::error::{NOT_SET_ASIDE, StoreError, UNCHANGED};
use crate::fs::EntryKind;
use crate::layout::{GenerationId, Quarantined};
use crate::manifest::Manifest;
use crate::possession::IfGone;
use crate::store::Store;
use crate::verify::{self, Chunking, Generation, OnRead};
use crate::{discover, quarantine};

const LOG: &str = "burn_backup::discover";

impl Store {
    /// The manifests of this training's generations that are in place, newest first. Those that are damaged, another
    /// training's, or of a newer format are left out; no part is read.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`], [`StoreError::Gone`], and [`StoreError::TakenOver`] if the directory is not this store's any
    /// more.
    pub fn manifests(&self) -> Result<Vec<Manifest>, StoreError> {
        self.manifests_unexplained()
            .map_err(|error| self.explain(error))
    }

    fn manifests_unexplained(&self) -> Result<Vec<Manifest>, StoreError> {
        let (fs, layout) = (self.dir.fs(), &self.dir.layout);
        let mut manifests = Vec::new();
        for id in discover::generations(fs, layout)? {
            match verify::manifest(fs, layout, id, Some(&self.identity)) {
                Ok(Ok(manifest)) => manifests.push(manifest),
                Ok(Err(damage)) => {
                    log::warn!(target: LOG, "generation {id} is passed over: {damage}");
                }
                Err(error @ StoreError::Io { .. }) => return Err(error),
                Err(error) => {
                    log::warn!(target: LOG, "generation {id} is passed over: {error}");
                }
            }
        }
        Ok(manifests)
    }

    /// Reads and verifies the generation `id`, as [`newest_chunked`](Self::newest_chunked) does with the newest one,
    /// and makes it durable.
    ///
    /// # Errors
    ///
    /// [`StoreError::StillDamaged`] if it is damaged, or not there, [`StoreError::NewerFormat`],
    /// [`StoreError::AnotherRun`], [`StoreError::AnotherSeed`], and those of [`manifests`](Self::manifests).
    pub fn generation(
        &self,
        id: GenerationId,
        chunking: &dyn Chunking,
        on_read: OnRead<'_>,
    ) -> Result<Generation, StoreError> {
        self.generation_unexplained(id, chunking, on_read)
            .map_err(|error| self.explain(error))
    }

    fn generation_unexplained(
        &self,
        id: GenerationId,
        chunking: &dyn Chunking,
        on_read: OnRead<'_>,
    ) -> Result<Generation, StoreError> {
        self.possess(IfGone::Fail)?;
        let (fs, layout) = (self.dir.fs(), &self.dir.layout);
        let read = verify::generation(fs, layout, id, &self.identity, chunking, on_read)?;
        let generation = match read {
            Ok(generation) => generation,
            Err(damage) => {
                return Err(StoreError::StillDamaged {
                    path: layout.generation(id),
                    damage,
                });
            }
        };
        self.make_durable(generation.manifest())?;
        self.dir.check()?;
        self.knowledge
            .set_latest(id, generation.manifest().parts.clone());
        Ok(generation)
    }

    /// Moves all generations that are newer than `than` to the directory `aside`, whole or damaged, and gives their
    /// numbers, oldest first. Numbers go on above theirs. Moving them back by hand undoes it.
    ///
    /// The newest one goes last, once it is durable that the others are gone: as long as it is there, what it says
    /// of the training is what a restart finds. Called again after an interruption, it does the rest.
    ///
    /// # Errors
    ///
    /// [`StoreError::Foreign`] if something of somebody else's stands where `aside` is to be, [`StoreError::Gone`] and
    /// [`StoreError::TakenOver`] if the directory is not this store's any more, and [`StoreError::Io`]: each generation
    /// is then in one of the two places.
    pub fn set_aside_newer(&self, than: GenerationId) -> Result<Vec<GenerationId>, StoreError> {
        self.set_aside_unexplained(than)
            .map_err(|error| self.explain(error))
    }

    fn set_aside_unexplained(&self, than: GenerationId) -> Result<Vec<GenerationId>, StoreError> {
        self.possess(IfGone::Fail)?;
        let (fs, layout) = (self.dir.fs(), &self.dir.layout);
        let mut newer = discover::generations(fs, layout)?;
        newer.retain(|id| *id > than);
        newer.reverse();
        let Some((newest, others)) = newer.split_last() else {
            // A process before may not have come to that.
            sync_both(&self.dir)?;
            return Ok(newer);
        };
        self.knowledge.last(*newest);
        for id in others {
            set_aside(&self.dir, *id)?;
        }
        if !others.is_empty() {
            sync_both(&self.dir)?;
        }
        set_aside(&self.dir, *newest)?;
        sync_both(&self.dir)?;
        self.knowledge.forget_newer(than);
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

/// First where they are to be found, then where they are to be gone from.
fn sync_both(dir: &Directory) -> Result<(), StoreError> {
    let (aside, generations) = (dir.layout.aside(), dir.layout.generations());
    if kind(dir, &aside)? == Some(EntryKind::Dir) {
        sync(dir, &aside)?;
    }
    sync(dir, &generations)
}

fn kind(dir: &Directory, path: &Path) -> Result<Option<EntryKind>, StoreError> {
    let kind = dir.fs().kind(path);
    kind.map_err(StoreError::io("look at", path, UNCHANGED))
}

fn sync(dir: &Directory, path: &Path) -> Result<(), StoreError> {
    let synced = dir.fs().sync_dir(path);
    synced.map_err(StoreError::io("sync", path, NOT_SET_ASIDE))
}
