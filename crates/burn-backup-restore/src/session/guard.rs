//! Looks for divergences of the training, and decides what follows.

use std::sync::Arc;

use burn::train::Interrupter;

use crate::divergence::{Detector, Divergence, Fetched, Finding, RollBack, reach};
use crate::error::BackupError;
use crate::metrics::{MetricWatch, WatchMark};
use crate::position::Position;
use crate::settings::BackupAndRestore;

/// What looks for divergences, if that is asked for.
pub(crate) struct Guard {
    divergence: Divergence,
    watch: MetricWatch,
}

impl Guard {
    /// For a training with these settings; `watch` is the one that its logger calls, if it has one.
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

    /// Whether there is a divergence.
    pub(super) fn has_found(&self) -> bool {
        self.watch.has_found()
    }

    /// What is to be said to a loop that is written by hand and gives no values to look at.
    pub(super) fn unseen(&self) -> Option<String> {
        let metrics = self.watch.rule().metrics;
        (!self.watch.has_looked()).then(|| {
            format!(
                "on_divergence looks at nothing: no value of '{}' was given; call Session::log in each step, before \
                 Session::stepped",
                metrics.join("', '"),
            )
        })
    }

    /// Whether the training may go back.
    pub(super) fn goes_back(&self) -> bool {
        matches!(self.divergence, Divergence::RollBack { .. })
    }

    /// Ends the training if it has diverged and does not go back any more, or if nobody can see whether it has.
    /// `rollbacks` are those that it has had, and `backup` says of which moment the last backup is.
    pub(super) fn look(
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

    /// What the training goes back for, if it does.
    pub(super) fn finding(&self, rollbacks: &[RollBack]) -> Option<Finding> {
        let is_found = self.watch.has_found() && self.has_left(rollbacks);
        is_found.then(|| self.watch.finding()).flatten()
    }

    /// The rollback that follows. A step of a loop that is written by hand has `fetched` this.
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

    /// How many batches older than the newest one a backup must be that is kept to go back to; `None` if the training
    /// does not go back.
    pub(super) fn reach(&self) -> Option<u64> {
        self.goes_back()
            .then(|| reach(self.divergence, &self.watch.rule()))
    }

    /// `1 of at most 3`, for the one after so many.
    pub(super) fn count(&self, rollbacks: usize) -> String {
        format!("{} of at most {}", rollbacks + 1, self.divergence.at_most())
    }

    fn has_left(&self, rollbacks: &[RollBack]) -> bool {
        rollbacks.len() < self.divergence.at_most() as usize
    }
}

/// The watch of a training with these settings.
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
