//! A part on its way to the disk, as seen by all who work on it.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::blocks::Hash;
use crate::error::{NOT_COMMITTED, StoreError};
use crate::fs::WriteFile;
use crate::manifest::PartEntry;

/// A file is synced each time that so many more bytes are written: so the disk is at work from the beginning.
const SYNC_BYTES: u64 = 32 * 1024 * 1024;

/// A part that is staged, and may still be being written.
pub(crate) struct OpenPart {
    pub name: String,
    pub path: PathBuf,
    pub file: Arc<dyn WriteFile>,
    pub progress: Arc<Progress>,
    /// Its length, once it is known.
    pub bytes: u64,
}

impl OpenPart {
    /// Waits until all of it is written, and synced if that is not left to the commit. Says how it stands in
    /// the manifest.
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
    /// Whoever looked at the bytes does not want them written.
    Refused(Box<dyn Error + Send + Sync>),
}

impl Failure {
    /// The same once more, after it was told.
    pub(super) fn earlier() -> Self {
        Self::Write(io::Error::other("an earlier write failed"))
    }
}

/// How far a part is.
#[derive(Default)]
pub(crate) struct Progress {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The hashes of the blocks, by their numbers.
    hashes: Vec<Option<Hash>>,
    /// How many blocks are on their way.
    writing: usize,
    /// Whether a sync is asked for or under way.
    is_syncing: bool,
    /// How many bytes were written since the last sync began.
    unsynced: u64,
    /// Whether no more blocks come.
    is_complete: bool,
    /// Whether the last sync is left to the commit.
    is_small: bool,
    /// The first failure, until it is told.
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

    /// Whether a sync is to begin now. Whoever hears so has it done.
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
    /// One more block is on its way; gives its number.
    pub(super) fn block_begins(&self) -> usize {
        let mut state = self.state();
        state.writing += 1;
        state.hashes.push(None);
        state.hashes.len() - 1
    }

    /// Whether the part is lost, and nothing more need be written.
    pub(super) fn has_failed(&self) -> bool {
        self.state().has_failed
    }

    /// The block `number` is written, so many `bytes`, or can't be. Says whether a sync is to begin.
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

    /// The sync begins: what is written from now on, is for another one.
    pub(super) fn sync_begins(&self) {
        self.state().unsynced = 0;
    }

    /// The sync is done, or has failed. Says whether another one is to begin.
    pub(super) fn sync_ends(&self, outcome: io::Result<()>) -> bool {
        self.change(|state| {
            state.is_syncing = false;
            if let Err(error) = outcome {
                state.fail(Failure::Sync(error));
            }
            state.begins_sync()
        })
    }

    /// No more blocks come. The last sync of a part that `is_small` is left to the commit. Says whether a
    /// sync is to begin.
    pub(super) fn complete(&self, is_small: bool) -> bool {
        self.change(|state| {
            state.is_complete = true;
            state.is_small = is_small;
            state.begins_sync()
        })
    }

    /// The part can't be completed.
    pub(super) fn fail(&self, failure: Failure) {
        self.change(|state| state.fail(failure));
    }

    /// The failure, if there was one.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match self.state() {
            state if !state.has_failed => Ok(()),
            mut state => Err(told(&mut state)),
        }
    }

    /// Whether the last sync is left to the commit.
    pub(crate) fn is_small(&self) -> bool {
        self.state().is_small
    }

    /// Waits until nothing is on its way.
    pub(super) fn wait(&self) -> Result<Vec<Hash>, Failure> {
        let waits = |state: &mut State| !state.is_done();
        let waited = self.changed.wait_while(self.state(), waits);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        match state.has_failed {
            false => Ok(state.hashes.iter().copied().flatten().collect()),
            true => Err(told(&mut state)),
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

/// The failure: the first time, the one that was.
fn told(state: &mut State) -> Failure {
    state.failure.take().unwrap_or_else(Failure::earlier)
}
