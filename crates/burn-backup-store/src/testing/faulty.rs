use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::fs::{
    Entry, EntryKind, Filesystem, HeldLock, LockAttempt, ReadFile, RealFilesystem, WriteFile,
};

/// The calls of [`Filesystem`] and of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is named after its call")]
pub enum Operation {
    Kind,
    List,
    CreateDir,
    CreateFile,
    ReuseFile,
    Write,
    Truncate,
    SyncFile,
    OpenFile,
    Read,
    Rename,
    Link,
    RemoveFile,
    RemoveDir,
    SyncDir,
    Lock,
    /// The check whether a lock is still the one at its path.
    CheckLock,
}

/// How a call fails.
#[derive(Debug)]
pub enum Fault {
    /// The call fails with an error and does nothing.
    Error(io::Error),
    /// A write takes only the first half of its bytes, and returns that number. Other calls succeed.
    ShortWrite,
    /// A sync does nothing and reports success, as a lying disk does. Other calls succeed.
    Lie,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Error(error)
    }
}

impl From<io::ErrorKind> for Fault {
    fn from(kind: io::ErrorKind) -> Self {
        Self::Error(kind.into())
    }
}

/// How a disk fails at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The call fails with an error of the device (`EIO`).
    Device,
    /// The call fails because there is no space (`ENOSPC`).
    Full,
    /// The write is cut short; the following writes succeed.
    ShortWrite,
    /// The write is cut short, and the next one fails because there is no space.
    ShortWriteThenFull,
    /// The call and all later calls fail with an error of the device.
    Dead,
}

impl Failure {
    /// All failures.
    pub const ALL: [Self; 5] = [
        Self::Device,
        Self::Full,
        Self::ShortWrite,
        Self::ShortWriteThenFull,
        Self::Dead,
    ];

    /// A rule for [`FaultyFilesystem`]: this failure happens at the call number `at`. A short write happens at the
    /// first write from that call on.
    pub fn at(self, at: usize) -> impl Fn(usize, Operation) -> Result<(), Fault> + Send + Sync {
        let device = || Err(Fault::Error(io::Error::other("the device fails")));
        let cut_short = AtomicUsize::new(0);
        move |call, operation| match self {
            Self::Device if call == at => device(),
            Self::Full if call == at => Err(io::ErrorKind::StorageFull.into()),
            Self::Dead if call >= at => device(),
            Self::ShortWrite | Self::ShortWriteThenFull
                if call >= at && operation == Operation::Write =>
            {
                match (cut_short.fetch_add(1, Ordering::Relaxed), self) {
                    (0, _) => Err(Fault::ShortWrite),
                    (1, Self::ShortWriteThenFull) => Err(io::ErrorKind::StorageFull.into()),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

type Rule = dyn Fn(Operation, &Path) -> Result<(), Fault> + Send + Sync;

/// A filesystem that asks a rule before each call whether the call must fail. For a rename or a link, the rule is given
/// the new name.
#[derive(Clone)]
pub struct FaultyFilesystem {
    inner: Arc<dyn Filesystem>,
    rule: Arc<Rule>,
}

/// The rest of a call that the rule has not failed.
enum Portion {
    Whole,
    Half,
    Nothing,
}

impl FaultyFilesystem {
    /// The operating system's filesystem, with `rule` asked before each call.
    pub fn new(
        rule: impl Fn(Operation, &Path) -> Result<(), Fault> + Send + Sync + 'static,
    ) -> Self {
        Self::over(RealFilesystem, rule)
    }

    /// The filesystem `inner`, with `rule` asked before each call.
    pub fn over(
        inner: impl Filesystem,
        rule: impl Fn(Operation, &Path) -> Result<(), Fault> + Send + Sync + 'static,
    ) -> Self {
        Self {
            inner: Arc::new(inner),
            rule: Arc::new(rule),
        }
    }

    fn left_to_do(&self, operation: Operation, path: &Path) -> io::Result<Portion> {
        let is_sync = matches!(operation, Operation::SyncFile | Operation::SyncDir);
        match (self.rule)(operation, path) {
            Err(Fault::Error(error)) => Err(error),
            Err(Fault::ShortWrite) if operation == Operation::Write => Ok(Portion::Half),
            Err(Fault::Lie) if is_sync => Ok(Portion::Nothing),
            _ => Ok(Portion::Whole),
        }
    }

    fn ask(&self, operation: Operation, path: &Path) -> io::Result<&dyn Filesystem> {
        self.left_to_do(operation, path)
            .map(|_| self.inner.as_ref())
    }

    fn file<F>(&self, file: F, path: &Path) -> FaultyFile<F> {
        FaultyFile {
            file,
            path: path.to_path_buf(),
            filesystem: self.clone(),
        }
    }
}

impl Filesystem for FaultyFilesystem {
    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        self.inner.absolute(path)
    }

    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        self.ask(Operation::Kind, path)?.kind(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.ask(Operation::List, dir)?.list(dir)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.ask(Operation::CreateDir, path)?.create_dir(path)
    }

    fn create_file(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let file = self.ask(Operation::CreateFile, path)?.create_file(path)?;
        Ok(Box::new(self.file(file, path)))
    }

    fn reuses_files(&self) -> bool {
        self.inner.reuses_files()
    }

    fn reuse_file(&self, path: &Path) -> io::Result<Option<Box<dyn WriteFile>>> {
        let file = self.ask(Operation::ReuseFile, path)?.reuse_file(path)?;
        Ok(file.map(|file| Box::new(self.file(file, path)) as Box<dyn WriteFile>))
    }

    fn open_file(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        let file = self.ask(Operation::OpenFile, path)?.open_file(path)?;
        Ok(Box::new(self.file(file, path)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.ask(Operation::Rename, to)?.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.ask(Operation::Link, to)?.link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.ask(Operation::RemoveFile, path)?.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.ask(Operation::RemoveDir, path)?.remove_dir(path)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        match self.left_to_do(Operation::SyncFile, path)? {
            Portion::Nothing => Ok(()),
            Portion::Whole | Portion::Half => self.inner.sync_file(path),
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        match self.left_to_do(Operation::SyncDir, path)? {
            Portion::Nothing => Ok(()),
            Portion::Whole | Portion::Half => self.inner.sync_dir(path),
        }
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<LockAttempt> {
        let attempt = self.ask(Operation::Lock, path)?.lock(path, owner)?;
        Ok(match attempt {
            LockAttempt::Held(lock) => LockAttempt::Held(Box::new(FaultyLock {
                lock,
                filesystem: self.clone(),
            })),
            busy => busy,
        })
    }
}

struct FaultyLock {
    lock: Box<dyn HeldLock>,
    filesystem: FaultyFilesystem,
}

impl HeldLock for FaultyLock {
    fn is_at(&self, path: &Path) -> io::Result<bool> {
        self.filesystem.ask(Operation::CheckLock, path)?;
        self.lock.is_at(path)
    }
}

struct FaultyFile<F> {
    file: F,
    path: PathBuf,
    filesystem: FaultyFilesystem,
}

impl WriteFile for FaultyFile<Box<dyn WriteFile>> {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        match self.filesystem.left_to_do(Operation::Write, &self.path)? {
            Portion::Half => {
                let (half, _) = bytes.split_at(bytes.len().div_ceil(2));
                self.file.write_at(half, offset)
            }
            Portion::Whole | Portion::Nothing => self.file.write_at(bytes, offset),
        }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.filesystem.ask(Operation::Truncate, &self.path)?;
        self.file.truncate(len)
    }

    fn sync(&self) -> io::Result<()> {
        match self
            .filesystem
            .left_to_do(Operation::SyncFile, &self.path)?
        {
            Portion::Nothing => Ok(()),
            Portion::Whole | Portion::Half => self.file.sync(),
        }
    }
}

impl ReadFile for FaultyFile<Box<dyn ReadFile>> {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.filesystem.ask(Operation::Read, &self.path)?;
        self.file.read_at(buffer, offset)
    }
}
