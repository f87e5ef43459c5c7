//! Finds and verifies the newest whole generation, and makes it durable before it is used.

use std::path::PathBuf;

use crate::error::{NOT_DURABLE, StoreError};
use crate::formats::{self, Which};
use crate::index::Known;
use crate::layout::{MANIFEST_FILE, Quarantined};
use crate::manifest::Manifest;
use crate::ownership::IfGone;
use crate::store::Store;
use crate::sync::{self, Sync};
use crate::verify::{self, Chunking, Generation, OnRead, WholePart};
use crate::{discover, quarantine};

const LOG: &str = "burn_backup::discover";

impl Store {
    /// Reads and verifies the newest generation, and makes it durable, because the process that copied or committed it
    /// may have been killed before a sync. A damaged generation is moved to the quarantine, and the next older one is
    /// tried. If the disk does not allow the move, the damaged one stays in its place. What can't be read, or seems
    /// damaged, is read once more first. Returns `None` if nothing was ever committed.
    ///
    /// # Errors
    ///
    /// - [`StoreError::NoneLeft`] if there were generations and every one is damaged.
    /// - [`StoreError::NewerFormat`], [`StoreError::AnotherRun`], [`StoreError::AnotherSeed`].
    /// - [`StoreError::Foreign`] if something that this crate did not write has the name of the quarantine.
    /// - [`StoreError::Gone`] or [`StoreError::TakenOver`] if the directory no longer belongs to this store.
    /// - [`StoreError::Io`] if a call fails without showing that the generation is damaged. The generation then stays
    ///   in its place.
    pub fn newest(&self) -> Result<Option<Generation>, StoreError> {
        self.newest_chunked(&WholePart)
    }

    /// Like [`newest`](Self::newest), with each part read into as many buffers as `chunking` says.
    /// [`Generation::take_chunks`] returns them.
    ///
    /// # Errors
    ///
    /// The errors of [`newest`](Self::newest).
    pub fn newest_chunked(
        &self,
        chunking: &dyn Chunking,
    ) -> Result<Option<Generation>, StoreError> {
        self.newest_watched(chunking, &|_| {})
    }

    /// Like [`newest_chunked`](Self::newest_chunked), and reports the progress of reading.
    ///
    /// # Errors
    ///
    /// The errors of [`newest`](Self::newest).
    pub fn newest_watched(
        &self,
        chunking: &dyn Chunking,
        on_read: OnRead<'_>,
    ) -> Result<Option<Generation>, StoreError> {
        self.newest_inner(chunking, on_read, None)
            .map_err(|error| self.explain(error))
    }

    /// Like [`newest_watched`](Self::newest_watched), for the newest generation whose manifest `is_wanted`; `None` if
    /// there is none. The other generations are unchanged.
    ///
    /// # Errors
    ///
    /// The errors of [`newest`](Self::newest).
    pub fn newest_where(
        &self,
        chunking: &dyn Chunking,
        on_read: OnRead<'_>,
        is_wanted: &dyn Fn(&Manifest) -> bool,
    ) -> Result<Option<Generation>, StoreError> {
        self.newest_inner(chunking, on_read, Some(is_wanted))
            .map_err(|error| self.explain(error))
    }

    fn newest_inner(
        &self,
        chunking: &dyn Chunking,
        on_read: OnRead<'_>,
        is_wanted: Option<&dyn Fn(&Manifest) -> bool>,
    ) -> Result<Option<Generation>, StoreError> {
        self.ensure_owned(IfGone::Fail)?;
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
                    self.index.set_latest(id, parts);
                    quarantine::bound(&self.dir);
                    return Ok(Some(generation));
                }
                Err(damage) => damage,
            };
            if std::mem::take(&mut is_first) {
                // An older generation will be used. If one of them is refused, none is moved.
                formats::refuse_newer(&self.dir, Which::All)?;
            }
            self.index.learn(id, Known::Damaged);
            match quarantine::generation(&self.dir, id, &damage) {
                // The disk may be full. An older generation must still be found.
                Err(error @ StoreError::Io { .. }) => {
                    log::error!(
                        target: LOG,
                        "generation {id} is damaged ({damage}) and could not be moved away: {}",
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
        // If the directory is gone, the empty result means nothing.
        self.dir.check()?;
        let is_generation = |what: &_| matches!(what, Quarantined::Generation { .. });
        if quarantined.iter().any(|(what, _)| is_generation(what)) {
            return Err(StoreError::NoneLeft {
                path: layout.root().to_path_buf(),
            });
        }
        Ok(None)
    }

    /// Makes sure that the generation that was read survives a power cut.
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
