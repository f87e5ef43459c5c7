use std::time::Duration;

/// How often a backup is taken (Keras: `save_freq`).
///
/// Whatever the frequency, a stop through Burn's
/// [`Interrupter`](burn::train::Interrupter) leads to one more backup, and unless it is
/// [`Never`](Self::Never), the training's end does.
///
/// A backup that fails stays due. The next try is at the first batch or epoch that ends 1, 2, 4 .. 60 seconds after the
/// last failure in a row; a stop, a notice and the training's end try at once.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum SaveFreq {
    /// After each epoch's validation.
    #[default]
    Epoch,
    /// Every so many training batches, counted across epochs.
    Steps(usize),
    /// After the first batch, or epoch, that ends so long after the last backup.
    Every(Duration),
    /// As often as is possible without making the training take longer than by this share of its
    /// time: 0.01 is 1 %.
    ///
    /// What backups cost is measured while the training runs: how long they hold the training
    /// thread, and how much longer steps take during which one is being written. The next one is
    /// taken when that share of the time trained so far has paid for all before it, and for another
    /// one like them. [`BackupHandle::interval`](crate::BackupHandle::interval) tells how many
    /// batches that is. What was measured is part of the backup: a restart needn't measure it again.
    ///
    /// So is how often the training was interrupted, except in order. From the first interruption on, backups
    /// are no closer than Young's interval, `sqrt(2 * cost * MTBF)`: closer ones cost more than they save. Where
    /// machines fail every few minutes, a share of 0.1 lets them be that close.
    ///
    /// Made with [`auto`](Self::auto).
    #[non_exhaustive]
    Auto {
        /// The share, greater than 0.
        max_overhead: f64,
    },
    /// As often as the disk allows without holding the training: the next backup begins at the first batch or
    /// epoch that ends after the last one is durable, and the one before it is removed.
    ///
    /// A crash then loses the work of the time that one to two backups take. The disk is busy all the time,
    /// and steps take longer where backups need the processor too. Where records are read on the training's
    /// thread ([`Snapshot::Blocking`](crate::Snapshot::Blocking), several GPUs), each backup still holds
    /// the training for that long.
    Continuous,
    /// Only when the training is stopped.
    Never,
}

impl From<usize> for SaveFreq {
    fn from(steps: usize) -> Self {
        Self::Steps(steps)
    }
}

impl From<Duration> for SaveFreq {
    fn from(interval: Duration) -> Self {
        Self::Every(interval)
    }
}

impl SaveFreq {
    /// As often as is possible without making the training take longer than by this share of its time, which is
    /// greater than 0: 0.01 is 1 %.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_backup_restore::{BackupAndRestore, SaveFreq};
    ///
    /// let backup = BackupAndRestore::new("backup").save_freq(SaveFreq::auto(0.01));
    /// ```
    pub fn auto(max_overhead: f64) -> Self {
        Self::Auto { max_overhead }
    }

    /// Whether it says when a backup is due.
    pub(crate) fn is_valid(self) -> bool {
        match self {
            Self::Epoch | Self::Continuous | Self::Never => true,
            Self::Steps(steps) => steps > 0,
            Self::Every(interval) => !interval.is_zero(),
            Self::Auto { max_overhead } => max_overhead.is_finite() && max_overhead > 0.0,
        }
    }
}
