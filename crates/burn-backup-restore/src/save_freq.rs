use std::time::Duration;

/// How often a backup is taken (Keras: `save_freq`).
///
/// With every frequency, a stop through Burn's [`Interrupter`](burn::train::Interrupter) leads to one more backup.
/// The training's end does too, except with [`Never`](Self::Never).
///
/// A failed backup is retried at the end of a batch or epoch, after a waiting time. This time is 1 s after the first
/// failure, and doubles with each further failure in a row, up to 60 s. A stop, a notice and the training's end retry
/// at once.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum SaveFreq {
    /// After each epoch's validation.
    #[default]
    Epoch,
    /// Every this many training batches, counted across epochs.
    Steps(usize),
    /// After the first batch, or epoch, that ends at least this long after the last backup.
    Every(Duration),
    /// As often as possible while backups lengthen the training by at most this share of its time: 0.01 is 1 %.
    ///
    /// The cost of backups is measured while the training runs. It is the time that they block the training
    /// thread, plus the extra time of steps during which a backup is written. The next backup is taken when this
    /// share of the time trained so far covers the cost of all earlier backups and of one more.
    /// [`BackupHandle::interval`](crate::BackupHandle::interval) returns this interval in batches. The measurements are
    /// part of the backup, so a restart needn't repeat them.
    ///
    /// The backup also records how often the training was interrupted, not counting orderly stops. After the first
    /// interruption, the interval is at least Young's interval, `sqrt(2 * cost * MTBF)`, because more frequent backups
    /// cost more than they save. MTBF is the mean time between failures. If machines fail every few minutes, use a
    /// larger share, such as 0.1, so that backups can be that frequent.
    ///
    /// Create it with [`auto`](Self::auto).
    #[non_exhaustive]
    Auto {
        /// The share, greater than 0.
        max_overhead: f64,
    },
    /// As often as the disk allows without blocking the training. The next backup begins at the first batch or
    /// epoch that ends after the last one is durable, and the one before it is removed.
    ///
    /// A crash then loses as much work as is done while one to two backups are written. The disk is always busy, and
    /// steps take longer if backups also need the processor. If records are read on the training's thread
    /// ([`Snapshot::Blocking`](crate::Snapshot::Blocking), several GPUs), each backup still blocks the training for
    /// that time.
    Continuous,
    /// Takes a backup only when the training is stopped.
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
    /// As often as possible while backups lengthen the training by at most this share of its time. The share must be
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

    /// Whether it defines when a backup is due.
    pub(crate) fn is_valid(self) -> bool {
        match self {
            Self::Epoch | Self::Continuous | Self::Never => true,
            Self::Steps(steps) => steps > 0,
            Self::Every(interval) => !interval.is_zero(),
            Self::Auto { max_overhead } => max_overhead.is_finite() && max_overhead > 0.0,
        }
    }
}
