//! The newest whole generation: found, verified, and durable before anybody relies on it.

use std::path::PathBuf;

use crate::error::{NOT_DURABLE, StoreError};
use crate::formats::{self, Which};
use crate::knowledge::Known;
use crate::layout::{MANIFEST_FILE, Quarantined};
use crate::manifest::Manifest;
use crate::possession::IfGone;
use crate::store::Store;
use crate::sync::{self, Sync};
use crate::verify::{self, Chunking, Generation, OnRead, WholePart};
use crate::{discover, quarantine};

const LOG: &str = "burn_backup::discover";

impl Store {
    /// Reads and verifies the newest generation, and makes it durable: who copied it, or committed it
    /// and was killed, may not have come to that. Damaged ones are moved to the quarantine, or stay
    /// in their place if the disk doesn't let them go, and the next older one is tried. What can't be
    /// read, or is not what was written, is read once more before that is believed. `None` if nothing
    /// was ever committed.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoneLeft`] if there were generations and every one is damaged,
    /// [`StoreError::NewerFormat`], [`StoreError::AnotherRun`], [`StoreError::AnotherSeed`],
    /// [`StoreError::Foreign`] if something of somebody else's stands where the quarantine is to be,
    /// [`StoreError::Gone`] and [`StoreError::TakenOver`] if the directory is not this store's any more,
    /// and [`StoreError::Io`] if a call fails in a way that says nothing about the generation; it stays
    /// in its place then.
    pub fn newest(&self) -> Result<Option<Generation>, StoreError> {
        self.newest_chunked(&WholePart)
    }

    /// The same, with parts read into as many buffers as `chunking` says:
    /// [`Generation::take_chunks`] gives them.
    ///
    /// # Errors
    ///
    /// Those of [`newest`](Self::newest).
    pub fn newest_chunked(
        &self,
        chunking: &dyn Chunking,
    ) -> Result<Option<Generation>, StoreError> {
        self.newest_watched(chunking, &|_| {})
    }

    /// The same, and tells how far reading is.
    ///
    /// # Errors
    ///
    /// Those of [`newest`](Self::newest).
    pub fn newest_watched(
        &self,
        chunking: &dyn Chunking,
        on_read: OnRead<'_>,
    ) -> Result<Option<Generation>, StoreError> {
        self.newest_unexplained(chunking, on_read, None)
            .map_err(|error| self.explain(error))
    }

    /// The same of those whose manifest `is_wanted`; `None` if none is. The others stay as they are.
    ///
    /// # Errors
    ///
    /// Those of [`newest`](Self::newest).
    pub fn newest_where(
        &self,
        chunking: &dyn Chunking,
        on_read: OnRead<'_>,
        is_wanted: &dyn Fn(&Manifest) -> bool,
    ) -> Result<Option<Generation>, StoreError> {
        self.newest_unexplained(chunking, on_read, Some(is_wanted))
            .map_err(|error| self.explain(error))
    }

    fn newest_unexplained(
        &self,
        chunking: &dyn Chunking,
        on_read: OnRead<'_>,
        is_wanted: Option<&dyn Fn(&Manifest) -> bool>,
    ) -> Result<Option<Generation>, StoreError> {
        self.possess(IfGone::Fail)?;
        let (fs, layout) = (self.dir.fs(), &self.dir.layout);
        let (mut not_moved, mut is_first) = (None, true);
        let mut is_any_unwanted = false;
        for id in discover::generations(fs, layout)? {
            if let Some(is_wanted) = is_wanted
                && let Ok(manifest) = verify::manifest(fs, layout, id, Some(&self.identity))?
                && !is_wanted(&manifest)
            {
                is_any_unwanted = true;
                continue;
            }
            let read = verify::generation(fs, layout, id, &self.identity, chunking, on_read)?;
            let damage = match read {
                Ok(generation) => {
                    log::debug!(target: LOG, "generation {id} is whole");
                    self.make_durable(generation.manifest())?;
                    self.dir.check()?;
                    let parts = generation.manifest().parts.clone();
                    self.knowledge.set_latest(id, parts);
                    quarantine::bound(&self.dir);
                    return Ok(Some(generation));
                }
                Err(damage) => damage,
            };
            if std::mem::take(&mut is_first) {
                // One of those that come next is to be used: none is moved if that can't be.
                formats::refuse_newer(&self.dir, Which::All)?;
            }
            self.knowledge.learn(id, Known::Damaged);
            match quarantine::generation(&self.dir, id, &damage) {
                // The disk may be full. That must not keep an older one back.
                Err(error @ StoreError::Io { .. }) => {
                    log::error!(
                        target: LOG,
                        "generation {id} is damaged ({damage}) and stays in its place: {}",
                        error.with_cause(),
                    );
                    not_moved = Some(error);
                }
                moved => moved?,
            }
        }
        if let Some(error) = not_moved {
            return Err(error);
        }
        if is_any_unwanted {
            return Ok(None);
        }
        let quarantined = discover::quarantined(fs, layout)?;
        // There is nothing to be found in a directory that is gone.
        self.dir.check()?;
        let is_generation = |what: &_| matches!(what, Quarantined::Generation { .. });
        if quarantined.iter().any(|(what, _)| is_generation(what)) {
            return Err(StoreError::NoneLeft {
                path: layout.root().to_path_buf(),
            });
        }
        Ok(None)
    }

    /// Makes it certain that what was read survives a power cut.
    pub(crate) fn make_durable(&self, manifest: &Manifest) -> Result<(), StoreError> {
        let layout = &self.dir.layout;
        let place = layout.generation(manifest.generation);
        let files = manifest.parts.iter().map(|part| &part.file);
        let files: Vec<_> = files
            .map(|file| place.join(file))
            .chain([place.join(MANIFEST_FILE)])
            .collect();
        let dirs = [place, layout.generations(), layout.root().to_path_buf()];
        let syncs = files.iter().map(|path| Sync::File(path));
        let syncs = syncs.chain(dirs.iter().map(|path| Sync::Dir(path)));
        sync::together(self.dir.fs(), syncs.collect()).map_err(|(at, error)| {
            let path = files.iter().chain(&dirs).nth(at);
            let path = path.map_or(layout.root(), PathBuf::as_path);
            StoreError::io("sync", path, NOT_DURABLE)(error)
        })
    }
}
