//! A crash on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use burn_backup_restore::BackupHandle;

/// Counts the steps of the training, and aborts the process in one of them.
#[derive(Debug, Clone)]
pub struct CrashPoint {
    /// The step to crash in, counted from 1 since the very first start.
    fatal: u64,
    begun_here: Arc<AtomicU64>,
    handle: BackupHandle,
}

impl CrashPoint {
    pub fn new(fatal: u64, handle: BackupHandle) -> Self {
        Self {
            fatal,
            begun_here: Arc::default(),
            handle,
        }
    }

    /// Must be called in each step.
    pub fn pass(&self) {
        let made_before = self.handle.restored_from().map_or(0, |at| at.global_step);
        let begun_here = self.begun_here.fetch_add(1, Ordering::Relaxed) + 1;
        if made_before + begun_here == self.fatal {
            std::process::abort();
        }
    }
}
