//! Divergence of a training: how it is detected and what follows.
//!
//! ```text
//! detector    detects a divergence in the values of a metric
//! plan        decides how far the training goes back and which batches it then skips
//! ```

mod detector;
mod plan;

pub(crate) use detector::{Detector, Finding, Record};
pub(crate) use plan::{Fetched, RollBack, reach};

use crate::error::BackupError;

/// How a training reacts when it diverges. It diverges when a metric of a batch is NaN or infinite, or is far higher
/// than before for several batches in a row.
///
/// A [`DivergenceRule`] defines what counts as a divergence. It uses the values that Burn computes for its metrics
/// anyway. Nothing more is computed or read from a device.
///
/// # Example
///
/// ```
/// use burn_backup_restore::{BackupAndRestore, Divergence};
///
/// let backup = BackupAndRestore::new("backup")
///     .save_freq(500)
///     .on_divergence(Divergence::RollBack { at_most: 3 });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Divergence {
    /// Metrics are not checked. A backup of a model that contains NaN is refused, the last good one stays, and the
    /// training continues.
    #[default]
    Refuse,
    /// The training ends at once with [`BackupError::Diverged`]. The last backup from before the divergence stays.
    Stop,
    /// The training goes back, in the same process, to the last backup from before the batch that diverged. It trains
    /// again up to that batch, skips it, and continues with different random numbers.
    ///
    /// If the training diverges again before any batch after the skipped ones has normal values, an earlier batch is
    /// assumed to be the cause. The training then also skips the batches before the skipped ones: one, then two more,
    /// then four more. After `at_most` rollbacks in the whole training, the next divergence ends it as
    /// [`Stop`](Self::Stop) does.
    ///
    /// The skipped batches are recorded in the backup. They depend only on the metrics, not on when backups were
    /// taken. The training therefore ends with the same weights whether it is interrupted or not.
    ///
    /// A rollback needs the batches in the same order again, so the training loader must come from
    /// [`data::DataLoaderBuilder`](crate::data::DataLoaderBuilder). A first backup is taken before the first batch.
    /// Up to two older backups stay in addition to those kept by [`keep_last`](crate::BackupAndRestore::keep_last).
    RollBack {
        /// The maximum number of rollbacks in the whole training; at least 1.
        at_most: u32,
    },
}

/// Defines which values of which metrics are a divergence.
///
/// A NaN or infinite value is a divergence. So are `patience` values in a row above the bound. The bound is the
/// median of the last `window` values plus `deviations` standard deviations.
///
/// The standard deviation is estimated from the median absolute deviation (MAD; [Leys et al.
/// 2013](https://doi.org/10.1016/j.jesp.2013.03.013)). It counts as at least 5 % of the median, so that values that
/// hardly vary have a bound too. There is no bound until half of the window is full.
///
/// A single hard batch does not reach the patience. A slow drift moves the median with it, and falling values never
/// come near the bound.
///
/// # Example
///
/// ```
/// use burn_backup_restore::{BackupAndRestore, Divergence, DivergenceRule};
///
/// let backup = BackupAndRestore::new("backup")
///     .on_divergence(Divergence::Stop)
///     .divergence_rule(DivergenceRule::of("Perplexity").window(200).deviations(20.0));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct DivergenceRule {
    pub(crate) metrics: Vec<String>,
    pub(crate) window: usize,
    pub(crate) deviations: f64,
    pub(crate) patience: usize,
    pub(crate) jumps: bool,
}

impl Default for DivergenceRule {
    /// The metric "Loss", a window of 64 values, 10 deviations, and a patience of 4 batches.
    fn default() -> Self {
        Self::of("Loss")
    }
}

impl DivergenceRule {
    /// Watches the metric with this name, as it appears in the logs.
    pub fn of(metric: impl Into<String>) -> Self {
        Self {
            metrics: vec![metric.into()],
            window: 64,
            deviations: 10.0,
            patience: 4,
            jumps: true,
        }
    }

    /// Watches this metric as well.
    pub fn and(mut self, metric: impl Into<String>) -> Self {
        self.metrics.push(metric.into());
        self
    }

    /// The number of values for the median; at least 8. A training on several devices without DDP has one value per
    /// device in each step.
    pub fn window(mut self, values: usize) -> Self {
        self.window = values;
        self
    }

    /// The distance of the bound above the median, in standard deviations; more than 0.
    pub fn deviations(mut self, deviations: f64) -> Self {
        self.deviations = deviations;
        self
    }

    /// How many values in a row must be above the bound; at least 1.
    pub fn patience(mut self, values: usize) -> Self {
        self.patience = values;
        self
    }

    /// Treats only NaN and infinite values as a divergence. Use it for sorted data, where the loss jumps whenever a
    /// different kind of data begins.
    pub fn only_non_finite(mut self) -> Self {
        self.jumps = false;
        self
    }

    pub(crate) fn validate(&self) -> Result<(), BackupError> {
        let invalid = |setting, needed| Err(BackupError::InvalidDivergence { setting, needed });
        if self.window < 8 {
            return invalid("DivergenceRule::window", "at least 8 values");
        }
        if !(self.deviations > 0.0 && self.deviations.is_finite()) {
            return invalid("DivergenceRule::deviations", "a finite number above 0");
        }
        if self.patience == 0 {
            return invalid("DivergenceRule::patience", "at least 1 value");
        }
        Ok(())
    }
}

impl Divergence {
    /// Whether metrics are watched.
    pub(crate) fn watches(self) -> bool {
        self != Self::Refuse
    }

    /// The maximum number of rollbacks.
    pub(crate) fn at_most(self) -> u32 {
        match self {
            Self::Refuse | Self::Stop => 0,
            Self::RollBack { at_most } => at_most,
        }
    }

    pub(crate) fn validate(self) -> Result<(), BackupError> {
        match self {
            Self::RollBack { at_most: 0 } => Err(BackupError::InvalidDivergence {
                setting: "Divergence::RollBack { at_most }",
                needed: "at least 1; Divergence::Stop ends the training at once",
            }),
            _ => Ok(()),
        }
    }
}
