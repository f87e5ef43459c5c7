//! A crash on demand.

use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use burn_backup_restore::BackupHandle;

use crate::data;

/// The batch to crash in; both count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchAt {
    epoch: usize,
    batch: usize,
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
    /// The batch to crash in, counted from 1 since the very first start. One batch on each device counts as
    /// one.
    fatal: u64,
    /// All devices have a batch each time, so that this many steps make one.
    devices: u64,
    steps_here: AtomicU64,
    handle: BackupHandle,
}

impl CrashPoint {
    pub fn new(at: BatchAt, devices: usize, handle: BackupHandle) -> Self {
        Self {
            fatal: ((at.epoch - 1) * data::train_batches(devices) + at.batch) as u64,
            devices: devices as u64,
            steps_here: AtomicU64::new(0),
            handle,
        }
    }

    /// Must be called in each training step, on any device. The first step of the batch crashes.
    pub fn pass(&self) {
        let trained_before = self.handle.restored_from().map_or(0, |at| at.global_step);
        let steps_before = self.steps_here.fetch_add(1, Ordering::Relaxed);
        let batch = trained_before + steps_before / self.devices + 1;
        if batch == self.fatal {
            std::process::abort();
        }
    }
}
