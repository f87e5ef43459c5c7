//! The heartbeat of a training: a file that its process writes.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tempfile::TempDir;

/// The position of a training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Position {
    pub epoch: u64,
    pub step_in_epoch: u64,
    pub global_step: u64,
}

impl Position {
    /// A key that grows with the training.
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

/// The contents of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Beat {
    /// The number of batches that the process has reached.
    pub count: u64,
    pub position: Option<Position>,
    /// The position at which the process resumed the training.
    pub restored: Option<Position>,
    /// Its newest backup.
    pub committed: Option<Position>,
}

/// The heartbeat file, in a temporary directory.
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

    /// Removes the heartbeat of the previous process.
    pub fn clear(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Reads the heartbeat. `None` if the process has not written one, or is just writing it.
    pub fn read(&self) -> Option<Beat> {
        serde_json::from_slice(&fs::read(&self.path).ok()?).ok()
    }
}
