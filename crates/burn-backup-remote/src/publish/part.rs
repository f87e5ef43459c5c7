//! Puts a part, which is read block by block, verified, and named by its contents.

use std::sync::{Arc, PoisonError};

use burn_backup_store::{PartEntry, PartReader, Pinned};
use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, PutPayload, UploadPart};
use tokio::task::{JoinError, JoinSet, spawn_blocking};

use super::{Publisher, Sent, Upload, name};
use crate::error::{Damage, MirrorError};
use crate::keys::PartRef;
use crate::pace::Pace;
use crate::place::Place;

/// A part of at most this length is put at once. Longer ones are put in pieces of at least this length.
pub(crate) const PIECE_BYTES: u64 = 16 * 1024 * 1024;

/// Object stores allow at most this many pieces for an object.
const MAX_PIECES: u64 = 10_000;

/// How many pieces are sent at the same time.
const CONCURRENCY: usize = 4;

/// A part and the file that it is read from.
#[derive(Clone)]
struct Source {
    pinned: Arc<Pinned>,
    part: Arc<PartReader>,
}

impl Publisher {
    /// Makes sure that the mirror has the part, and returns its place.
    pub(super) async fn provide(
        &mut self,
        pinned: &Arc<Pinned>,
        entry: &PartEntry,
    ) -> Result<PartRef, MirrorError> {
        if let Some(known) = self.contents.hashes.get(&name(entry))
            && self.contents.has(known)
        {
            self.sent.skip(entry.bytes);
            return Ok(known.clone());
        }
        let source = Source {
            pinned: pinned.clone(),
            part: Arc::new(pinned.part(entry)?),
        };
        let part = match entry.bytes <= PIECE_BYTES {
            true => self.put_whole(source).await?,
            false => self.put_in_pieces(source).await?,
        };
        let path = self.keys.part(&part);
        let there = self.place.head(&path).await?;
        let damage = match there {
            Some(meta) if meta.size == part.bytes => None,
            Some(meta) => Some(Damage::Length {
                expected: part.bytes,
                found: meta.size,
            }),
            None => Some(Damage::Missing),
        };
        if let Some(damage) = damage {
            return Err(self.place.damaged(&path, damage));
        }
        self.contents.loose.insert(part.clone());
        self.contents.learn_hash(entry, &part);
        Ok(part)
    }

    async fn put_whole(&self, source: Source) -> Result<PartRef, MirrorError> {
        let bytes = source.part.entry().bytes;
        let read = source.read(0, bytes).await?;
        let part = PartRef {
            hash: hash_of(&read),
            bytes,
        };
        if self.contents.has(&part) {
            self.sent.skip(bytes);
            return Ok(part);
        }
        self.pace.wait(bytes).await;
        let payload = PutPayload::from_iter(read);
        self.place.put_part(&self.keys.part(&part), payload).await?;
        self.sent.add(bytes);
        Ok(part)
    }

    async fn put_in_pieces(&mut self, source: Source) -> Result<PartRef, MirrorError> {
        let bytes = source.part.entry().bytes;
        let part = PartRef {
            hash: source.hash().await?,
            bytes,
        };
        if self.contents.has(&part) {
            self.sent.skip(bytes);
            return Ok(part);
        }
        let path = self.keys.part(&part);
        let pieces = self.place.begin(&path).await?;
        let out = Outbox {
            place: self.place.clone(),
            path: path.clone(),
            pace: self.pace.clone(),
            sent: self.sent.clone(),
        };
        // If this future is dropped, its caller aborts the upload.
        let open = self.open.get_mut().unwrap_or_else(PoisonError::into_inner);
        let upload = open.insert(Upload { path, pieces });
        let put = match out.send(&source, upload.pieces.as_mut()).await {
            Ok(()) => out.place.complete(&out.path, &mut upload.pieces).await,
            Err(error) => Err(error),
        };
        match put {
            Ok(()) => *open = None,
            Err(_) => self.abort().await,
        }
        put.map(|()| part)
    }
}

/// Sends the pieces of a part.
#[derive(Clone)]
struct Outbox {
    place: Place,
    path: Path,
    pace: Arc<Pace>,
    sent: Arc<Sent>,
}

impl Outbox {
    async fn send(
        &self,
        source: &Source,
        upload: &mut dyn MultipartUpload,
    ) -> Result<(), MirrorError> {
        let bytes = source.part.entry().bytes;
        let piece_bytes = piece_bytes(bytes);
        let mut on_their_way = JoinSet::new();
        let mut offset = 0;
        while offset < bytes {
            while on_their_way.len() >= CONCURRENCY {
                arrived(on_their_way.join_next().await)?;
            }
            let length = piece_bytes.min(bytes - offset);
            let read = source.read(offset, length).await?;
            self.pace.wait(length).await;
            let put = upload.put_part(PutPayload::from_iter(read));
            on_their_way.spawn(self.clone().put(length, put));
            offset += length;
        }
        while let Some(put) = on_their_way.join_next().await {
            arrived(Some(put))?;
        }
        Ok(())
    }

    async fn put(self, bytes: u64, put: UploadPart) -> Result<(), MirrorError> {
        self.place.put_piece(&self.path, bytes, put).await?;
        self.sent.add(bytes);
        Ok(())
    }
}

fn arrived(put: Option<Result<Result<(), MirrorError>, JoinError>>) -> Result<(), MirrorError> {
    match put {
        Some(Ok(put)) => put,
        Some(Err(_)) => Err(MirrorError::ThreadEnded),
        None => Ok(()),
    }
}

/// The length of every piece of a part except the last one. Some stores require equal lengths.
fn piece_bytes(bytes: u64) -> u64 {
    bytes
        .div_ceil(MAX_PIECES)
        .max(PIECE_BYTES)
        .next_multiple_of(PartEntry::BLOCK_BYTES)
}

fn hash_of(blocks: &[Bytes]) -> String {
    let mut hasher = blake3::Hasher::new();
    for block in blocks {
        hasher.update(block);
    }
    hasher.finalize().to_hex().to_string()
}

impl Source {
    /// Reads `bytes` bytes from `offset`, the start of a block, as verified blocks.
    async fn read(&self, offset: u64, bytes: u64) -> Result<Vec<Bytes>, MirrorError> {
        let source = self.clone();
        blocking(move || {
            let ranges = blocks(offset, bytes);
            let read = ranges.map(|(offset, length)| source.block(offset, length));
            read.collect()
        })
        .await
    }

    /// The hash that names the part in the mirror.
    async fn hash(&self) -> Result<String, MirrorError> {
        let source = self.clone();
        blocking(move || {
            let mut hasher = blake3::Hasher::new();
            for (offset, length) in blocks(0, source.part.entry().bytes) {
                hasher.update(&source.block(offset, length)?);
            }
            Ok(hasher.finalize().to_hex().to_string())
        })
        .await
    }

    fn block(&self, offset: u64, length: u64) -> Result<Bytes, MirrorError> {
        let entry = self.part.entry();
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        self.part.read(offset, &mut bytes)?;
        let number = usize::try_from(offset / PartEntry::BLOCK_BYTES).unwrap_or(usize::MAX);
        // A backup of an earlier version has only one hash for the whole part.
        let is_verifiable = !entry.blocks.is_empty() || entry.bytes <= PartEntry::BLOCK_BYTES;
        if is_verifiable && !entry.is_block(number, &bytes) {
            return Err(MirrorError::LocalDamage {
                generation: self.pinned.id(),
                file: entry.file.clone(),
                offset,
            });
        }
        Ok(bytes.into())
    }
}

/// The offsets and lengths of the blocks in a range.
fn blocks(offset: u64, bytes: u64) -> impl Iterator<Item = (u64, u64)> {
    let end = offset + bytes;
    let starts =
        (offset..end).step_by(usize::try_from(PartEntry::BLOCK_BYTES).unwrap_or(usize::MAX));
    starts.map(move |start| (start, PartEntry::BLOCK_BYTES.min(end - start)))
}

/// Runs blocking work on a thread where it delays no other task.
pub(crate) async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, MirrorError> + Send + 'static,
) -> Result<T, MirrorError> {
    let read = spawn_blocking(read).await;
    read.unwrap_or(Err(MirrorError::ThreadEnded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_of_whole_blocks_and_few_enough() {
        let mebibytes = |count: u64| count * 1024 * 1024;
        for bytes in [
            PIECE_BYTES + 1,
            mebibytes(1000),
            mebibytes(160_000),
            mebibytes(160_001),
            mebibytes(5_000_000),
        ] {
            let piece = piece_bytes(bytes);
            assert_eq!(piece % PartEntry::BLOCK_BYTES, 0);
            assert!(piece >= PIECE_BYTES && bytes.div_ceil(piece) <= MAX_PIECES);
        }
        assert_eq!(piece_bytes(mebibytes(1000)), PIECE_BYTES);
    }

    #[test]
    fn blocks_cover_a_range() {
        let block = PartEntry::BLOCK_BYTES;
        let covered: Vec<_> = blocks(block, 2 * block + 1).collect();
        assert_eq!(
            covered,
            [(block, block), (2 * block, block), (3 * block, 1)]
        );
        assert_eq!(blocks(0, 0).count(), 0);
    }
}
