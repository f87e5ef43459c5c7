//! The interface that every filesystem call of this crate goes through.

mod real;

use std::io;
use std::path::{Path, PathBuf};

pub use real::RealFilesystem;

/// The filesystem calls that a [`Store`](crate::Store) makes.
///
/// # Contract
///
/// - No call follows a symbolic link in the last component of its path. The exceptions are [`list`] and [`sync_dir`] on
///   the backup directory itself, which the user may have linked elsewhere. This holds even if another process creates
///   the link while the call runs.
/// - [`create_file`] fails with [`io::ErrorKind::AlreadyExists`] if something is at the path; it never opens it.
/// - The files and directories that [`create_file`], [`create_dir`] and [`lock`] create are private to the user, where
///   the system has permissions.
/// - [`rename`] is atomic for every observer that survives: it sees the old name or the new one. The store never asks
///   for a rename onto an existing name.
/// - Written bytes are durable only after [`WriteFile::sync`] or [`sync_file`]. A name that was created, linked,
///   renamed or removed is durable only after [`sync_dir`] of its directory. A rename across directories needs a
///   sync of both.
/// - After [`WriteFile::sync`] failed, the file's contents are undefined. The store discards the file.
/// - [`reuse_file`] gives a file only if no other process can see that its contents change: it has no other name, and
///   no other process has it open.
/// - [`lock`] is released when the returned value is dropped or the process ends in any way.
/// - Calls come from several threads at once.
///
/// [`list`]: Self::list
/// [`lock`]: Self::lock
/// [`create_dir`]: Self::create_dir
/// [`create_file`]: Self::create_file
/// [`rename`]: Self::rename
/// [`reuse_file`]: Self::reuse_file
/// [`sync_dir`]: Self::sync_dir
/// [`sync_file`]: Self::sync_file
pub trait Filesystem: Send + Sync + 'static {
    /// The same path, independent of the process's current directory. The disk is not read.
    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        std::path::absolute(path)
    }

    /// The kind of the entry at `path`; `None` if there is none.
    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>>;

    /// The entries of a directory, in no particular order.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;

    /// Creates one directory whose parent exists.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Creates a file that does not exist yet, for writing.
    fn create_file(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// Whether [`reuse_file`](Self::reuse_file) can return a file.
    fn reuses_files(&self) -> bool {
        false
    }

    /// Opens a regular file to write it again in the memory and the disk blocks that it has. Its contents stay until
    /// they are written over, and its length until it is truncated. `None` if other processes may see the file, or if
    /// that is unknown: the caller then removes the file and creates another one.
    fn reuse_file(&self, path: &Path) -> io::Result<Option<Box<dyn WriteFile>>> {
        let _ = path;
        Ok(None)
    }

    /// Opens a regular file for reading. Fails with [`io::ErrorKind::InvalidInput`] if something else
    /// is there.
    fn open_file(&self, path: &Path) -> io::Result<Box<dyn ReadFile>>;

    /// Renames `from` to `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Adds a second name, `to`, to the regular file `from`. Fails where the file system has no hard
    /// links, if `from` is anything else, and if there is something at `to`.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file or a symbolic link. Other names of the file stay.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes the contents of a regular file durable, even if another process wrote them.
    fn sync_file(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Takes the exclusive lock on the file `path`, which is created if missing, and does not wait. Writes `owner` into
    /// the file if there is room for it. Fails with [`io::ErrorKind::InvalidInput`] if something other than a regular
    /// file is there.
    fn lock(&self, path: &Path, owner: &str) -> io::Result<LockAttempt>;

    /// Whether a process holds the lock on `path`. The lock is not taken. `None` if the platform can't tell.
    fn is_locked(&self, path: &Path) -> io::Result<Option<bool>> {
        let _ = path;
        Ok(None)
    }
}

/// A lock that is held until this value is dropped.
pub trait HeldLock: Send + Sync {
    /// Whether the locked file is still the one at `path`. If it is not, another process can lock the file at that
    /// path.
    fn is_at(&self, path: &Path) -> io::Result<bool>;
}

/// A file being written. Its calls come from several threads at once, and no two of them write the same bytes.
pub trait WriteFile: Send + Sync {
    /// Writes some of `bytes` at the byte `offset` of the file, and returns how many.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Shortens the file to `len` bytes, if it is longer.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Makes all bytes durable that were written before the call.
    fn sync(&self) -> io::Result<()>;

    /// Writes all of `bytes` at the byte `offset` of the file.
    fn write_all_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_at(bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = bytes.get(written..).unwrap_or_default();
                    offset += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A file being read. Its calls come from several threads at once.
pub trait ReadFile: Send + Sync {
    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Reads some bytes at the byte `offset` of the file, and returns how many; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Whether the file holds no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills the buffer from the byte `offset` of the file, up to the end of the file. Returns how many bytes were
    /// read.
    fn read_full_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while let Some(rest) = buffer.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match self.read_at(rest, offset + read as u64) {
                Ok(0) => break,
                Ok(some) => read += some,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The entry's name. A name that is not Unicode is shown with replacement characters. The store only ever acts on
    /// names that it wrote itself, which are ASCII.
    pub name: String,
    /// What the entry is.
    pub kind: EntryKind,
}

impl Entry {
    /// The entry `name`.
    pub fn new(name: impl Into<String>, kind: EntryKind) -> Self {
        let name = name.into();
        Self { name, kind }
    }
}

/// The kind of a directory entry; symbolic links are not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link or a special file.
    Other,
}

impl From<std::fs::FileType> for EntryKind {
    fn from(file_type: std::fs::FileType) -> Self {
        if file_type.is_file() {
            Self::File
        } else if file_type.is_dir() {
            Self::Dir
        } else {
            Self::Other
        }
    }
}

/// The outcome of an attempt to lock.
pub enum LockAttempt {
    /// The lock is held until this value is dropped.
    Held(Box<dyn HeldLock>),
    /// Another process holds the lock.
    #[non_exhaustive]
    Busy {
        /// What the holder wrote into the lock file; empty if it can't be read.
        owner: String,
    },
}

impl LockAttempt {
    /// Another process holds the lock, and wrote `owner` into the file.
    pub fn busy(owner: impl Into<String>) -> Self {
        let owner = owner.into();
        Self::Busy { owner }
    }
}
