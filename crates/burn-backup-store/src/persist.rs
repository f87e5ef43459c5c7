//! Staging a generation: its parts are written beside the committed ones, hashed on the way, each
//! synced.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use crate::error::{NOT_COMMITTED, StoreError};
use crate::fs::{Filesystem, WriteFile};
use crate::layout::{self, GenerationId};
use crate::manifest::PartEntry;
use crate::store::Store;
use crate::{remove, seal};

const LOG: &str = "burn_backup::persist";

/// A generation in the making. It does not exist until [`commit`](Self::commit) says so; dropped
/// before, it leaves nothing behind.
pub struct Staging<'s> {
    pub(crate) store: &'s Store,
    pub(crate) id: GenerationId,
    pub(crate) dir: PathBuf,
    pub(crate) parts: Vec<PartEntry>,
}

impl<'s> Staging<'s> {
    pub(crate) fn create(store: &'s Store, id: GenerationId) -> Result<Self, StoreError> {
        let dir = store.layout.staging(&id.to_string(), draw()?);
        store
            .fs
            .create_dir(&dir)
            .map_err(StoreError::io("create", &dir, NOT_COMMITTED))?;
        Ok(Self {
            store,
            id,
            dir,
            parts: Vec::new(),
        })
    }

    /// The number that the generation will have.
    pub fn id(&self) -> GenerationId {
        self.id
    }

    /// Begins the part `name`.
    ///
    /// # Errors
    ///
    /// [`StoreError::PartName`] if the name can't be a file's or was used before, and
    /// [`StoreError::Io`] if the file can't be created.
    pub fn part(&mut self, name: &str) -> Result<PartWriter<'_, 's>, StoreError> {
        if !layout::is_part_name(name) || self.parts.iter().any(|part| part.name == name) {
            return Err(StoreError::PartName {
                name: name.to_owned(),
            });
        }
        let path = self.dir.join(layout::part_file(name));
        let file = self.store.fs.create_file(&path).map_err(StoreError::io(
            "create",
            &path,
            NOT_COMMITTED,
        ))?;
        Ok(PartWriter {
            staging: self,
            name: name.to_owned(),
            path,
            file,
            hash: Xxh3::new(),
            bytes: 0,
        })
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        // After a commit nothing is here any more; before it, the next open sweeps what stays.
        if let Err(error) = remove::staged(self.store.fs.as_ref(), &self.dir) {
            log::debug!(target: LOG, "left '{}' to the next start: {error}", self.dir.display());
        }
    }
}

/// Writes one part. The part belongs to the generation once [`finish`](Self::finish) has returned.
pub struct PartWriter<'a, 's> {
    staging: &'a mut Staging<'s>,
    name: String,
    path: PathBuf,
    file: Box<dyn WriteFile>,
    hash: Xxh3,
    bytes: u64,
}

impl Write for PartWriter<'_, '_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.file.write(buffer)?;
        self.hash.update(buffer.get(..written).unwrap_or(buffer));
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl PartWriter<'_, '_> {
    /// Writes all of `bytes`, with the part's path in the error.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the write fails; the staged generation can only be dropped then.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.write_all(bytes)
            .map_err(StoreError::io("write", &self.path, NOT_COMMITTED))
    }

    /// Makes the part durable and adds it to the generation.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the sync fails; the staged generation can only be dropped then.
    pub fn finish(mut self) -> Result<(), StoreError> {
        self.file
            .sync()
            .map_err(StoreError::io("sync", &self.path, NOT_COMMITTED))?;
        self.staging.parts.push(PartEntry {
            file: layout::part_file(&self.name),
            name: self.name,
            bytes: self.bytes,
            xxh3_128: seal::hex(self.hash.digest128()),
        });
        Ok(())
    }
}

/// Writes and syncs a small file that does not exist yet.
pub(crate) fn write_file(fs: &dyn Filesystem, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs.create_file(path)?;
    file.write_all(bytes)?;
    file.sync()
}

/// Draws a number from the operating system's generator.
pub(crate) fn draw() -> Result<u64, StoreError> {
    getrandom::u64().map_err(|error| {
        StoreError::io(
            "draw a random number from",
            Path::new("the system"),
            NOT_COMMITTED,
        )(io::Error::other(error))
    })
}
