//! Rolling back to a backup from before a divergence, while the training runs.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn_backup_store::ReadProgress;

use super::LOG;
use super::events::Core;
use super::guard::Guard;
use super::saver::{MetricSource, OnThread};
use super::transfer::TransferLine;
use crate::burn_api::burnpack::PerTensor;
use crate::divergence::{Fetched, Finding, RollBack};
use crate::error::BackupError;
use crate::event::Event;
use crate::messages::warn;
use crate::panics::panic_message;
use crate::part;
use crate::parts::parts_of_mut;
use crate::resume::{Expected, LoadPart, PartsMut, Restored, restore};
use crate::state::TrainingState;

impl Core {
    /// Whether the training has diverged and rolls back: its loop must end and start again.
    pub(crate) fn has_diverged(&self) -> bool {
        let finding = || self.guard.as_ref()?.finding(&self.progress.state.rollbacks);
        !self.watch.is_stopping() && finding().is_some()
    }

    /// Whether the settings ask for a rollback after a divergence.
    pub(crate) fn rolls_back(&self) -> bool {
        self.guard.as_ref().is_some_and(Guard::rolls_back)
    }

    /// Receives a metric value from a hand-written loop. It belongs to the current step if `is_in_step`, otherwise to
    /// the last one.
    pub(super) fn look_at(&self, metric: &str, value: f64, is_in_step: bool) {
        if let Some(guard) = &self.guard {
            let batch = self
                .progress
                .state
                .position
                .global_step
                .saturating_add(u64::from(is_in_step));
            guard.watch().check(metric, batch, value);
        }
    }

    /// Warns once if a hand-written loop logs no values of the watched metrics.
    pub(super) fn warn_if_unseen(&mut self) {
        let unseen = self.guard.as_ref().and_then(Guard::unseen);
        if let Some(message) = unseen.filter(|_| !self.has_warned_of_unseen) {
            self.has_warned_of_unseen = true;
            warn(&self.saver.handle, &message);
        }
    }

    /// Ends the training with an error if it has diverged, although it could roll back.
    pub(super) fn fail_if_diverged(&self) {
        if let Some(guard) = &self.guard
            && self.has_diverged()
        {
            let backup = self.saver.committed.map(|moment| moment.position);
            let rollbacks = &self.progress.state.rollbacks;
            guard.fail(rollbacks, backup, self.watch.interrupter());
        }
    }

    /// Called before Burn gets an event for which it logs metrics of the training split once. `batch` is the batch
    /// that the event belongs to, if any.
    pub(crate) fn expect_metrics(&self, batch: Option<u64>) {
        if let Some(guard) = &self.guard {
            guard.watch().expect_call(batch);
        }
    }

    /// Waits until it is known whether the training has diverged so far.
    pub(crate) fn settle_divergence(&mut self, metrics: &mut dyn MetricSource) {
        let Some(guard) = &self.guard else {
            return;
        };
        let mark = guard.mark();
        let interrupter = self.watch.interrupter();
        match &self.measured.logs {
            Some(logs) if logs.is_abandoned() => {}
            Some(logs) => logs.abandon_on_panic(|| metrics.drain(interrupter)),
            None => metrics.drain(interrupter),
        }
        mark.wait(|| interrupter.error().is_some());
        self.look_for_divergence();
    }

    /// Ends the training if it has diverged and does not roll back.
    pub(super) fn look_for_divergence(&self) {
        if let Some(guard) = &self.guard
            && !self.watch.is_stopping()
        {
            let backup = self.saver.committed.map(|moment| moment.position);
            let rollbacks = &self.progress.state.rollbacks;
            guard.check(rollbacks, backup, self.watch.interrupter());
        }
    }

    /// Whether a backup must be taken before the first batch, so that a rollback is possible.
    pub(super) fn needs_first_backup(&self) -> bool {
        let guard = self.guard.as_ref();
        let is_begun = self.progress.is_restored || self.progress.state.position.global_step > 0;
        guard.is_some_and(Guard::rolls_back) && !is_begun && self.saver.committed.is_none()
    }

    /// Restores `training` and the states of the settings from the last backup before the divergence. Its loop then
    /// trains again from there, and skips the batches that must be skipped. `fetched` lists the batches that the
    /// diverged step of a hand-written loop fetched.
    pub(crate) fn roll_back(
        &mut self,
        training: PartsMut<'_>,
        metrics: &mut dyn MetricSource,
        fetched: Vec<Fetched>,
    ) -> Result<(), BackupError> {
        self.settle_divergence(metrics);
        self.settle(metrics);
        let Some(guard) = &self.guard else {
            return Ok(());
        };
        let state = &self.progress.state;
        let Some(finding) = guard.finding(&state.rollbacks) else {
            return Ok(());
        };
        let rollback = guard.plan(&finding, &state.rollbacks, fetched);
        // No backup may be pruned while one is being restored.
        self.saver.background.restart(Default::default())?;
        let restored = catch_unwind(AssertUnwindSafe(|| self.load_before(training, &rollback)));
        let (restored, Restored { memories, .. }) = restored.unwrap_or_else(|panic| {
            Err(BackupError::RestorePanicked {
                path: self.progress.backup_dir.clone(),
                message: panic_message(panic.as_ref()),
            })
        })?;
        if let Some(on_thread) = &mut self.saver.on_thread {
            let known = memories.iter();
            let known = known.map(|(name, memory)| (name.clone(), memory.fit.again()));
            *on_thread = OnThread {
                known: known.collect(),
                ..OnThread::new(on_thread.read, std::mem::take(&mut on_thread.devices))
            };
        }
        self.saver.background.restart(memories)?;
        self.continue_from(restored, &finding, rollback);
        Ok(())
    }

    /// Loads the newest backup from before the skipped batches.
    fn load_before(
        &mut self,
        training: PartsMut<'_>,
        rollback: &RollBack,
    ) -> Result<(TrainingState, Restored), BackupError> {
        let state = &self.progress.state;
        let is_before = |saved: TrainingState| {
            // Rollbacks that are missing from this backup must not affect batches that it has already
            // trained.
            let later = state.rollbacks.iter().skip(saved.rollbacks.len());
            let mut later = later.chain([rollback]);
            let is_of_this_line = state.rollbacks.starts_with(&saved.rollbacks);
            // A restore would refuse a backup from before an allowed change.
            let is_unchanged =
                saved.configuration == state.configuration && saved.burn == state.burn;
            is_of_this_line
                && is_unchanged
                && later.all(|rollback| saved.position.global_step < rollback.from)
        };
        let chunking = PerTensor(part::OPTIMIZER);
        let handle = &self.saver.handle;
        let line = TransferLine::new("reading the backup for the rollback".to_owned());
        let on_read = |read: ReadProgress| {
            handle.count_progress();
            line.show(read.done, read.of);
        };
        let store = &self.saver.store;
        let newest = store.newest_where(&chunking, &on_read, &|manifest| {
            manifest.state().is_ok_and(is_before)
        })?;
        drop(line);
        let generation = newest.ok_or_else(|| BackupError::NoBackupBeforeDivergence {
            path: self.progress.backup_dir.clone(),
            batch: rollback.from,
        })?;
        let configuration = state.configuration.clone().unwrap_or_default();
        let expected = Expected {
            configuration: &configuration,
            changes: &self.progress.changes,
            main: &self.main,
            backup_dir: &self.progress.backup_dir,
            are_fresh: false,
        };
        let shorter = |(name, part)| (name, part as &mut dyn LoadPart);
        let mut parts: PartsMut<'_> = training.into_iter().map(shorter).collect();
        for (name, state) in &mut self.saver.states {
            parts.extend(parts_of_mut(name, state.as_mut()));
        }
        restore(&mut parts, generation, &expected)
    }

    /// Continues the training from this backup.
    fn continue_from(&mut self, mut state: TrainingState, finding: &Finding, rollback: RollBack) {
        let before = &self.progress.state;
        state.model.clear();
        // Keep what the process has learned since that backup.
        state.cadence = None;
        state.runs.clone_from(&before.runs);
        state.forks.clone_from(&before.forks);
        state.run_seed = before.run_seed;
        state.reseed_steps = before.reseed_steps;
        state.rollbacks.clone_from(&before.rollbacks);
        let history = std::mem::take(&mut state.history);
        let logs = std::mem::take(&mut state.logs);
        let past = state.past();
        self.measured.history.continue_from(history, past);
        if let Some(metric_logs) = &self.measured.logs {
            metric_logs.resume(state.position, logs);
        }
        self.measured.stop_mark = None;
        let record = state.divergence.take().unwrap_or_default();
        if let Some(guard) = &self.guard {
            guard.watch().resume(record);
            self.announce_rollback(
                guard.count(before.rollbacks.len()),
                &state,
                finding,
                &rollback,
            );
        }
        let event = Event::RolledBack {
            from: before.position,
            to: state.position,
            skipped: (rollback.from..=rollback.to).collect(),
            attempt: before.rollbacks.len() as u32 + 1,
        };
        state.rollbacks.push(rollback);
        // Lets a later stop save this state again, now with the rollback.
        self.saver.committed = None;
        self.saver.running_states = None;
        self.cadence.rolled_back();
        self.window.release();
        self.window.set_mid_step(false);
        self.progress.is_restored = true;
        self.progress.has_stepped_here = false;
        self.progress.state = state;
        let share = self.progress.share();
        let position = self.progress.state.position;
        self.saver.handle.rolled_back(position, share);
        self.saver.handle.send(event);
    }

    fn announce_rollback(
        &self,
        count: String,
        to: &TrainingState,
        finding: &Finding,
        rollback: &RollBack,
    ) {
        let RollBack {
            from: first,
            to: last,
            ..
        } = rollback;
        let skipped = match first == last {
            true => format!("batch {first} of the training is skipped"),
            false => format!("the batches {first} to {last} of the training are skipped"),
        };
        let value = match finding.bound {
            Some(bound) => format!("{} (above {bound:.4})", finding.value),
            None => finding.value.to_string(),
        };
        let message = format!(
            "rollback {count}: '{}' is {value} at batch {} of the training; back from {} to {}; {skipped}",
            finding.metric, finding.last, self.progress.state.position, to.position,
        );
        log::debug!(target: LOG, "{rollback:?}");
        warn(&self.saver.handle, &message);
    }
}
