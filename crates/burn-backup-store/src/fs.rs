//! The narrow door through which every filesystem call of this crate goes.

mod real;

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

pub use real::RealFilesystem;

/// The filesystem calls that a [`Store`](crate::Store) makes.
///
/// # Contract
///
/// - No call follows a symbolic link in the last component of its path, except [`list`] and
///   [`sync_dir`] on the backup directory itself, which the user may have linked elsewhere. This
///   holds even if somebody puts the link there while the call runs.
/// - [`create_file`] fails with [`io::ErrorKind::AlreadyExists`] rather than open what is there.
/// - What [`create_file`], [`create_dir`] and [`lock`] create is private to the user, where the
///   system has permissions.
/// - [`rename`] is atomic for every observer that survives: the old name or the new one. The store
///   never asks for a rename onto an existing name.
/// - What was written to a file is durable only after [`WriteFile::sync`] or [`sync_file`], and a name
///   that was created, linked, renamed or removed only after [`sync_dir`] of its directory (of both,
///   for a rename across directories).
/// - After [`WriteFile::sync`] failed, the file's contents are undefined. The store throws it away.
/// - [`lock`] is released when the returned value is dropped or the process ends, however it ends.
/// - Calls come from several threads at once.
///
/// [`list`]: Self::list
/// [`lock`]: Self::lock
/// [`create_dir`]: Self::create_dir
/// [`create_file`]: Self::create_file
/// [`rename`]: Self::rename
/// [`sync_dir`]: Self::sync_dir
/// [`sync_file`]: Self::sync_file
pub trait Filesystem: Send + Sync + 'static {
    /// The same path, independent of the process's current directory. Nothing is looked at on the
    /// disk.
    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        std::path::absolute(path)
    }

    /// What is at `path`, or `None` if nothing is.
    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>>;

    /// The entries of a directory, in no particular order.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;

    /// Creates one directory whose parent exists.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Creates a file that does not exist yet, for writing.
    fn create_file(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// Opens a regular file for reading. Fails with [`io::ErrorKind::InvalidInput`] if something else
    /// is there.
    fn open_file(&self, path: &Path) -> io::Result<Box<dyn ReadFile>>;

    /// Gives what is at `from` the name `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives the regular file `from` a second name, `to`. Fails where the file system has no hard
    /// links, if `from` is anything else, and if there is something at `to`.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file or a symbolic link. Other names of the file stay.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes the contents of a regular file durable, whoever wrote them.
    fn sync_file(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Takes the exclusive lock on `path`, a file that is created when missing, and writes `owner`
    /// into it if there is room for it; does not wait. Fails with [`io::ErrorKind::InvalidInput`] if
    /// something other than a regular file is there.
    fn lock(&self, path: &Path, owner: &str) -> io::Result<LockAttempt>;
}

/// A lock that is held until this value is dropped.
pub trait HeldLock: Send + Sync {
    /// Whether the file that was locked is the one at `path`. If it is not at the path that was locked,
    /// another process can lock that.
    fn is_at(&self, path: &Path) -> io::Result<bool>;
}

/// A file being written.
pub trait WriteFile: Write + Send {
    /// Makes everything written so far durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// A file being read.
pub trait ReadFile: Read + Send {
    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file holds no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The entry's name. Names that are not Unicode are shown with replacement characters: the
    /// store only ever acts on names that it wrote itself, which are ASCII.
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

/// What a directory entry is; symbolic links are not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link or something special.
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

/// What came of an attempt to lock.
pub enum LockAttempt {
    /// The lock is held until this value is dropped.
    Held(Box<dyn HeldLock>),
    /// Somebody else holds it: what they wrote into the file.
    #[non_exhaustive]
    Busy {
        /// What the holder wrote into the lock file; empty if it can't be read.
        owner: String,
    },
}

impl LockAttempt {
    /// Somebody else holds the lock, and wrote `owner` into the file.
    pub fn busy(owner: impl Into<String>) -> Self {
        let owner = owner.into();
        Self::Busy { owner }
    }
}
