//! The commit. A generation exists only after it.

use std::path::Path;
use std::time::SystemTime;

use serde::Serialize;

use crate::error::{MAYBE_COMMITTED, NOT_COMMITTED, StoreError};
use crate::layout::{GenerationId, MANIFEST_FILE};
use crate::manifest::{FORMAT_VERSION, Manifest};
use crate::persist::{StagedPart, Staging};
use crate::seal;
use crate::sync::{self, Sync};
use crate::verify::MAX_MANIFEST_BYTES;

const LOG: &str = "burn_backup::commit";

/// A generation that is complete and durable on disk.
#[derive(Debug, Clone)]
#[must_use = "older generations are pruned with it"]
pub struct Committed {
    id: GenerationId,
    created: SystemTime,
    bytes: u64,
    linked: u64,
}

impl Committed {
    /// The generation's number.
    pub fn id(&self) -> GenerationId {
        self.id
    }

    /// When it was committed.
    pub fn created(&self) -> SystemTime {
        self.created
    }

    /// The sum of its parts' lengths, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many of these bytes were not written, but linked from the previous generation.
    pub fn linked(&self) -> u64 {
        self.linked
    }
}

impl Staging<'_> {
    /// Commits the staged parts as a generation. `state` is the caller's document, written as JSON.
    ///
    /// The contents become durable before the name that points at them. First the manifest is written. Then the
    /// manifest, the parts that are not synced yet, and the staging directory are synced. Then the staging directory is
    /// renamed into place, and both parent directories are synced.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if a call fails. Before the rename, nothing is left of the generation. After it, the
    /// generation is in place but may not survive a power cut. [`StoreError::State`] if `state` can't be written as
    /// JSON, [`StoreError::ManifestTooLong`] if a start could not read the manifest. [`StoreError::Gone`] and
    /// [`StoreError::TakenOver`] if the directory no longer belongs to this store.
    pub fn commit(self, state: impl Serialize) -> Result<Committed, StoreError> {
        let store = self.store;
        self.commit_within(state, MAX_MANIFEST_BYTES)
            .map_err(|error| store.explain(error))
    }

    /// Like [`commit`](Self::commit), with a manifest of at most `limit` bytes.
    fn commit_within(mut self, state: impl Serialize, limit: u64) -> Result<Committed, StoreError> {
        let store = self.store;
        let parts = self.join()?;
        let identity = &store.identity;
        let manifest = Manifest {
            format: FORMAT_VERSION,
            generation: self.id,
            run_id: identity.run_id.clone(),
            run_seed: identity.run_seed,
            created: SystemTime::now(),
            writer: concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).to_owned(),
            parts,
            state: serde_json::value::to_raw_value(&state)
                .map_err(|error| StoreError::State(error.into()))?,
        };
        let bytes = seal::seal(&manifest).map_err(|error| StoreError::State(error.into()))?;
        if bytes.len() as u64 > limit {
            return Err(StoreError::ManifestTooLong {
                path: store.dir.layout.root().to_path_buf(),
                bytes: bytes.len() as u64,
                limit,
            });
        }
        self.place(&bytes, manifest)
    }

    /// Commits the joined parts as a generation with this manifest, whose bytes are `sealed`.
    pub(crate) fn place(
        mut self,
        sealed: &[u8],
        manifest: Manifest,
    ) -> Result<Committed, StoreError> {
        let store = self.store;
        let (dir, fs) = (&store.dir, store.dir.fs());
        let path = self.dir.join(MANIFEST_FILE);
        self.write_manifest(&path, sealed)?;

        let layout = &dir.layout;
        let place = layout.generation(self.id);
        dir.check()?;
        // If the directory is replaced now, the rename fails: the new directory has no staging directory of this name.
        let renamed = fs.rename(&self.dir, &place);
        renamed.map_err(StoreError::io("rename into place", &place, NOT_COMMITTED))?;
        self.store.index.last(self.id);
        let parents = [layout.generations(), layout.root().to_path_buf()];
        let [new, old] = &parents;
        sync::together(fs, vec![Sync::Dir(new), Sync::Dir(old)]).map_err(|(at, error)| {
            let parent = parents.get(at).unwrap_or(new);
            StoreError::io("sync", parent, MAYBE_COMMITTED)(error)
        })?;
        if dir.is_lost() {
            // The generation is in the renamed directory, if that still exists.
            return Err(dir.gone(None));
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
        self.store.index.set_latest(committed.id, manifest.parts);
        Ok(committed)
    }

    /// Writes the manifest, and makes everything staged durable.
    fn write_manifest(&mut self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let fs = self.store.dir.fs();
        let on_write = StoreError::io("write", path, NOT_COMMITTED);
        let manifest = self.reusable.create_file(fs, path).and_then(|fresh| {
            fresh.file.write_all_at(bytes, 0)?;
            if fresh.is_reused {
                fresh.file.truncate(bytes.len() as u64)?;
            }
            Ok(fresh.file)
        });
        let manifest = manifest.map_err(on_write)?;
        self.reusable.clear(fs, &self.dir)?;

        let parts = self.parts.drain(..).filter_map(|part| match part {
            StagedPart::Linked(_) => None,
            StagedPart::Written(part) => Some((part.path, part.file)),
        });
        let written = parts.chain([(path.to_path_buf(), manifest.into())]);
        let (paths, files): (Vec<_>, Vec<_>) = written.unzip();
        let mut syncs: Vec<_> = files.into_iter().map(Sync::Written).collect();
        syncs.push(Sync::Dir(&self.dir));
        sync::together(fs, syncs).map_err(|(at, error)| {
            let path = paths.get(at).unwrap_or(&self.dir);
            StoreError::io("sync", path, NOT_COMMITTED)(error)
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::{OpenOptions, Store, StoreError};

    #[test]
    fn a_manifest_that_no_start_could_read_is_refused_before_it_replaces_anything() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("backup");
        let store = Store::open(&dir, OpenOptions::default()).unwrap();
        let _ = store.stage().unwrap().commit(1).unwrap();
        let error = store.stage().unwrap().commit_within("x".repeat(1000), 1000);
        let error = error.err().unwrap();
        assert!(
            matches!(error, StoreError::ManifestTooLong { .. }),
            "{error}"
        );
        assert_eq!(
            std::fs::read_dir(dir.join("generations")).unwrap().count(),
            1
        );
        let newest = store.newest().unwrap().unwrap();
        assert_eq!(newest.manifest().state::<u64>().unwrap(), 1);
    }
}
