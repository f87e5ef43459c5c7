//! The heartbeat of a training: what its process says of it, in a file.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tempfile::TempDir;

/// Where a training is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Position {
    pub epoch: u64,
    pub step_in_epoch: u64,
    pub global_step: u64,
}

impl Position {
    /// What is later has a greater one.
    pub fn order(self) -> (u64, u64, u64) {
        (self.global_step, self.epoch, self.step_in_epoch)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "epoch {}, batch {} (batch {} of the training)",
            self.epoch, self.step_in_epoch, self.global_step
        )
    }
}

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Beat {
    /// How many batches the process has got to.
    pub count: u64,
    pub position: Option<Position>,
    /// Where the process resumed the training.
    pub restored: Option<Position>,
    /// Its newest backup.
    pub committed: Option<Position>,
}

/// The file, in a directory that is removed at the end.
pub struct BeatFile {
    path: PathBuf,
    _dir: TempDir,
}

impl BeatFile {
    pub fn create() -> io::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("burn-backup-run-")
            .tempdir()?;
        Ok(Self {
            path: dir.path().join("heartbeat"),
            _dir: dir,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Forgets what the process before has said.
    pub fn clear(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// What the process says; `None` if it has not said anything, or is just saying it.
    pub fn read(&self) -> Option<Beat> {
        serde_json::from_slice(&fs::read(&self.path).ok()?).ok()
    }
}
