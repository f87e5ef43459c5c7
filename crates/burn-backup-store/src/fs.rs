//! The narrow door through which every filesystem call of this crate goes.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::path::Path;

/// The filesystem calls that a [`Store`](crate::Store) makes.
///
/// # Contract
///
/// - No call follows a symbolic link in the last component of its path, except [`list`] and
///   [`lock`] on the backup directory itself, which the user may have linked elsewhere.
/// - [`create_file`] fails with [`io::ErrorKind::AlreadyExists`] rather than open what is there.
/// - [`rename`] is atomic for every observer that survives: the old name or the new one. The store
///   never asks for a rename onto an existing name.
/// - What was written to a file is durable only after [`WriteFile::sync`], and a name that was
///   created, linked, renamed or removed only after [`sync_dir`] of its directory (of both, for a rename
///   across directories).
/// - After [`WriteFile::sync`] failed, the file's contents are undefined. The store throws it away.
/// - [`lock`] is released when the returned value is dropped or the process ends, however it ends.
///
/// [`list`]: Self::list
/// [`lock`]: Self::lock
/// [`create_file`]: Self::create_file
/// [`rename`]: Self::rename
/// [`sync_dir`]: Self::sync_dir
pub trait Filesystem: Send + Sync + 'static {
    /// What is at `path`, or `None` if nothing is.
    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>>;

    /// The entries of a directory, in no particular order.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;

    /// Creates one directory whose parent exists.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Creates a file that does not exist yet, for writing.
    fn create_file(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// Opens a regular file for reading.
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

    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Syncs files, and closes them, and directories, in any order or at once. If any sync fails,
    /// gives one that did: its place among them, files first, and the error.
    ///
    /// One after the other unless implemented otherwise. A disk takes many syncs at once in little
    /// more time than one.
    fn sync_together(
        &self,
        files: Vec<Box<dyn WriteFile>>,
        dirs: &[&Path],
    ) -> Result<(), (usize, io::Error)> {
        let files_len = files.len();
        for (at, mut file) in files.into_iter().enumerate() {
            file.sync().map_err(|error| (at, error))?;
        }
        for (at, dir) in dirs.iter().enumerate() {
            self.sync_dir(dir)
                .map_err(|error| (files_len + at, error))?;
        }
        Ok(())
    }

    /// Takes the exclusive lock on `path`, a file that is created when missing, and writes `owner`
    /// into it if there is room for it; does not wait.
    fn lock(&self, path: &Path, owner: &str) -> io::Result<LockAttempt>;
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
pub struct Entry {
    /// The entry's name. Names that are not Unicode are shown with replacement characters: the
    /// store only ever acts on names that it wrote itself, which are ASCII.
    pub name: String,
    /// What the entry is.
    pub kind: EntryKind,
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
    Held(Box<dyn Send + Sync>),
    /// Somebody else holds it: what they wrote into the file.
    Busy {
        /// What the holder wrote into the lock file; empty if it can't be read.
        owner: String,
    },
}

/// The operating system's filesystem.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealFilesystem;

impl Filesystem for RealFilesystem {
    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        match std::fs::symlink_metadata(path) {
            Ok(metadata) => Ok(Some(metadata.file_type().into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        std::fs::read_dir(dir)?
            .map(|entry| {
                let entry = entry?;
                Ok(Entry {
                    name: entry.file_name().to_string_lossy().into_owned(),
                    kind: entry.file_type()?.into(),
                })
            })
            .collect()
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir(path)
    }

    fn create_file(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(File::create_new(path)?))
    }

    fn open_file(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        check_is_file(self.kind(path)?)?;
        Ok(Box::new(File::open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        check_is_file(self.kind(from)?)?;
        std::fs::hard_link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if cfg!(unix) {
            File::open(path)?.sync_all()
        } else {
            Ok(())
        }
    }

    fn sync_together(
        &self,
        files: Vec<Box<dyn WriteFile>>,
        dirs: &[&Path],
    ) -> Result<(), (usize, io::Error)> {
        type Sync<'s> = Box<dyn FnOnce() -> io::Result<()> + Send + 's>;

        let files = files
            .into_iter()
            .map(|mut file| Box::new(move || file.sync()) as Sync<'_>);
        let dirs = dirs
            .iter()
            .map(|dir| Box::new(|| self.sync_dir(dir)) as Sync<'_>);
        let mut syncs: Vec<_> = files.chain(dirs).collect();
        let Some(last) = syncs.pop() else {
            return Ok(());
        };
        std::thread::scope(|scope| {
            let start = |sync| {
                let thread = std::thread::Builder::new().name("backup-sync".to_owned());
                thread.spawn_scoped(scope, sync)
            };
            let others: Vec<_> = syncs.into_iter().map(start).collect();
            let last = last();
            let panicked = |_| Err(io::Error::other("the sync panicked"));
            let others = others
                .into_iter()
                .map(|thread| thread?.join().unwrap_or_else(panicked));
            for (at, outcome) in others.chain([last]).enumerate() {
                outcome.map_err(|error| (at, error))?;
            }
            Ok(())
        })
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<LockAttempt> {
        loop {
            let mut file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut owner = String::new();
                    // Some systems refuse to read a locked file; the lock is busy all the same.
                    let _ = file.read_to_string(&mut owner);
                    return Ok(LockAttempt::Busy { owner });
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // The last holder may have removed the file between our open and our lock: then we
            // locked a file that no later process can find.
            if is_still_at(&file, path)? {
                // On a full disk there is no room for the owner. The lock is held all the same.
                let _ = file
                    .set_len(0)
                    .and_then(|()| file.write_all(owner.as_bytes()));
                return Ok(LockAttempt::Held(Box::new(Locked(file))));
            }
        }
    }
}

fn check_is_file(kind: Option<EntryKind>) -> io::Result<()> {
    match kind {
        Some(EntryKind::File) => Ok(()),
        Some(EntryKind::Dir | EntryKind::Other) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        )),
        None => Err(io::ErrorKind::NotFound.into()),
    }
}

/// A locked file. Closing it would not do to unlock it: a child process that was forked meanwhile
/// has it open too, until it executes another program.
struct Locked(File);

impl Drop for Locked {
    fn drop(&mut self) {
        // If this fails, the lock goes when the file is closed everywhere.
        let _ = self.0.unlock();
    }
}

impl WriteFile for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

impl ReadFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

#[cfg(unix)]
fn is_still_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;

    let ours = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(theirs) => Ok((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(not(unix))]
fn is_still_at(_file: &File, _path: &Path) -> io::Result<bool> {
    // Elsewhere an open file can't be removed from under us.
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_released_even_if_a_forked_child_has_the_file_open() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("lock");
        let file = File::create(&path).unwrap();
        file.lock().unwrap();
        // What a child has after the fork: the same open file.
        let childs = file.try_clone().unwrap();
        drop(Locked(file));
        let again = RealFilesystem.lock(&path, "the next").unwrap();
        assert!(matches!(again, LockAttempt::Held(_)));
        drop(childs);
    }
}
