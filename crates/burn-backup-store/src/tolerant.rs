//! Tolerates file systems that can't sync a directory, with one warning.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::fs::{Entry, EntryKind, Filesystem, LockAttempt, ReadFile, WriteFile};

const LOG: &str = "burn_backup::commit";

/// A filesystem whose directories may not support a sync.
pub(crate) struct Tolerant {
    inner: Arc<dyn Filesystem>,
    has_said: AtomicBool,
}

impl Tolerant {
    pub(crate) fn new(inner: Arc<dyn Filesystem>) -> Self {
        Self {
            inner,
            has_said: AtomicBool::new(false),
        }
    }
}

/// Whether an error means that the call is not supported, and not that it failed: `EINVAL`, `ENOTSUP`, `ENOSYS`.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidInput | ErrorKind::Unsupported
    )
}

impl Filesystem for Tolerant {
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let Err(error) = self.inner.sync_dir(path) else {
            return Ok(());
        };
        if !is_unsupported(&error) {
            return Err(error);
        }
        if !self.has_said.swap(true, Ordering::Relaxed) {
            log::warn!(
                target: LOG,
                "the file system can't sync the directory '{}' ({error}): backups survive the end of \
                 the process, but a power cut may undo the last ones", path.display(),
            );
        }
        Ok(())
    }

    fn is_locked(&self, path: &Path) -> io::Result<Option<bool>> {
        self.inner.is_locked(path)
    }

    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        self.inner.absolute(path)
    }

    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        self.inner.kind(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.inner.list(dir)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir(path)
    }

    fn create_file(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.inner.create_file(path)
    }

    fn reuses_files(&self) -> bool {
        self.inner.reuses_files()
    }

    fn reuse_file(&self, path: &Path) -> io::Result<Option<Box<dyn WriteFile>>> {
        self.inner.reuse_file(path)
    }

    fn open_file(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        self.inner.open_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_dir(path)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_file(path)
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<LockAttempt> {
        self.inner.lock(path, owner)
    }
}
