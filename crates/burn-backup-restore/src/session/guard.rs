//! Detects divergences of the training and decides how to react.

use std::sync::Arc;

use burn::train::Interrupter;

use crate::divergence::{Detector, Divergence, Fetched, Finding, RollBack, reach};
use crate::error::BackupError;
use crate::metrics::{MetricWatch, WatchMark};
use crate::position::Position;
use crate::settings::BackupAndRestore;

/// Detects divergences, if that is requested.
pub(crate) struct Guard {
    divergence: Divergence,
    watch: MetricWatch,
}

impl Guard {
    /// Creates the guard for a training with these settings. `watch` is the one that the training's logger calls, if
    /// any.
    pub(crate) fn new(settings: &BackupAndRestore, watch: Option<MetricWatch>) -> Option<Self> {
        let divergence = settings.divergence;
        divergence.watches().then(|| Self {
            divergence,
            watch: watch.unwrap_or_else(|| watch_of(settings)),
        })
    }

    pub(super) fn watch(&self) -> &MetricWatch {
        &self.watch
    }

    pub(super) fn mark(&self) -> WatchMark {
        self.watch.mark()
    }

    /// Whether a divergence was detected.
    pub(super) fn has_diverged(&self) -> bool {
        self.watch.has_diverged()
    }

    /// The warning for a hand-written loop that logs no values of the watched metrics.
    pub(super) fn unseen(&self) -> Option<String> {
        let metrics = self.watch.rule().metrics;
        (!self.watch.has_checked()).then(|| {
            format!(
                "on_divergence checks nothing: no value of '{}' was logged; call Session::log in each step, before \
                 Session::stepped",
                metrics.join("', '"),
            )
        })
    }

    /// Whether the training rolls back after a divergence.
    pub(super) fn rolls_back(&self) -> bool {
        matches!(self.divergence, Divergence::RollBack { .. })
    }

    /// Ends the training if it has diverged and has no rollback left, or if a watched metric is missing.
    /// `rollbacks` are the rollbacks so far, and `backup` is the position of the last backup.
    pub(super) fn check(
        &self,
        rollbacks: &[RollBack],
        backup: Option<Position>,
        interrupter: &Interrupter,
    ) {
        let error = match self.watch.others() {
            Some(there) => BackupError::NoSuchMetric {
                wanted: self.watch.rule().metrics,
                there,
            },
            None => match self.watch.finding() {
                Some(_) if !self.has_left(rollbacks) => {
                    return self.fail(rollbacks, backup, interrupter);
                }
                _ => return,
            },
        };
        interrupter.fail(BackupError::into_training_error(Arc::new(error)));
    }

    /// Ends the training because it has diverged.
    pub(super) fn fail(
        &self,
        rollbacks: &[RollBack],
        backup: Option<Position>,
        interrupter: &Interrupter,
    ) {
        if let Some(finding) = self.watch.finding() {
            let error = diverged(&finding, rollbacks, backup);
            interrupter.fail(BackupError::into_training_error(Arc::new(error)));
        }
    }

    /// The divergence that the training rolls back for, if it does.
    pub(super) fn finding(&self, rollbacks: &[RollBack]) -> Option<Finding> {
        let is_found = self.watch.has_diverged() && self.has_left(rollbacks);
        is_found.then(|| self.watch.finding()).flatten()
    }

    /// The next rollback. `fetched` lists the batches that the diverged step of a hand-written loop fetched.
    pub(super) fn plan(
        &self,
        finding: &Finding,
        rollbacks: &[RollBack],
        fetched: Vec<Fetched>,
    ) -> RollBack {
        RollBack {
            fetched,
            ..RollBack::of(finding, rollbacks)
        }
    }

    /// How many batches older than the newest backup a backup kept for a rollback must be. `None` if the training
    /// does not roll back.
    pub(super) fn reach(&self) -> Option<u64> {
        self.rolls_back()
            .then(|| reach(self.divergence, &self.watch.rule()))
    }

    /// `1 of at most 3` for the rollback after `rollbacks` earlier ones.
    pub(super) fn count(&self, rollbacks: usize) -> String {
        format!("{} of at most {}", rollbacks + 1, self.divergence.at_most())
    }

    fn has_left(&self, rollbacks: &[RollBack]) -> bool {
        rollbacks.len() < self.divergence.at_most() as usize
    }
}

/// The watch for a training with these settings.
pub(crate) fn watch_of(settings: &BackupAndRestore) -> MetricWatch {
    let rule = settings.divergence_rule.clone();
    MetricWatch::new(Detector::new(rule))
}

fn diverged(finding: &Finding, rollbacks: &[RollBack], backup: Option<Position>) -> BackupError {
    let skipped = rollbacks.iter().map(|of| (of.from, of.to));
    BackupError::Diverged {
        metric: finding.metric.clone(),
        value: finding.value,
        bound: finding.bound,
        first: finding.first,
        skipped: skipped.collect(),
        backup,
    }
}
