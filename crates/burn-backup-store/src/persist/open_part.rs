//! A part that is being written, shared by the threads that work on it.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::blocks::Hash;
use crate::error::{NOT_COMMITTED, StoreError};
use crate::fs::WriteFile;
use crate::manifest::PartEntry;

/// A file is synced each time this many more bytes are written, so that the disk works from the beginning.
const SYNC_BYTES: u64 = 32 * 1024 * 1024;

/// A staged part, which threads may still be writing.
pub(crate) struct OpenPart {
    pub name: String,
    pub path: PathBuf,
    pub file: Arc<dyn WriteFile>,
    pub progress: Arc<Progress>,
    /// Its length, once it is known.
    pub bytes: u64,
}

impl OpenPart {
    /// Waits until all of the part is written, and synced unless the commit must sync it. Returns its manifest entry.
    pub(crate) fn join(&self) -> Result<PartEntry, StoreError> {
        let blocks = self
            .progress
            .wait()
            .map_err(|failure| self.error(failure))?;
        Ok(PartEntry::new(&self.name, self.bytes, blocks))
    }

    /// The error of a failure.
    pub(crate) fn error(&self, failure: Failure) -> StoreError {
        match failure {
            Failure::Write(error) => StoreError::io("write", &self.path, NOT_COMMITTED)(error),
            Failure::Sync(error) => StoreError::io("sync", &self.path, NOT_COMMITTED)(error),
            Failure::Refused(source) => StoreError::Refused {
                part: self.name.clone(),
                source,
            },
        }
    }
}

/// Why a part can't be written.
#[derive(Debug)]
pub(crate) enum Failure {
    Write(io::Error),
    Sync(io::Error),
    /// The caller's inspection refused the bytes.
    Refused(Box<dyn Error + Send + Sync>),
}

impl Failure {
    /// The failure to report after the first one was returned.
    pub(super) fn earlier() -> Self {
        Self::Write(io::Error::other("an earlier write failed"))
    }
}

/// The progress of writing a part.
#[derive(Default)]
pub(crate) struct Progress {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The hashes of the blocks, by their numbers.
    hashes: Vec<Option<Hash>>,
    /// How many blocks are being written.
    writing: usize,
    /// Whether a sync is requested or running.
    is_syncing: bool,
    /// How many bytes were written since the last sync began.
    unsynced: u64,
    /// Whether all blocks were handed over.
    is_complete: bool,
    /// Whether the commit must do the last sync.
    is_small: bool,
    /// The first failure, until it is returned.
    failure: Option<Failure>,
    has_failed: bool,
}

impl State {
    fn fail(&mut self, failure: Failure) {
        if !self.has_failed {
            self.has_failed = true;
            self.failure = Some(failure);
        }
    }

    /// Whether a sync must begin now. If so, the caller starts it.
    fn begins_sync(&mut self) -> bool {
        let is_last = self.is_complete && self.writing == 0 && !self.is_small;
        let is_enough = self.unsynced >= SYNC_BYTES || is_last && self.unsynced > 0;
        let begins = is_enough && !self.is_syncing && !self.has_failed;
        self.is_syncing |= begins;
        begins
    }

    fn is_done(&self) -> bool {
        let is_synced = self.is_small || self.unsynced == 0 || self.has_failed;
        self.writing == 0 && !self.is_syncing && is_synced
    }
}

impl Progress {
    /// Registers one more block, and returns its number.
    pub(super) fn block_begins(&self) -> usize {
        let mut state = self.state();
        state.writing += 1;
        state.hashes.push(None);
        state.hashes.len() - 1
    }

    /// Whether a write or sync has failed, so that nothing more need be written.
    pub(super) fn has_failed(&self) -> bool {
        self.state().has_failed
    }

    /// Records that the block `number` with these `bytes` was written, or why not. Returns whether a sync must begin.
    pub(super) fn block_ends(
        &self,
        number: usize,
        bytes: u64,
        outcome: Result<Hash, Failure>,
    ) -> bool {
        self.change(|state| {
            state.writing -= 1;
            state.unsynced += bytes;
            match outcome {
                Ok(hash) => {
                    if let Some(place) = state.hashes.get_mut(number) {
                        *place = Some(hash);
                    }
                }
                Err(failure) => state.fail(failure),
            }
            state.begins_sync()
        })
    }

    /// Records the start of a sync. Bytes written from now on need another one.
    pub(super) fn sync_begins(&self) {
        self.state().unsynced = 0;
    }

    /// Records the end of a sync. Returns whether another one must begin.
    pub(super) fn sync_ends(&self, outcome: io::Result<()>) -> bool {
        self.change(|state| {
            state.is_syncing = false;
            if let Err(error) = outcome {
                state.fail(Failure::Sync(error));
            }
            state.begins_sync()
        })
    }

    /// Records that no more blocks come. The commit does the last sync of a part that `is_small`. Returns whether a
    /// sync must begin.
    pub(super) fn complete(&self, is_small: bool) -> bool {
        self.change(|state| {
            state.is_complete = true;
            state.is_small = is_small;
            state.begins_sync()
        })
    }

    /// Records that the part can't be completed.
    pub(super) fn fail(&self, failure: Failure) {
        self.change(|state| state.fail(failure));
    }

    /// Returns the failure, if there was one.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match self.state() {
            state if !state.has_failed => Ok(()),
            mut state => Err(first_failure(&mut state)),
        }
    }

    /// Whether the commit must do the last sync.
    pub(crate) fn is_small(&self) -> bool {
        self.state().is_small
    }

    /// Waits until no write or sync is pending.
    pub(super) fn wait(&self) -> Result<Vec<Hash>, Failure> {
        let waits = |state: &mut State| !state.is_done();
        let waited = self.changed.wait_while(self.state(), waits);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        match state.has_failed {
            false => Ok(state.hashes.iter().copied().flatten().collect()),
            true => Err(first_failure(&mut state)),
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state());
        self.changed.notify_all();
        changed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the original failure the first time, and a general one afterwards.
fn first_failure(state: &mut State) -> Failure {
    state.failure.take().unwrap_or_else(Failure::earlier)
}
