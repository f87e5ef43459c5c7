//! Reads one part of a committed generation without the others.

use std::io;
use std::path::PathBuf;

use xxhash_rust::xxh3::Xxh3;

use crate::blocks::{BLOCK_BYTES, Hash, PIECE_BYTES};
use crate::error::{Damage, StoreError, UNREAD};
use crate::fs::{Filesystem, ReadFile};
use crate::manifest::PartEntry;

/// A part of a generation on disk. Its bytes stay readable and unchanged while this value exists, even if the
/// generation is pruned.
pub struct PartReader {
    file: Box<dyn ReadFile>,
    path: PathBuf,
    entry: PartEntry,
}

impl PartReader {
    /// Opens the file at `path`.
    pub(crate) fn open(
        fs: &dyn Filesystem,
        path: PathBuf,
        entry: &PartEntry,
    ) -> Result<Self, StoreError> {
        let opened = fs.open_file(&path);
        Ok(Self {
            file: opened.map_err(StoreError::io("open", &path, UNREAD))?,
            path,
            entry: entry.clone(),
        })
    }

    /// Fills `buffer` from the byte `offset` of the part on. The bytes are not verified; use [`PartEntry::is_block`] or
    /// [`verify`](Self::verify).
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the part can't be read, or is too short.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        let read = self.file.read_full_at(buffer, offset);
        let read = read.and_then(|read| match read == buffer.len() {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        });
        read.map_err(StoreError::io("read", &self.path, UNREAD))
    }

    /// Reads the whole part, and compares it with the manifest. Calls `on_read` with the number of bytes read since the
    /// last call.
    ///
    /// # Errors
    ///
    /// The inner error is the damage. The outer one is [`StoreError::Io`], which does not mean that the part is
    /// damaged.
    pub fn verify(&self, on_read: &mut dyn FnMut(u64)) -> Result<Result<(), Damage>, StoreError> {
        let entry = &self.entry;
        let found = self.file.len();
        let found = found.map_err(StoreError::io("read", &self.path, UNREAD))?;
        if found != entry.bytes {
            return Ok(Err(Damage::PartLength {
                file: entry.file.clone(),
                expected: entry.bytes,
                found,
            }));
        }
        let block_bytes = match entry.blocks.is_empty() {
            true => entry.bytes.max(1),
            false => BLOCK_BYTES as u64,
        };
        let mut piece = vec![0; PIECE_BYTES];
        let (mut offset, mut number) = (0, 0);
        while offset < entry.bytes {
            let bytes = block_bytes.min(entry.bytes - offset);
            let hash = self.hash(offset, bytes, &mut piece, on_read)?;
            let expected = match entry.blocks.is_empty() {
                true => Some(&entry.xxh3_128),
                false => entry.blocks.get(number),
            };
            if expected != Some(&hash) {
                return Ok(Err(match entry.blocks.is_empty() {
                    true => Damage::PartHash {
                        file: entry.file.clone(),
                    },
                    false => Damage::BlockHash {
                        file: entry.file.clone(),
                        offset,
                        bytes,
                    },
                }));
            }
            (offset, number) = (offset + bytes, number + 1);
        }
        Ok(Ok(()))
    }

    /// The hash of `bytes` bytes from `offset` on.
    fn hash(
        &self,
        offset: u64,
        bytes: u64,
        piece: &mut [u8],
        on_read: &mut dyn FnMut(u64),
    ) -> Result<Hash, StoreError> {
        let mut hasher = Xxh3::new();
        let mut done = 0;
        while done < bytes {
            let length = (bytes - done).min(piece.len() as u64);
            let length = usize::try_from(length).unwrap_or(piece.len());
            let (now, _) = piece.split_at_mut(length);
            self.read(offset + done, now)?;
            hasher.update(now);
            done += length as u64;
            on_read(length as u64);
        }
        Ok(Hash::finish(&hasher))
    }

    /// The part's entry in the manifest.
    pub fn entry(&self) -> &PartEntry {
        &self.entry
    }
}
