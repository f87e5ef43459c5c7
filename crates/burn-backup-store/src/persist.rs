//! Staging a generation: its parts are written beside the committed ones, hashed on the way, each
//! synced. What is unchanged since the generation before is linked to it instead.

mod background;
mod link;

use std::collections::HashSet;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use crate::error::{NOT_COMMITTED, StoreError};
use crate::fs::WriteFile;
use crate::layout::{self, GenerationId};
use crate::manifest::{MAX_PARTS, PartEntry};
use crate::possession::IfGone;
use crate::store::Store;
use crate::{discover, files, remove, seal};
use background::{Background, Piece};

/// Hashing and writing follow each other this closely, while the bytes are in the processor's cache.
const PIECE_BYTES: usize = 4 * 1024 * 1024;

/// Smaller chunks are gathered until they are as many bytes.
const GATHERED_BYTES: usize = 256 * 1024;

const LOG: &str = "burn_backup::persist";

/// A generation in the making. It does not exist until [`commit`](Self::commit) says so; dropped
/// before, it leaves nothing behind.
pub struct Staging<'s> {
    pub(crate) store: &'s Store,
    pub(crate) id: GenerationId,
    pub(crate) dir: PathBuf,
    pub(crate) parts: Vec<PartEntry>,
    names: HashSet<String>,
    /// How many bytes of them are linked.
    pub(crate) linked: u64,
    /// Files that are written and still to be synced.
    pub(crate) unsynced: Vec<(PathBuf, Box<dyn WriteFile>)>,
}

impl Store {
    /// Begins a generation. If the directory is gone and nobody else has begun at its path, it is made
    /// again first, which a warning in the log says.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if its staging directory can't be created, [`StoreError::Gone`] if the
    /// directory can't be made again, [`StoreError::TakenOver`] if somebody else uses the path, and
    /// [`StoreError::NumbersUsedUp`].
    pub fn stage(&self) -> Result<Staging<'_>, StoreError> {
        self.stage_unexplained()
            .map_err(|error| self.explain(error))
    }

    fn stage_unexplained(&self) -> Result<Staging<'_>, StoreError> {
        self.possess(IfGone::Make)?;
        let (fs, layout) = (self.dir.fs(), &self.dir.layout);
        let greatest = discover::greatest_number(fs, layout, &self.identity)?;
        let next = self.knowledge.last(greatest).next();
        let next = next.ok_or_else(|| StoreError::NumbersUsedUp {
            path: layout.generations(),
        })?;
        Staging::create(self, next)
    }
}

impl<'s> Staging<'s> {
    fn create(store: &'s Store, id: GenerationId) -> Result<Self, StoreError> {
        let dir = store.dir.layout.staging(&id.to_string(), files::draw()?);
        let created = store.dir.fs().create_dir(&dir);
        created.map_err(StoreError::io("create", &dir, NOT_COMMITTED))?;
        Ok(Self {
            store,
            id,
            dir,
            parts: Vec::new(),
            names: HashSet::new(),
            linked: 0,
            unsynced: Vec::new(),
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
    /// [`StoreError::PartName`] if the name can't be a file's or was used before,
    /// [`StoreError::TooManyParts`], and [`StoreError::Io`] if the file can't be created.
    pub fn part(&mut self, name: &str) -> Result<PartWriter<'_, 's>, StoreError> {
        self.check_name(name)?;
        let path = self.dir.join(layout::part_file(name));
        let created = self.store.dir.fs().create_file(&path);
        let file = created
            .map_err(StoreError::io("create", &path, NOT_COMMITTED))
            .map_err(|error| self.store.explain(error))?;
        Ok(PartWriter {
            staging: self,
            name: name.to_owned(),
            path,
            file: PartFile::Here(file),
            gathered: Vec::new(),
            digest: PartDigest::default(),
        })
    }

    pub(crate) fn add(&mut self, part: PartEntry) {
        self.names.insert(part.name.clone());
        self.parts.push(part);
    }

    fn check_name(&self, name: &str) -> Result<(), StoreError> {
        if !layout::is_part_name(name) || self.names.contains(name) {
            return Err(StoreError::PartName {
                name: name.to_owned(),
            });
        }
        if self.parts.len() >= MAX_PARTS {
            return Err(StoreError::TooManyParts { limit: MAX_PARTS });
        }
        Ok(())
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        self.unsynced.clear();
        // After a commit nothing is here any more; before it, the next prune tries again.
        if let Err(error) = remove::finish(&self.store.dir, &self.dir) {
            log::debug!(target: LOG, "left to the next prune: {}", error.with_cause());
        }
    }
}

/// The length and hash of a part's bytes.
#[derive(Clone, Default)]
pub struct PartDigest {
    hash: Xxh3,
    bytes: u64,
}

impl PartDigest {
    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// How the part `name` with these bytes stands in a manifest.
    pub(crate) fn entry(&self, name: &str) -> PartEntry {
        PartEntry {
            name: name.to_owned(),
            file: layout::part_file(name),
            bytes: self.bytes,
            xxh3_128: seal::hex(self.hash.digest128()),
        }
    }
}

/// Writes one part. The part belongs to the generation once [`finish`](Self::finish) has returned.
pub struct PartWriter<'a, 's> {
    staging: &'a mut Staging<'s>,
    name: String,
    path: PathBuf,
    file: PartFile,
    /// Small chunks that are not written yet.
    gathered: Vec<u8>,
    digest: PartDigest,
}

/// The file of a part.
enum PartFile {
    /// No thread is writing.
    Here(Box<dyn WriteFile>),
    /// A thread is writing.
    There(Background),
    /// The last write failed.
    Gone,
}

impl PartWriter<'_, '_> {
    /// Adds the bytes of `chunk` to the part: hashes them here, and has them written on a thread of
    /// the part's own while the caller makes the next chunk.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if a write fails, this one or one before; the staged generation can only
    /// be dropped then.
    pub fn append(
        &mut self,
        chunk: impl AsRef<[u8]> + Send + Sync + 'static,
    ) -> Result<(), StoreError> {
        let bytes = chunk.as_ref();
        if bytes.len() < GATHERED_BYTES {
            self.gathered.extend_from_slice(bytes);
            if self.gathered.len() < GATHERED_BYTES {
                return Ok(());
            }
            return self.write_gathered();
        }
        self.write_gathered()?;
        self.write(Arc::new(chunk))
    }

    /// Writes what is left and adds the part to the generation. A part that a thread has written is
    /// synced here, as that takes a while and the caller may have the next one made meanwhile;
    /// smaller ones are synced together, by [`commit`](Staging::commit).
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if a write or the sync fails; the staged generation can only be dropped
    /// then.
    pub fn finish(mut self) -> Result<(), StoreError> {
        let is_large = matches!(self.file, PartFile::There(_));
        let store = self.staging.store;
        let failed = |operation| StoreError::io(operation, &self.path, NOT_COMMITTED);
        let (on_write, on_sync) = (failed("write"), failed("sync"));
        let written = self.written().map_err(on_write);
        let mut file = written.map_err(|error| store.explain(error))?;
        if is_large {
            let synced = file.sync().map_err(on_sync);
            synced.map_err(|error| store.explain(error))?;
        } else {
            self.staging.unsynced.push((self.path, file));
        }
        self.staging.add(self.digest.entry(&self.name));
        Ok(())
    }

    fn write_gathered(&mut self) -> Result<(), StoreError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let gathered = std::mem::take(&mut self.gathered);
        self.write(Arc::new(gathered))
    }

    fn write(&mut self, holder: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Result<(), StoreError> {
        let len = holder.as_ref().as_ref().len();
        for start in (0..len).step_by(PIECE_BYTES) {
            let piece = Piece {
                holder: holder.clone(),
                range: start..len.min(start + PIECE_BYTES),
            };
            self.digest.update(piece.bytes());
            self.hand_over(piece)
                .map_err(StoreError::io("write", &self.path, NOT_COMMITTED))
                .map_err(|error| self.staging.store.explain(error))?;
        }
        Ok(())
    }

    fn hand_over(&mut self, piece: Piece) -> io::Result<()> {
        self.file = match std::mem::replace(&mut self.file, PartFile::Gone) {
            PartFile::Here(file) => match Background::start(file) {
                Ok(mut background) => {
                    background.write(piece)?;
                    PartFile::There(background)
                }
                // The next piece may find a thread.
                Err(mut file) => {
                    file.write_all(piece.bytes())?;
                    PartFile::Here(file)
                }
            },
            PartFile::There(mut background) => {
                background.write(piece)?;
                PartFile::There(background)
            }
            PartFile::Gone => return Err(gone()),
        };
        Ok(())
    }

    /// The file, with all of the part in it.
    fn written(&mut self) -> io::Result<Box<dyn WriteFile>> {
        let mut file = match std::mem::replace(&mut self.file, PartFile::Gone) {
            PartFile::Here(file) => file,
            PartFile::There(mut background) => background.stop()?,
            PartFile::Gone => return Err(gone()),
        };
        self.digest.update(&self.gathered);
        file.write_all(&self.gathered)?;
        Ok(file)
    }
}

fn gone() -> io::Error {
    io::Error::other("an earlier write failed")
}
