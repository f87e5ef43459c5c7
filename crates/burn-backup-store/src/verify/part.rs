//! Reads one part into its buffers, and checks its blocks in parallel.

use std::io;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use xxhash_rust::xxh3::Xxh3;

use super::Chunking;
use crate::blocks::{BLOCK_BYTES, Hash, PIECE_BYTES};
use crate::buffer::Buffer;
use crate::error::Damage;
use crate::fs::{EntryKind, Filesystem, ReadFile};
use crate::manifest::PartEntry;
use crate::threads::{self, RunOn};

/// More threads do not make reading faster.
const MAX_READERS: usize = 8;

/// Reads a part whose length is in the manifest, and hashes it at the same time. No memory is allocated before the
/// file's own length agrees. A longer file is an error. `on_read` is called on any thread, with the number of bytes
/// read since its last call.
pub(super) fn read(
    fs: &dyn Filesystem,
    path: &Path,
    entry: &PartEntry,
    chunking: &dyn Chunking,
    on_read: &(dyn Fn(u64) + Sync),
) -> io::Result<Result<Vec<Buffer>, Damage>> {
    if fs.kind(path)? != Some(EntryKind::File) {
        return Ok(Err(Damage::PartMissing {
            file: entry.file.clone(),
        }));
    }
    let file = fs.open_file(path)?;
    let found = file.len()?;
    let Some(len) = usize::try_from(found).ok().filter(|_| found == entry.bytes) else {
        return Ok(Err(wrong_length(entry, found)));
    };
    let mut reading = Reading::new(file.as_ref(), entry, on_read);
    let mut buffers = Vec::new();
    let mut left = len;
    while left > 0 {
        let last = buffers.last().map_or(&[][..], |last: &Buffer| last);
        let asked = chunking.next_lengths(&entry.name, buffers.len(), last);
        let mut next = allocate(asked, &mut left)?;
        if let Err(damage) = reading.fill(&mut next)? {
            return Ok(Err(damage));
        }
        buffers.append(&mut next);
    }
    Ok(reading.finish().map(|()| buffers))
}

fn wrong_length(entry: &PartEntry, found: u64) -> Damage {
    Damage::PartLength {
        file: entry.file.clone(),
        expected: entry.bytes,
        found,
    }
}

/// Buffers of these lengths until no bytes are left, or one for all of them if no lengths are given.
fn allocate(asked: Vec<usize>, left: &mut usize) -> io::Result<Vec<Buffer>> {
    let mut buffers = Vec::with_capacity(asked.len());
    // A length of 0 would make no progress.
    for len in asked.into_iter().filter(|len| *len > 0) {
        let len = len.min(*left);
        if len > 0 {
            buffers.push(Buffer::zeroed(len)?);
            *left -= len;
        }
    }
    if buffers.is_empty() {
        buffers.push(Buffer::zeroed(std::mem::take(left))?);
    }
    Ok(buffers)
}

/// A part that is partly read.
struct Reading<'r> {
    file: &'r dyn ReadFile,
    entry: &'r PartEntry,
    on_read: &'r (dyn Fn(u64) + Sync),
    /// The length of its blocks. Without block hashes, the whole part is one block.
    block_bytes: u64,
    /// The offset of the next byte to read.
    offset: u64,
    /// The hasher of the block at this offset.
    hasher: Xxh3,
}

/// Bytes of one block to read.
struct Run<'b> {
    offset: u64,
    /// The hasher of the block's earlier bytes.
    hasher: Xxh3,
    slices: Vec<&'b mut [u8]>,
}

/// The offset of bytes of a block, and their hasher.
type Hashed = (u64, Xxh3);

impl<'r> Reading<'r> {
    fn new(
        file: &'r dyn ReadFile,
        entry: &'r PartEntry,
        on_read: &'r (dyn Fn(u64) + Sync),
    ) -> Self {
        Self {
            file,
            entry,
            on_read,
            block_bytes: match entry.blocks.is_empty() {
                true => entry.bytes.max(1),
                false => BLOCK_BYTES as u64,
            },
            offset: 0,
            hasher: Xxh3::new(),
        }
    }

    /// Fills these buffers with the next bytes.
    fn fill(&mut self, buffers: &mut [Buffer]) -> io::Result<Result<(), Damage>> {
        let runs = self.divide(buffers);
        let hashers = match read_all(self.file, runs, self.on_read)? {
            Ok(hashers) => hashers,
            Err(short) => return Ok(Err(wrong_length(self.entry, short))),
        };
        for (start, hasher) in hashers {
            let block = start / self.block_bytes;
            let end = (block + 1).saturating_mul(self.block_bytes);
            if end <= self.offset || self.offset == self.entry.bytes {
                if let Err(damage) = self.check(block, Hash::finish(&hasher)) {
                    return Ok(Err(damage));
                }
                self.hasher = Xxh3::new();
            } else {
                self.hasher = hasher;
            }
        }
        Ok(Ok(()))
    }

    /// Divides the next bytes at the ends of blocks.
    fn divide<'b>(&mut self, buffers: &'b mut [Buffer]) -> Vec<Run<'b>> {
        let mut runs: Vec<Run<'b>> = Vec::new();
        let mut hasher = Some(std::mem::replace(&mut self.hasher, Xxh3::new()));
        for buffer in buffers {
            let mut rest: &mut [u8] = buffer;
            while !rest.is_empty() {
                let in_block = self.offset % self.block_bytes;
                let room = usize::try_from(self.block_bytes - in_block).unwrap_or(usize::MAX);
                let (now, later) = rest.split_at_mut(room.min(rest.len()));
                let len = now.len() as u64;
                match runs.last_mut() {
                    Some(run) if in_block > 0 => run.slices.push(now),
                    _ => runs.push(Run {
                        offset: self.offset,
                        hasher: hasher.take().unwrap_or_default(),
                        slices: vec![now],
                    }),
                }
                self.offset += len;
                rest = later;
            }
        }
        runs
    }

    /// Checks the end of the part after all bytes are read. An empty part has no bytes, but a hash to check.
    fn finish(&self) -> Result<(), Damage> {
        match self.entry.bytes {
            0 => self.check(0, Hash::of(&[])),
            _ => Ok(()),
        }
    }

    fn check(&self, block: u64, found: Hash) -> Result<(), Damage> {
        let file = self.entry.file.clone();
        if self.entry.blocks.is_empty() {
            return match found == self.entry.xxh3_128 {
                true => Ok(()),
                false => Err(Damage::PartHash { file }),
            };
        }
        let number = usize::try_from(block).unwrap_or(usize::MAX);
        if self.entry.blocks.get(number) == Some(&found) {
            return Ok(());
        }
        let offset = block * self.block_bytes;
        Err(Damage::BlockHash {
            file,
            offset,
            bytes: self.block_bytes.min(self.entry.bytes - offset),
        })
    }
}

/// Reads all runs in parallel, as far as threads can be started. Returns the offset and hasher of each in the same
/// order. If there are too few bytes, returns how many there are.
fn read_all(
    file: &dyn ReadFile,
    runs: Vec<Run<'_>>,
    on_read: &(dyn Fn(u64) + Sync),
) -> io::Result<Result<Vec<Hashed>, u64>> {
    let readers = runs.len().min(threads::cores().clamp(1, MAX_READERS));
    if readers <= 1 {
        return runs
            .into_iter()
            .map(|run| run.read(file, on_read))
            .collect();
    }
    let queue = Mutex::new(runs.into_iter());
    let next = || {
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.next()
    };
    let has_failed = AtomicBool::new(false);
    let work = || {
        let mut outcomes = Vec::new();
        while !has_failed.load(Ordering::Relaxed)
            && let Some(run) = next()
        {
            let outcome = run.read(file, on_read);
            has_failed.fetch_or(!matches!(outcome, Ok(Ok(_))), Ordering::Relaxed);
            outcomes.push(outcome);
        }
        outcomes
    };
    let work = &work;
    let works = (1..=readers).map(|reader| {
        let place = match reader == readers {
            true => RunOn::CallingThread,
            false => RunOn::NewThread,
        };
        (place, move || work())
    });
    let outcomes = threads::at_once("backup-read", works).into_iter();
    let outcomes = outcomes.map(|outcomes| outcomes.unwrap_or_else(|panic| resume_unwind(panic)));
    let hashed: io::Result<Result<Vec<_>, _>> = outcomes.flatten().collect();
    Ok(hashed?.map(|mut hashed| {
        hashed.sort_unstable_by_key(|(offset, _)| *offset);
        hashed
    }))
}

impl Run<'_> {
    /// Reads and hashes piece by piece, while a piece is in the processor's cache. If there are too few bytes, returns
    /// how many there are.
    fn read(
        self,
        file: &dyn ReadFile,
        on_read: &(dyn Fn(u64) + Sync),
    ) -> io::Result<Result<Hashed, u64>> {
        let Self {
            offset: start,
            mut hasher,
            slices,
        } = self;
        let mut offset = start;
        for slice in slices {
            for piece in slice.chunks_mut(PIECE_BYTES) {
                let read = file.read_full_at(piece, offset)?;
                offset += read as u64;
                if read < piece.len() {
                    return Ok(Err(offset));
                }
                hasher.update(piece);
                on_read(read as u64);
            }
        }
        Ok(Ok((start, hasher)))
    }
}
