//! A filesystem that fails where it is told to.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::fs::{Entry, EntryKind, Filesystem, LockAttempt, ReadFile, RealFilesystem, WriteFile};

/// The calls of [`Filesystem`] and of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the call of its name")]
pub enum Operation {
    Kind,
    List,
    CreateDir,
    CreateFile,
    Write,
    SyncFile,
    OpenFile,
    Read,
    Rename,
    RemoveFile,
    RemoveDir,
    SyncDir,
    Lock,
}

type Rule = dyn Fn(Operation, &Path) -> io::Result<()> + Send + Sync;

/// The operating system's filesystem, behind a rule that is asked before each call: where the rule
/// gives an error, the call fails with it and does nothing. For a rename, the rule is asked about
/// the new name.
#[derive(Clone)]
pub struct FaultyFilesystem {
    rule: Arc<Rule>,
}

impl FaultyFilesystem {
    /// Asks `rule` before each call.
    pub fn new(rule: impl Fn(Operation, &Path) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self {
            rule: Arc::new(rule),
        }
    }

    fn ask(&self, operation: Operation, path: &Path) -> io::Result<RealFilesystem> {
        (self.rule)(operation, path).map(|()| RealFilesystem)
    }
}

impl Filesystem for FaultyFilesystem {
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
        Ok(Box::new(FaultyFile {
            file,
            path: path.to_path_buf(),
            filesystem: self.clone(),
        }))
    }

    fn open_file(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        let file = self.ask(Operation::OpenFile, path)?.open_file(path)?;
        Ok(Box::new(FaultyFile {
            file,
            path: path.to_path_buf(),
            filesystem: self.clone(),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.ask(Operation::Rename, to)?.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.ask(Operation::RemoveFile, path)?.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.ask(Operation::RemoveDir, path)?.remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.ask(Operation::SyncDir, path)?.sync_dir(path)
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<LockAttempt> {
        self.ask(Operation::Lock, path)?.lock(path, owner)
    }
}

struct FaultyFile<F> {
    file: F,
    path: PathBuf,
    filesystem: FaultyFilesystem,
}

impl Write for FaultyFile<Box<dyn WriteFile>> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.filesystem.ask(Operation::Write, &self.path)?;
        self.file.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl WriteFile for FaultyFile<Box<dyn WriteFile>> {
    fn sync(&mut self) -> io::Result<()> {
        self.filesystem.ask(Operation::SyncFile, &self.path)?;
        self.file.sync()
    }
}

impl Read for FaultyFile<Box<dyn ReadFile>> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.filesystem.ask(Operation::Read, &self.path)?;
        self.file.read(buffer)
    }
}

impl ReadFile for FaultyFile<Box<dyn ReadFile>> {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}
