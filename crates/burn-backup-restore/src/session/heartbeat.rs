//! A heartbeat for the process that started this program. That process names a file, which is rewritten repeatedly.
//!
//! The training thread only increments a counter. Another thread reads the counter four times a second and writes the
//! file.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::LOG;
use crate::handle::BackupHandle;

/// The environment variable that names the file.
const FILE: &str = "BURN_BACKUP_HEARTBEAT";

const INTERVAL: Duration = Duration::from_millis(250);

/// Writes heartbeats until it is dropped.
pub(crate) struct Heartbeat {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Heartbeat {
    /// Starts the heartbeat if the environment requests it. Errors are only logged, because the training does not
    /// depend on it.
    pub(crate) fn start(handle: &BackupHandle) -> Option<Self> {
        let path = PathBuf::from(std::env::var_os(FILE)?);
        match Self::write_to(&path, handle.clone()) {
            Ok(heartbeat) => Some(heartbeat),
            Err(error) => {
                log::warn!(
                    target: LOG,
                    "no heartbeat: the file '{}' given by {FILE} can't be written: {error}", path.display(),
                );
                None
            }
        }
    }

    fn write_to(path: &Path, handle: BackupHandle) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let (end, ended) = channel();
        let thread = thread::Builder::new().name("heartbeat".to_owned());
        let thread = thread.spawn(move || beat(&file, &handle, &ended))?;
        Ok(Self {
            end: Some(end),
            thread: Some(thread),
        })
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // The panic hook has already reported a panic of that thread.
            drop(thread.join());
        }
    }
}

fn beat(file: &File, handle: &BackupHandle, ended: &Receiver<()>) {
    let mut written = None;
    let mut has_failed = false;
    loop {
        let is_last = !matches!(ended.recv_timeout(INTERVAL), Err(RecvTimeoutError::Timeout));
        let beat = handle.beat();
        if written.as_ref() != Some(&beat) {
            match beat.write(file) {
                Ok(()) => written = Some(beat),
                Err(error) if !std::mem::replace(&mut has_failed, true) => {
                    log::warn!(target: LOG, "the heartbeat can't be written: {error}");
                }
                Err(_) => {}
            }
        }
        if is_last {
            return;
        }
    }
}
