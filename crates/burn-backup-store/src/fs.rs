//! The narrow door through which every filesystem call of this crate goes.

mod real;

use std::io;
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
/// - [`reuse_file`] gives a file only if nobody can notice that its contents change: it has no other
///   name, and nobody else has it open.
/// - [`lock`] is released when the returned value is dropped or the process ends, however it ends.
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

    /// Whether [`reuse_file`](Self::reuse_file) ever gives a file.
    fn reuses_files(&self) -> bool {
        false
    }

    /// Opens a regular file to write it anew, in the memory and the blocks that it has. Its contents stay until
    /// they are written over, and its length until it is truncated. `None` if others may see the file, or if
    /// that can't be told: the caller removes it then, and creates another one.
    fn reuse_file(&self, path: &Path) -> io::Result<Option<Box<dyn WriteFile>>> {
        let _ = path;
        Ok(None)
    }

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

    /// Whether a process holds the lock on `path`, found out without taking it; `None` where that can't be told.
    fn is_locked(&self, path: &Path) -> io::Result<Option<bool>> {
        let _ = path;
        Ok(None)
    }
}

/// A lock that is held until this value is dropped.
pub trait HeldLock: Send + Sync {
    /// Whether the file that was locked is the one at `path`. If it is not at the path that was locked,
    /// another process can lock that.
    fn is_at(&self, path: &Path) -> io::Result<bool>;
}

/// A file being written. Its calls come from several threads at once, and no two of them write the same
/// bytes.
pub trait WriteFile: Send + Sync {
    /// Writes some of `bytes`, from the byte `offset` of the file on, and says how many.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Cuts off what the file has beyond `len` bytes, if it has more.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Makes everything durable that was written before the call.
    fn sync(&self) -> io::Result<()>;

    /// Writes all of `bytes`, from the byte `offset` of the file on.
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

    /// Reads some bytes, from the byte `offset` of the file on, and says how many; none at its end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Whether the file holds no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills the buffer from the byte `offset` of the file on, as far as the file has bytes, and says how
    /// many these are.
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
