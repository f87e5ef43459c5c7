//! The threads that hash, write and sync the blocks of parts.

use std::error::Error;
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use xxhash_rust::xxh3::Xxh3;

use super::open_part::{Failure, Progress};
use crate::blocks::{BLOCK_BYTES, Hash, PIECE_BYTES};
use crate::fs::WriteFile;
use crate::threads::{self, Thread};

/// More threads do not make a disk faster.
const MAX_WRITERS: usize = 4;

/// Bytes of a part.
pub(super) struct Segment {
    pub holder: Arc<dyn AsRef<[u8]> + Send + Sync>,
    pub range: Range<usize>,
    pub inspect: Option<Inspect>,
}

/// Inspects bytes before they are written, and may refuse them.
pub(super) type Inspect =
    Arc<dyn Fn(&[u8]) -> Result<(), Box<dyn Error + Send + Sync>> + Send + Sync>;

impl Segment {
    fn bytes(&self) -> &[u8] {
        let bytes = self.holder.as_ref().as_ref();
        bytes.get(self.range.clone()).unwrap_or_default()
    }
}

/// A block to write.
pub(super) struct Block {
    pub number: usize,
    pub segments: Vec<Segment>,
    pub file: Arc<dyn WriteFile>,
    pub progress: Arc<Progress>,
}

/// A file to sync.
struct SyncRequest {
    file: Arc<dyn WriteFile>,
    progress: Arc<Progress>,
}

/// Where a file is synced.
#[derive(Clone)]
enum Syncer {
    There(Sender<SyncRequest>),
    /// On the caller's thread, because no other could be started.
    Here,
}

impl Syncer {
    fn sync(&self, file: Arc<dyn WriteFile>, progress: Arc<Progress>) {
        let request = SyncRequest { file, progress };
        match self {
            Self::There(requests) => {
                // The thread receives requests until every sender is dropped.
                if let Err(unsent) = requests.send(request) {
                    sync(&unsent.0);
                }
            }
            Self::Here => sync(&request),
        }
    }
}

/// The threads of one staging. When dropped, they finish the work that they have begun.
#[derive(Default)]
pub(super) struct Workers {
    running: Option<Running>,
}

struct Running {
    blocks: SyncSender<Block>,
    writers: Vec<Thread<()>>,
    syncer: Syncer,
    /// Ends when every sender of sync requests is dropped.
    syncing: Option<Thread<()>>,
}

impl Workers {
    /// Writes the block on a thread as soon as one is free, or on the caller's thread if there are none.
    pub(super) fn write(&mut self, block: Block) {
        match self.running() {
            Some(running) => {
                // The threads receive blocks until the sender is dropped.
                if let Err(unsent) = running.blocks.send(block) {
                    write(unsent.0, &running.syncer);
                }
            }
            None => write(block, &Syncer::Here),
        }
    }

    /// Has a thread sync the file.
    pub(super) fn sync(&self, file: Arc<dyn WriteFile>, progress: Arc<Progress>) {
        let syncer = self.running.as_ref().map(|running| &running.syncer);
        syncer.unwrap_or(&Syncer::Here).sync(file, progress);
    }

    fn running(&mut self) -> Option<&Running> {
        if self.running.is_none() && !threads::in_turn() {
            self.running = Running::start();
        }
        self.running.as_ref()
    }
}

impl Running {
    fn start() -> Option<Self> {
        let (requests, inbox) = channel();
        let syncing = threads::spawn("backup-sync", inbox, |inbox: Receiver<SyncRequest>| {
            inbox.iter().for_each(|request| sync(&request));
        })
        .ok();
        let syncer = match &syncing {
            Some(_) => Syncer::There(requests),
            None => Syncer::Here,
        };
        // The caller may prepare one block in advance.
        let (blocks, inbox) = sync_channel(1);
        let inbox = Arc::new(Mutex::new(inbox));
        let writers = (0..threads::cores().clamp(2, MAX_WRITERS)).filter_map(|_| {
            let input = (inbox.clone(), syncer.clone());
            threads::spawn("backup-write", input, |(inbox, syncer)| {
                write_all(&inbox, &syncer);
            })
            .ok()
        });
        let writers: Vec<_> = writers.collect();
        (!writers.is_empty()).then_some(Self {
            blocks,
            writers,
            syncer,
            syncing,
        })
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let Some(Running {
            blocks,
            writers,
            syncer,
            syncing,
        }) = self.running.take()
        else {
            return;
        };
        drop((blocks, syncer));
        for thread in writers.into_iter().chain(syncing) {
            // The failure of its work is already recorded.
            let _ = thread.join();
        }
    }
}

/// Writes a block on the caller's thread. The commit syncs it.
pub(super) fn write_here(block: Block) {
    write(block, &Syncer::Here);
}

fn write_all(inbox: &Mutex<Receiver<Block>>, syncer: &Syncer) {
    let next = || {
        let inbox = inbox.lock().unwrap_or_else(PoisonError::into_inner);
        inbox.recv()
    };
    while let Ok(block) = next() {
        write(block, syncer);
    }
}

/// Writes a block, and starts a sync of its file when one is due.
fn write(block: Block, syncer: &Syncer) {
    let Block {
        number,
        segments,
        file,
        progress,
    } = block;
    let outcome = match progress.has_failed() {
        true => Err(Failure::earlier()),
        false => {
            let write = AssertUnwindSafe(|| write_segments(number, &segments, file.as_ref()));
            let panicked = |_| Err(Failure::Write(io::Error::other("the write panicked")));
            catch_unwind(write).unwrap_or_else(panicked)
        }
    };
    let bytes = segments
        .iter()
        .map(|segment| segment.range.len() as u64)
        .sum();
    drop(segments);
    if progress.block_ends(number, bytes, outcome) {
        syncer.sync(file, progress);
    }
}

fn sync(SyncRequest { file, progress }: &SyncRequest) {
    loop {
        progress.sync_begins();
        let panicked = |_| Err(io::Error::other("the sync panicked"));
        let outcome = catch_unwind(AssertUnwindSafe(|| file.sync())).unwrap_or_else(panicked);
        if !progress.sync_ends(outcome) {
            return;
        }
    }
}

/// Inspects, hashes and writes the bytes piece by piece, while a piece is in the processor's cache.
fn write_segments(
    number: usize,
    segments: &[Segment],
    file: &dyn WriteFile,
) -> Result<Hash, Failure> {
    let mut offset = (number * BLOCK_BYTES) as u64;
    let mut hasher = Xxh3::new();
    for segment in segments {
        for piece in segment.bytes().chunks(PIECE_BYTES) {
            if let Some(inspect) = &segment.inspect {
                inspect(piece).map_err(Failure::Refused)?;
            }
            hasher.update(piece);
            file.write_all_at(piece, offset).map_err(Failure::Write)?;
            offset += piece.len() as u64;
        }
    }
    Ok(Hash::finish(&hasher))
}
