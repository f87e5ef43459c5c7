//! A crash on demand.

use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use burn_backup_restore::BackupHandle;

/// A batch of an epoch; both count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchAt {
    /// The epoch.
    pub epoch: usize,
    /// The batch in it.
    pub batch: usize,
}

impl FromStr for BatchAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().ok().filter(|number| *number > 0);
        text.split_once(':')
            .and_then(|(epoch, batch)| {
                Some(Self {
                    epoch: number(epoch)?,
                    batch: number(batch)?,
                })
            })
            .ok_or_else(|| "give EPOCH:BATCH, both counted from 1, such as 3:20".to_owned())
    }
}

/// Counts the training's batches, and aborts the process in one of them.
#[derive(Debug)]
pub struct CrashPoint {
    /// The batch to crash in, counted from 1 since the very first start.
    fatal: u64,
    begun_here: AtomicU64,
    handle: BackupHandle,
}

impl CrashPoint {
    /// The crash in a training with `batches_per_epoch` batches, whose backups `handle` knows.
    pub fn new(at: BatchAt, batches_per_epoch: usize, handle: BackupHandle) -> Self {
        Self {
            fatal: ((at.epoch - 1) * batches_per_epoch + at.batch) as u64,
            begun_here: AtomicU64::new(0),
            handle,
        }
    }

    /// Must be called in each training step.
    pub fn pass(&self) {
        let trained_before = self.handle.restored_from().map_or(0, |at| at.global_step);
        let begun_here = self.begun_here.fetch_add(1, Ordering::Relaxed) + 1;
        if trained_before + begun_here == self.fatal {
            std::process::abort();
        }
    }
}
