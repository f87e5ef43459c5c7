//! Our backups, one by one: the training goes on only when the backup before is committed.

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

/// What one backup took.
#[derive(Debug, Clone, Copy)]
pub struct Backup {
    /// How long the training thread was held.
    pub held: Duration,
    /// How long the background thread worked on it.
    pub persist: Duration,
    /// The bytes committed.
    pub bytes: u64,
}

/// Trains `count` batches with a backup after each, and gives what `look` makes of them. It is
/// called on the training thread, while nothing is being written.
pub fn backups<T: Send + 'static>(
    state: &State,
    learner: &Learner<Stack>,
    dir: &Path,
    count: usize,
    mut look: impl FnMut(Backup) -> Result<T> + Send + 'static,
) -> Result<Vec<T>> {
    let backup = BackupAndRestore::new(dir.join("backup")).save_freq(SaveFreq::Steps(1));
    let handle = backup.handle();
    let (sender, looks) = channel();
    let mut before = BackupStats::default();
    let feed = state.feed(EpochLengths::all(count)).on_pause(move |pause| {
        if pause.trained > 0 {
            let backup = committed(&handle, pause.trained, &mut before);
            // The receiver is there until the training has ended.
            let _ = sender.send(backup.and_then(&mut look));
        }
    });
    let training = training::supervised(dir, feed, 1).backup_and_restore(backup);
    training::run(training, learner.clone())?;
    looks.try_iter().collect()
}

/// How many bytes one backup of `state` has.
pub fn backup_bytes(state: &State, dir: &Path) -> Result<u64> {
    let bytes = backups(state, &state.learner(), dir, 1, |backup| Ok(backup.bytes))?;
    bytes.first().copied().context("no backup was taken")
}

/// Waits for the backup after batch `number`, and gives what it added to the statistics.
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
        held: stats.held_total.saturating_sub(before.held_total),
        persist: stats.persist_last,
        bytes: stats.bytes - before.bytes,
    })
}
