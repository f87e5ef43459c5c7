//! The way back to a backup from before a divergence, while the training runs.

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
use crate::panics::panic_message;
use crate::part;
use crate::parts::parts_of_mut;
use crate::resume::{Expected, LoadPart, PartsMut, Restored, restore};
use crate::say::warn;
use crate::state::TrainingState;

impl Core {
    /// Whether the training has diverged, and goes back: its loop is to be left, and to be begun again.
    pub(crate) fn has_diverged(&self) -> bool {
        let finding = || self.guard.as_ref()?.finding(&self.progress.state.rollbacks);
        !self.watch.is_stopping() && finding().is_some()
    }

    /// Whether it goes back after a divergence, as often as it may.
    pub(crate) fn goes_back(&self) -> bool {
        self.guard.as_ref().is_some_and(Guard::goes_back)
    }

    /// A loop that is written by hand has this value of a metric, in the step in progress if there is one, or else in
    /// the last one.
    pub(super) fn look_at(&self, metric: &str, value: f64, is_in_step: bool) {
        if let Some(guard) = &self.guard {
            let batch = self
                .progress
                .state
                .position
                .global_step
                .saturating_add(u64::from(is_in_step));
            guard.watch().look(metric, batch, value);
        }
    }

    /// Says so once if a loop that is written by hand gives no values to look at.
    pub(super) fn warn_if_unseen(&mut self) {
        let unseen = self.guard.as_ref().and_then(Guard::unseen);
        if let Some(message) = unseen.filter(|_| !self.has_warned_of_unseen) {
            self.has_warned_of_unseen = true;
            warn(&self.saver.handle, &message);
        }
    }

    /// The training ends although it could go back after a divergence.
    pub(super) fn fail_if_diverged(&self) {
        if let Some(guard) = &self.guard
            && self.has_diverged()
        {
            let backup = self.saver.committed.map(|moment| moment.position);
            let rollbacks = &self.progress.state.rollbacks;
            guard.fail(rollbacks, backup, self.watch.interrupter());
        }
    }

    /// Burn is about to be told of something because of which metrics are logged once for the training split: of
    /// this `batch`, if it is one.
    pub(crate) fn expect_metrics(&self, batch: Option<u64>) {
        if let Some(guard) = &self.guard {
            guard.watch().told(batch);
        }
    }

    /// Waits until it is known whether the training has diverged by now.
    pub(crate) fn settle_divergence(&mut self, metrics: &mut dyn MetricSource) {
        let Some(guard) = &self.guard else {
            return;
        };
        let mark = guard.mark();
        let interrupter = self.watch.interrupter();
        match &self.measured.logs {
            Some(logs) if logs.is_abandoned() => {}
            Some(logs) => logs.telling(|| metrics.drain(interrupter)),
            None => metrics.drain(interrupter),
        }
        mark.wait(|| interrupter.error().is_some());
        self.look_for_divergence();
    }

    /// Ends the training if it has diverged and does not go back.
    pub(super) fn look_for_divergence(&self) {
        if let Some(guard) = &self.guard
            && !self.watch.is_stopping()
        {
            let backup = self.saver.committed.map(|moment| moment.position);
            let rollbacks = &self.progress.state.rollbacks;
            guard.look(rollbacks, backup, self.watch.interrupter());
        }
    }

    /// Whether a backup is to be taken before the first batch, to go back to.
    pub(super) fn needs_first_backup(&self) -> bool {
        let guard = self.guard.as_ref();
        let is_begun = self.progress.is_restored || self.progress.state.position.global_step > 0;
        guard.is_some_and(Guard::goes_back) && !is_begun && self.saver.committed.is_none()
    }

    /// Brings `training`, and the states of the settings, back to the last backup from before the divergence. From
    /// there its loop trains again, and skips the batches that are to be skipped. A step of a loop that is written by
    /// hand has `fetched` this.
    pub(crate) fn go_back(
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
        // Nothing is to be pruned meanwhile.
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

    /// Loads the newest backup from before what is to be skipped.
    fn load_before(
        &mut self,
        training: PartsMut<'_>,
        rollback: &RollBack,
    ) -> Result<(TrainingState, Restored), BackupError> {
        let state = &self.progress.state;
        let is_before = |saved: TrainingState| {
            // Those of the rollbacks that it does not know of must not concern what it has trained.
            let later = state.rollbacks.iter().skip(saved.rollbacks.len());
            let mut later = later.chain([rollback]);
            let is_of_this_line = state.rollbacks.starts_with(&saved.rollbacks);
            // One from before a change that was allowed would be refused.
            let is_unchanged =
                saved.configuration == state.configuration && saved.burn == state.burn;
            is_of_this_line
                && is_unchanged
                && later.all(|rollback| saved.position.global_step < rollback.from)
        };
        let chunking = PerTensor(part::OPTIMIZER);
        let handle = &self.saver.handle;
        let line = TransferLine::new("reading the backup to go back to".to_owned());
        let on_read = |read: ReadProgress| {
            handle.lives();
            line.show(read.done, read.of);
        };
        let store = &self.saver.store;
        let newest = store.newest_where(&chunking, &on_read, &|manifest| {
            manifest.state().is_ok_and(is_before)
        })?;
        drop(line);
        let generation = newest.ok_or_else(|| BackupError::NothingBefore {
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

    /// The training goes on from this backup.
    fn continue_from(&mut self, mut state: TrainingState, finding: &Finding, rollback: RollBack) {
        let before = &self.progress.state;
        state.model.clear();
        // What the process has learned since stays.
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
            self.say_rollback(
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
        // A stop from here on saves it with the rollback.
        self.saver.committed = None;
        self.saver.running_states = None;
        self.cadence.rolled_back();
        self.window.release();
        self.window.set_between(false);
        self.progress.is_restored = true;
        self.progress.has_stepped_here = false;
        self.progress.state = state;
        let share = self.progress.share();
        let position = self.progress.state.position;
        self.saver.handle.rolled_back(position, share);
        self.saver.handle.tell(event);
    }

    fn say_rollback(
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
