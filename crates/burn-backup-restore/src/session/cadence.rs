//! Decides when a backup is due.

use std::time::{Duration, Instant};

use crate::keep::Keep;
use crate::position::Position;
use crate::settings::BackupAndRestore;
use crate::trigger::{CadenceRecord, Now, StepTime, Trigger};

/// The trigger and its clocks.
pub(super) struct Cadence {
    trigger: Trigger,
    keep: Keep,
    launched: Instant,
    /// When the last step ended and the backup after it, if any, was taken.
    step_began: Instant,
    /// The interval that was last logged.
    logged_interval: Option<u64>,
    /// The record at the launch.
    record: CadenceRecord,
}

impl Cadence {
    /// For a training whose state has about `state_bytes`. `record` holds earlier measurements.
    pub(super) fn new(
        settings: &BackupAndRestore,
        state_bytes: u64,
        record: CadenceRecord,
    ) -> Self {
        Self {
            trigger: Trigger::new(
                settings.frequency,
                state_bytes,
                &record,
                settings.retry_after,
            ),
            keep: settings.keep.clone(),
            record,
            launched: Instant::now(),
            step_began: Instant::now(),
            logged_interval: None,
        }
    }

    /// Whether a backup is taken before the last of `epochs` epochs, starting with `first`, because it may be kept.
    pub(super) fn saves_an_epoch(&self, first: usize, epochs: usize) -> bool {
        let last = first.saturating_add(epochs).saturating_sub(1);
        self.keep.first_end(first).is_some_and(|end| end < last)
    }

    /// The metrics that decide which backups are kept.
    pub(super) fn metrics(&self) -> Vec<String> {
        let metrics = self.keep.metrics().into_iter();
        metrics.map(str::to_owned).collect()
    }

    pub(super) fn trigger(&self) -> &Trigger {
        &self.trigger
    }

    /// The measurements so far.
    pub(super) fn record(&self) -> CadenceRecord {
        let known = self.record.backup_cost;
        CadenceRecord {
            backup_cost: self.trigger.backup_cost().or(known),
            uptime: self.record.uptime + self.launched.elapsed().as_secs_f64(),
            ..self.record
        }
    }

    /// Called when a step begins.
    pub(super) fn step_begins(&mut self) {
        self.step_began = Instant::now();
    }

    /// The duration of the step that ends now.
    pub(super) fn step_time(&self, is_disturbed: bool) -> StepTime {
        StepTime {
            took: self.step_began.elapsed(),
            is_disturbed,
        }
    }

    pub(super) fn is_due_after_step(
        &mut self,
        position: &Position,
        can_save: bool,
        step: StepTime,
        is_writing: bool,
    ) -> bool {
        let now = self.now(is_writing);
        self.trigger.after_step(position, can_save, step, now)
    }

    pub(super) fn is_due_after_epoch(
        &mut self,
        epoch: usize,
        can_save: bool,
        is_writing: bool,
    ) -> bool {
        let now = self.now(is_writing);
        let may_be_kept = self.keep.may_keep_end_of(epoch);
        self.trigger.after_epoch(can_save, may_be_kept, now)
    }

    fn now(&self, is_writing: bool) -> Now {
        Now {
            time: self.launched.elapsed(),
            is_writing,
        }
    }

    /// Records that a backup was taken, and that it blocked the training for `held`.
    pub(super) fn saved(&mut self, held: Duration) {
        self.trigger.saved(self.launched.elapsed(), held);
    }

    /// Called when the training has gone back to a backup.
    pub(super) fn rolled_back(&mut self) {
        self.trigger.rolled_back();
    }

    /// Records whether the last backup was committed.
    pub(super) fn noted(&mut self, is_committed: bool) {
        match is_committed {
            true => self.trigger.succeeded(),
            false => self.trigger.failed(self.launched.elapsed()),
        }
    }

    /// Whether the next attempt must wait because of failures.
    pub(super) fn is_held_back(&self, is_writing: bool) -> bool {
        self.trigger.is_held_back(self.now(is_writing))
    }

    /// The interval, how much steps were slowed, and whether the interval should be logged.
    pub(super) fn measured(&mut self) -> Option<(u64, Duration, bool)> {
        let (interval, slowed) = self.trigger.measured()?;
        let is_news = self
            .logged_interval
            .is_none_or(|logged| interval.abs_diff(logged) > logged / 4);
        if is_news {
            self.logged_interval = Some(interval);
        }
        Some((interval, slowed, is_news))
    }
}
