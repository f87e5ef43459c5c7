//! The locked backup directory of a store. Before each change, the store checks that it is still the directory at its
//! path. Another program may have moved or removed it, and another training may have begun there.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{StoreError, TAKEN_AWAY, UNCHANGED};
use crate::fs::{Filesystem, HeldLock};
use crate::layout::Layout;

pub(crate) struct Directory {
    fs: Arc<dyn Filesystem>,
    pub layout: Layout,
    lock: Mutex<Box<dyn HeldLock>>,
    /// Paths that were moved out of their places and could not be removed yet.
    leftovers: Mutex<BTreeSet<PathBuf>>,
    /// A directory moved out of its place, whose files may be written over.
    spare: Mutex<Option<PathBuf>>,
    has_said_in_place: AtomicBool,
}

impl Directory {
    pub(crate) fn new(fs: Arc<dyn Filesystem>, layout: Layout, lock: Box<dyn HeldLock>) -> Self {
        Self {
            fs,
            layout,
            lock: Mutex::new(lock),
            leftovers: Mutex::default(),
            spare: Mutex::default(),
            has_said_in_place: AtomicBool::new(false),
        }
    }

    pub(crate) fn fs(&self) -> &dyn Filesystem {
        self.fs.as_ref()
    }

    /// The file system, for use after the lock is released.
    pub(crate) fn shared_fs(&self) -> Arc<dyn Filesystem> {
        self.fs.clone()
    }

    /// The lock. A caller may replace it.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Box<dyn HeldLock>> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the path is known to have another directory, or none.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self.lock().is_at(&self.layout.lock()), Ok(false))
    }

    /// Fails if the directory at the path is not the one that was locked.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let path = self.layout.lock();
        match self.lock().is_at(&path) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.gone(None)),
            Err(error) => Err(StoreError::io("inspect", &path, UNCHANGED)(error)),
        }
    }

    pub(crate) fn gone(&self, source: Option<io::Error>) -> StoreError {
        StoreError::Gone {
            path: self.layout.root().to_path_buf(),
            source,
        }
    }

    /// Renames `from` to `to`, a path that only this process would choose. If `from` turns out to belong to another
    /// process, it is moved back.
    pub(crate) fn rename(
        &self,
        from: &Path,
        to: &Path,
        failed: impl FnOnce(io::Error) -> StoreError,
    ) -> Result<(), StoreError> {
        self.check()?;
        self.fs.rename(from, to).map_err(failed)?;
        if self.is_lost() {
            // The directory was replaced between the check and the rename. If it is missing, there is nothing to move
            // back.
            let _ = self.fs.rename(to, from);
            return Err(self.gone(None));
        }
        Ok(())
    }

    /// Removes the lock file, the last file that says which training owns the directory. Never removes another
    /// process's lock file.
    pub(crate) fn remove_lock(&self, away: &Path) -> Result<(), StoreError> {
        let path = self.layout.lock();
        let failed = |operation| StoreError::io(operation, &path, TAKEN_AWAY);
        self.check()?;
        self.fs.rename(&path, away).map_err(failed("take away"))?;
        if matches!(self.lock().is_at(away), Ok(false)) {
            let _ = self.fs.rename(away, &path);
            return Err(self.gone(None));
        }
        self.fs.remove_file(away).map_err(failed("remove"))
    }

    /// Remembers a path that could not be removed.
    pub(crate) fn leave(&self, path: &Path) {
        self.leftovers().insert(path.to_path_buf());
    }

    /// Returns the paths that could not be removed so far, and forgets them.
    pub(crate) fn take_leftovers(&self) -> BTreeSet<PathBuf> {
        std::mem::take(&mut self.leftovers())
    }

    /// Keeps a directory for reuse. It must be durably out of its place and hold only files that this crate wrote.
    pub(crate) fn set_spare(&self, path: PathBuf) {
        *self.spare() = Some(path);
    }

    /// Returns the directory that was kept, if there is one, and forgets it.
    pub(crate) fn take_spare(&self) -> Option<PathBuf> {
        self.spare().take()
    }

    /// Whether a directory is kept.
    pub(crate) fn has_spare(&self) -> bool {
        self.spare().is_some()
    }

    fn spare(&self) -> MutexGuard<'_, Option<PathBuf>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leftovers(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.leftovers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is the first time that a directory is removed in place, without a rename.
    pub(crate) fn is_first_in_place(&self) -> bool {
        !self.has_said_in_place.swap(true, Ordering::Relaxed)
    }
}
