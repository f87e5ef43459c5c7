mod alone;

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::Path;

use super::{Entry, EntryKind, Filesystem, HeldLock, LockAttempt, ReadFile, WriteFile};

/// An owner's line is short; longer contents are not read to the end.
const MAX_OWNER_BYTES: u64 = 4096;

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
        private_dir().create(path)
    }

    fn create_file(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let file = unlinked(OpenOptions::new().write(true).create_new(true)).open(path)?;
        Ok(Box::new(file))
    }

    fn reuses_files(&self) -> bool {
        cfg!(target_os = "linux")
    }

    fn reuse_file(&self, path: &Path) -> io::Result<Option<Box<dyn WriteFile>>> {
        let file = open_regular(self, path, OpenOptions::new().write(true))?;
        Ok(match has_one_name(&file) && alone::has_open_alone(&file) {
            true => Some(Box::new(file)),
            false => None,
        })
    }

    fn open_file(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(open_regular(
            self,
            path,
            OpenOptions::new().read(true),
        )?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        check_is_file(self.kind(from)?)?;
        std::fs::hard_link(from, to)?;
        // Another process may have replaced `from` since the check. No process replaces `to`, so its kind is certain.
        let linked = check_is_file(self.kind(to)?);
        if linked.is_err() {
            std::fs::remove_file(to)?;
        }
        linked
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir(path)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        // Windows syncs only files that are open for writing.
        let mut options = OpenOptions::new();
        options.read(true).write(!cfg!(unix));
        open_regular(self, path, &mut options)?.sync_all()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if cfg!(unix) {
            directory().open(path)?.sync_all()
        } else {
            Ok(())
        }
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<LockAttempt> {
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            let mut file = unlinked(&mut options).open(path).map_err(not_followed)?;
            check_is_file(Some(file.metadata()?.file_type().into()))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut owner = Vec::new();
                    // Some systems refuse to read a locked file. The lock is busy in any case.
                    let _ = file.take(MAX_OWNER_BYTES).read_to_end(&mut owner);
                    let owner = String::from_utf8_lossy(&owner).into_owned();
                    return Ok(LockAttempt::Busy { owner });
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // The last holder may have removed the file between the open and the lock. Then the locked file is one that
            // no later process can find.
            if is_still_at(&file, path)? {
                name_owner(&mut file, owner);
                return Ok(LockAttempt::Held(Box::new(Locked(file))));
            }
        }
    }

    #[cfg(target_os = "linux")]
    fn is_locked(&self, path: &Path) -> io::Result<Option<bool>> {
        use std::os::unix::fs::MetadataExt as _;

        let file = std::fs::symlink_metadata(path)?;
        let device = file.dev();
        let name = format!(
            "{:02x}:{:02x}:{}",
            libc::major(device),
            libc::minor(device),
            file.ino()
        );
        // Without /proc, or with some of it hidden, the answer is unknown.
        let locks = std::fs::read_to_string("/proc/locks").ok();
        Ok(locks.map(|locks| locks.lines().any(|lock| is_lock_on(lock, &name))))
    }
}

/// Whether a line of `/proc/locks` says that a lock is held on the file with this name. The line of a waiting process
/// has an arrow in it.
#[cfg(target_os = "linux")]
fn is_lock_on(line: &str, name: &str) -> bool {
    let mut fields = line.split_ascii_whitespace();
    fields.nth(1) == Some("FLOCK") && fields.nth(3) == Some(name)
}

/// A full disk has no room for the owner. The lock is held in any case.
fn name_owner(file: &mut File, owner: &str) {
    if has_one_name(file) {
        let _ = file
            .set_len(0)
            .and_then(|()| file.write_all(owner.as_bytes()));
    }
}

/// Opens a regular file. Fails if something other than a file replaces it between the check and the open.
fn open_regular(fs: &RealFilesystem, path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    check_is_file(fs.kind(path)?)?;
    let file = unlinked(options).open(path).map_err(not_followed)?;
    check_is_file(Some(file.metadata()?.file_type().into()))?;
    Ok(file)
}

fn check_is_file(kind: Option<EntryKind>) -> io::Result<()> {
    match kind {
        Some(EntryKind::File) => Ok(()),
        Some(EntryKind::Dir | EntryKind::Other) => Err(not_a_file()),
        None => Err(io::ErrorKind::NotFound.into()),
    }
}

fn not_a_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}

/// A locked file. Closing it does not always unlock it: a forked child process has the file open too, until it executes
/// another program.
struct Locked(File);

impl HeldLock for Locked {
    fn is_at(&self, path: &Path) -> io::Result<bool> {
        is_still_at(&self.0, path)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // If this fails, the lock is released when every process has closed the file.
        let _ = self.0.unlock();
    }
}

impl WriteFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::write_at(self, bytes, offset);
        #[cfg(windows)]
        return std::os::windows::fs::FileExt::seek_write(self, bytes, offset);
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        match self.metadata()?.len() > len {
            true => self.set_len(len),
            false => Ok(()),
        }
    }

    /// Syncs the data and the metadata needed to find it again, including the length.
    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

impl ReadFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::read_at(self, buffer, offset);
        #[cfg(windows)]
        return std::os::windows::fs::FileExt::seek_read(self, buffer, offset);
    }
}

#[cfg(unix)]
fn private_dir() -> DirBuilder {
    use std::os::unix::fs::DirBuilderExt as _;

    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
}

#[cfg(not(unix))]
fn private_dir() -> DirBuilder {
    DirBuilder::new()
}

/// Follows no link, does not wait for another process to open the other end of a pipe, and creates files that other
/// users can't read.
#[cfg(unix)]
fn unlinked(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt as _;

    options
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
}

#[cfg(not(unix))]
fn unlinked(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

#[cfg(unix)]
fn directory() -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt as _;

    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_DIRECTORY);
    options
}

#[cfg(not(unix))]
fn directory() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true);
    options
}

/// Translates the error of an open that met a link or a socket.
#[cfg(unix)]
fn not_followed(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ELOOP | libc::ENXIO | libc::EISDIR) => not_a_file(),
        _ => error,
    }
}

#[cfg(not(unix))]
fn not_followed(error: io::Error) -> io::Error {
    error
}

/// A file with a second name may be a file of the user's, whose contents must not be lost.
#[cfg(unix)]
fn has_one_name(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt as _;

    file.metadata().is_ok_and(|metadata| metadata.nlink() == 1)
}

#[cfg(not(unix))]
fn has_one_name(_file: &File) -> bool {
    true
}

#[cfg(unix)]
fn is_still_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;

    let ours = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(theirs) => Ok((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())),
        Err(error) if is_nothing_there(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(unix)]
fn is_nothing_there(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

#[cfg(not(unix))]
fn is_still_at(_file: &File, _path: &Path) -> io::Result<bool> {
    // Windows does not let a directory be renamed while a file in it is open. A removed lock file is not noticed.
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_lock_is_seen_without_taking_it() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("lock");
        let held = RealFilesystem.lock(&path, "somebody").unwrap();
        assert_eq!(RealFilesystem.is_locked(&path).unwrap(), Some(true));
        drop(held);
        assert_eq!(RealFilesystem.is_locked(&path).unwrap(), Some(false));
        let waits = "3: -> FLOCK  ADVISORY  WRITE 7 fe:01:42 0 EOF";
        let holds = "3: FLOCK  ADVISORY  WRITE 7 fe:01:42 0 EOF";
        let record = "3: POSIX  ADVISORY  WRITE 7 fe:01:42 0 EOF";
        let of = |line| is_lock_on(line, "fe:01:42");
        assert_eq!([waits, holds, record].map(of), [false, true, false]);
        assert!(!is_lock_on(holds, "fe:01:4"));
    }

    #[test]
    fn the_lock_is_released_even_if_a_forked_child_has_the_file_open() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("lock");
        let file = File::create(&path).unwrap();
        file.lock().unwrap();
        // A forked child has the same open file.
        let inherited = file.try_clone().unwrap();
        drop(Locked(file));
        let again = RealFilesystem.lock(&path, "the next").unwrap();
        assert!(matches!(again, LockAttempt::Held(_)));
        drop(inherited);
    }
}
