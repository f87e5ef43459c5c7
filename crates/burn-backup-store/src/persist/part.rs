//! Writing one part.

use std::error::Error;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::open_part::{Failure, OpenPart, Progress};
use super::reuse::FreshFile;
use super::workers::{Block, Inspect, Segment};
use super::{StagedPart, Staging};
use crate::blocks::BLOCK_BYTES;
use crate::error::StoreError;
use crate::fs::WriteFile;

/// Smaller chunks are copied into one buffer before they are written.
const GATHERED_BYTES: usize = 256 * 1024;

/// A part of at most this length is written on the caller's thread. The commit syncs all such parts together.
const SMALL_BYTES: u64 = 1024 * 1024;

/// Writes one part. The part belongs to the generation once [`finish`](Self::finish) has returned.
pub struct PartWriter<'a, 's> {
    staging: &'a mut Staging<'s>,
    name: String,
    path: PathBuf,
    file: Arc<dyn WriteFile>,
    is_reused: bool,
    progress: Arc<Progress>,
    block: NextBlock,
    bytes: u64,
}

/// The next block to write.
#[derive(Default)]
struct NextBlock {
    segments: Vec<Segment>,
    /// Small chunks that follow these segments.
    gathered: Vec<u8>,
    len: usize,
}

impl NextBlock {
    fn flush(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        let gathered = std::mem::take(&mut self.gathered);
        self.segments.push(Segment {
            range: 0..gathered.len(),
            holder: Arc::new(gathered),
            inspect: None,
        });
    }

    fn take(&mut self) -> Vec<Segment> {
        self.flush();
        self.len = 0;
        std::mem::take(&mut self.segments)
    }
}

impl<'a, 's> PartWriter<'a, 's> {
    pub(super) fn new(
        staging: &'a mut Staging<'s>,
        name: &str,
        path: PathBuf,
        file: FreshFile,
    ) -> Self {
        Self {
            staging,
            name: name.to_owned(),
            path,
            file: file.file.into(),
            is_reused: file.is_reused,
            progress: Arc::default(),
            block: NextBlock::default(),
            bytes: 0,
        }
    }

    /// Adds the bytes of `chunk` to the part. The store's threads hash and write them while the caller makes the next
    /// chunk.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if this write or an earlier one fails. The staged generation can only be dropped then.
    pub fn append(
        &mut self,
        chunk: impl AsRef<[u8]> + Send + Sync + 'static,
    ) -> Result<(), StoreError> {
        self.add(chunk, None)
    }

    /// Like [`append`](Self::append), and calls `inspect` with the bytes before they are written. It is called on the
    /// writing threads, with pieces of at most 1 MiB. A piece ends at the end of the chunk, at the end of an 8 MiB
    /// block of the part, or after 1 MiB.
    ///
    /// # Errors
    ///
    /// The errors of [`append`](Self::append), and [`StoreError::Refused`] with the error of `inspect` for these bytes
    /// or earlier ones. The generation can only be dropped then.
    pub fn append_inspected<E>(
        &mut self,
        chunk: impl AsRef<[u8]> + Send + Sync + 'static,
        inspect: impl Fn(&[u8]) -> Result<(), E> + Send + Sync + 'static,
    ) -> Result<(), StoreError>
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.add(
            chunk,
            Some(Arc::new(move |bytes| inspect(bytes).map_err(E::into))),
        )
    }

    /// Ends the part, and adds it to the generation. A large part may still be written and synced when this returns;
    /// [`commit`](Staging::commit) waits for it.
    ///
    /// # Errors
    ///
    /// The errors of [`append`](Self::append).
    pub fn finish(mut self) -> Result<(), StoreError> {
        let is_small = self.bytes <= SMALL_BYTES;
        let block = self.block.take();
        match is_small {
            true => super::workers::write_here(self.next(block)),
            false => self.write(block),
        }
        self.truncate();
        self.check()?;
        if self.progress.complete(is_small) {
            let (file, progress) = (self.file.clone(), self.progress.clone());
            self.staging.workers.sync(file, progress);
        }
        let part = self.open_part();
        let name = std::mem::take(&mut self.name);
        self.staging.add(&name, StagedPart::Written(part));
        Ok(())
    }

    fn add<C>(&mut self, chunk: C, inspect: Option<Inspect>) -> Result<(), StoreError>
    where
        C: AsRef<[u8]> + Send + Sync + 'static,
    {
        self.check()?;
        let len = chunk.as_ref().len();
        self.bytes += len as u64;
        if len < GATHERED_BYTES {
            if let Some(Err(refusal)) = inspect.map(|inspect| inspect(chunk.as_ref())) {
                self.progress.fail(Failure::Refused(refusal));
                return self.check();
            }
            for range in self.divided(len) {
                let bytes = chunk.as_ref().get(range).unwrap_or_default();
                self.block.gathered.extend_from_slice(bytes);
                self.count(bytes.len());
            }
            return Ok(());
        }
        let holder: Arc<dyn AsRef<[u8]> + Send + Sync> = Arc::new(chunk);
        for range in self.divided(len) {
            self.block.flush();
            let bytes = range.len();
            self.block.segments.push(Segment {
                holder: holder.clone(),
                range,
                inspect: inspect.clone(),
            });
            self.count(bytes);
        }
        Ok(())
    }

    /// Divides the next `len` bytes into ranges that are in one block each.
    fn divided(&self, len: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let first = (BLOCK_BYTES - self.block.len).min(len);
        let rest = (first..len).step_by(BLOCK_BYTES);
        let rest = rest.map(move |start| start..len.min(start + BLOCK_BYTES));
        std::iter::once(0..first).chain(rest)
    }

    /// Counts bytes that were added to the block.
    fn count(&mut self, bytes: usize) {
        self.block.len += bytes;
        if self.block.len == BLOCK_BYTES {
            let block = self.block.take();
            self.write(block);
        }
    }

    fn write(&mut self, segments: Vec<Segment>) {
        if !segments.is_empty() {
            let block = self.next(segments);
            self.staging.workers.write(block);
        }
    }

    fn next(&self, segments: Vec<Segment>) -> Block {
        Block {
            number: self.progress.block_begins(),
            segments,
            file: self.file.clone(),
            progress: self.progress.clone(),
        }
    }

    /// Cuts off the rest of the reused file's earlier contents.
    fn truncate(&self) {
        if self.is_reused
            && let Err(error) = self.file.truncate(self.bytes)
        {
            self.progress.fail(Failure::Write(error));
        }
    }

    /// Returns the first error, if there was one.
    fn check(&self) -> Result<(), StoreError> {
        let checked = self.progress.check();
        checked.map_err(|failure| {
            let error = self.open_part().error(failure);
            self.staging.store.explain(error)
        })
    }

    fn open_part(&self) -> OpenPart {
        OpenPart {
            name: self.name.clone(),
            path: self.path.clone(),
            file: self.file.clone(),
            progress: self.progress.clone(),
            bytes: self.bytes,
        }
    }
}
