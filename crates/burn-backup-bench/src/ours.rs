//! Our backups, one at a time: the training continues only after the previous backup is committed.

use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use burn::train::Learner;
use burn_backup_restore::{BackupAndRestore, BackupExt as _, BackupHandle, BackupStats, SaveFreq};

use crate::feed::EpochLengths;
use crate::model::Stack;
use crate::state::State;
use crate::training;

const POLL: Duration = Duration::from_millis(1);

/// The times and the size of one backup.
#[derive(Debug, Clone, Copy)]
pub struct Backup {
    /// How long the training thread was paused.
    pub held: Duration,
    /// How long the background thread worked on it.
    pub persist: Duration,
    /// The number of committed bytes.
    pub bytes: u64,
}

/// Trains `count` batches with a backup after each, and returns the results of `on_backup`. It is
/// called on the training thread while no backup is being written.
pub fn backups<T: Send + 'static>(
    state: &State,
    learner: &Learner<Stack>,
    dir: &Path,
    count: usize,
    mut on_backup: impl FnMut(Backup) -> Result<T> + Send + 'static,
) -> Result<Vec<T>> {
    let backup = BackupAndRestore::new(dir.join("backup")).save_freq(SaveFreq::Steps(1));
    let handle = backup.handle();
    let (sender, results) = channel();
    let mut before = BackupStats::default();
    let feed = state.feed(EpochLengths::all(count)).on_pause(move |pause| {
        if pause.trained > 0 {
            let backup = committed(&handle, pause.trained, &mut before);
            // The receiver exists until the training has ended.
            let _ = sender.send(backup.and_then(&mut on_backup));
        }
    });
    let training = training::supervised(dir, feed, 1).backup_and_restore(backup);
    training::run(training, learner.clone())?;
    results.try_iter().collect()
}

/// The number of bytes in one backup of `state`.
pub fn backup_bytes(state: &State, dir: &Path) -> Result<u64> {
    let bytes = backups(state, &state.learner(), dir, 1, |backup| Ok(backup.bytes))?;
    bytes.first().copied().context("no backup was taken")
}

/// Waits for the backup after batch `number`, and returns the change that it made to the
/// statistics.
fn committed(handle: &BackupHandle, number: usize, before: &mut BackupStats) -> Result<Backup> {
    let stats = loop {
        let stats = handle.stats();
        ensure!(
            stats.failed == 0,
            "a backup failed: {:?}",
            handle.last_error()
        );
        if stats.committed >= number as u64 {
            break stats;
        }
        std::thread::sleep(POLL);
    };
    let before = std::mem::replace(before, stats);
    Ok(Backup {
        held: stats.blocked_total.saturating_sub(before.blocked_total),
        persist: stats.persist_last,
        bytes: stats.bytes - before.bytes,
    })
}
