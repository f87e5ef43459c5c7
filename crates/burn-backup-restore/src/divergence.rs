//! Trainings that go wrong: what counts as a divergence, and what follows.
//!
//! ```text
//! detector    which values of a metric are a divergence: values in, a finding out
//! plan        how far the training goes back, and which batches it skips then
//! ```

mod detector;
mod plan;

pub(crate) use detector::{Detector, Finding, Record};
pub(crate) use plan::{Fetched, RollBack, reach};

use crate::error::BackupError;

/// What happens when a training diverges: a metric of a batch is NaN or infinite, or is far higher than before
/// for several batches in a row.
///
/// What counts as that is a [`DivergenceRule`]. The values are those that Burn works out for its metrics in any
/// case: nothing more is computed, and nothing more is read from a device.
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
    /// Metrics are not looked at. A backup of a model that holds NaN is refused, the last good one stays, and
    /// the training goes on.
    #[default]
    Refuse,
    /// The training ends at once with [`BackupError::Diverged`]. The last backup from before stays.
    Stop,
    /// The training goes back, in the same process, to the last backup from before the batch that did it. It
    /// trains the batches up to that one again, skips that one, and goes on with other random numbers.
    ///
    /// If no batch goes well after it, it was one before that did it, and these are skipped as well: one, then two
    /// more, then four more. After `at_most` rollbacks in the whole training, the next divergence ends it as
    /// [`Stop`](Self::Stop) does.
    ///
    /// What is skipped is part of the backup. It depends on the metrics only, and not on when backups were
    /// taken: interrupted or not, the training ends with the same weights.
    ///
    /// It needs batches that come in the same order again, so the training loader is to be one of
    /// [`data::DataLoaderBuilder`](crate::data::DataLoaderBuilder). A first backup is taken before the first
    /// batch, and up to two older backups stay besides those that [`keep_last`](crate::BackupAndRestore::keep_last)
    /// names.
    RollBack {
        /// How many rollbacks the training may have in all; at least 1.
        at_most: u32,
    },
}

/// Which values of which metrics are a divergence.
///
/// A value that is NaN or infinite is one. So are `patience` values in a row above the bound. The bound is the median
/// of the last `window` values plus `deviations` standard deviations. These are estimated from the median absolute
/// deviation (MAD; [Leys et al. 2013](https://doi.org/10.1016/j.jesp.2013.03.013)). A deviation counts as at least 5 %
/// of the median, so that values that hardly vary have a bound too. Before half of the window is full there is none.
///
/// A single hard batch is below the patience. A slow drift moves the median with it, and falling values never
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
    /// Looks at the metric with this name, as its logs name it.
    pub fn of(metric: impl Into<String>) -> Self {
        Self {
            metrics: vec![metric.into()],
            window: 64,
            deviations: 10.0,
            patience: 4,
            jumps: true,
        }
    }

    /// Looks at this metric as well.
    pub fn and(mut self, metric: impl Into<String>) -> Self {
        self.metrics.push(metric.into());
        self
    }

    /// How many values the median is of; at least 8. A training on several devices without DDP has a value for
    /// each device in each step.
    pub fn window(mut self, values: usize) -> Self {
        self.window = values;
        self
    }

    /// How many standard deviations above the median the bound is; more than 0.
    pub fn deviations(mut self, deviations: f64) -> Self {
        self.deviations = deviations;
        self
    }

    /// How many values in a row must be above the bound; at least 1.
    pub fn patience(mut self, values: usize) -> Self {
        self.patience = values;
        self
    }

    /// Only a value that is NaN or infinite is a divergence. For data that is sorted, where the loss jumps whenever
    /// another kind of data begins.
    pub fn only_not_finite(mut self) -> Self {
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
    /// Whether metrics are looked at.
    pub(crate) fn watches(self) -> bool {
        self != Self::Refuse
    }

    /// How many rollbacks there may be.
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
