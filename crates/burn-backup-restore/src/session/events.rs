//! The events that a loop reports, and how the session reacts to them.

#[cfg(feature = "rl")]
use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use burn::train::{Interrupter, TrainingError};

use super::cadence::Cadence;
use super::ending::Ending;
use super::guard::Guard;
use super::heartbeat::Heartbeat;
use super::progress::Progress;
use super::saver::{HasParts, MetricSource, NoMetrics, Saver};
use super::watch::Watch;
use super::window::Window;
use super::{COMMIT_LOG, LOG, TRIGGER_LOG, mirror};
use crate::burn_api::Items;
#[cfg(feature = "rl")]
use crate::error::BackupError;
use crate::error::with_causes;
use crate::event_sender::HangGuard;
use crate::metrics::{Mark, MetricHistory, MetricLogs};
use crate::preemption::{Advice, Backups, Upload};
use crate::runs;
use crate::save::{Metrics, TrainingSnapshot};
use crate::spans;
use crate::state::{Moment, Phase, TrainingState};

/// Backs up and restores one training.
pub(crate) struct Core {
    pub(crate) progress: Progress,
    pub(super) saver: Saver,
    pub(super) cadence: Cadence,
    pub(super) window: Window,
    pub(super) watch: Watch,
    /// Detects divergences, if that is requested.
    pub(super) guard: Option<Guard>,
    pub(super) has_warned_of_unseen: bool,
    /// The device that trains the model, or the first one of several.
    pub(super) main: Device,
    pub(super) measured: TrainingMetrics,
    pub(super) ending: Ending,
    /// Shows the process that started this program that the training is alive.
    pub(super) heartbeat: Option<Heartbeat>,
    /// Sends events to the program's callback.
    pub(super) watching: HangGuard,
}

/// The metrics of the training.
pub(super) struct TrainingMetrics {
    /// The value of each metric per epoch.
    pub history: MetricHistory,
    /// The metric logs, if this crate writes them.
    pub logs: Option<MetricLogs>,
    /// The state of the logs at a stop, before Burn logs the metrics of an incomplete epoch.
    pub stop_mark: Option<Mark>,
}

impl TrainingMetrics {
    /// The metrics known at this moment.
    fn now(&mut self) -> Metrics {
        let mark = self.stop_mark.take();
        match mark.or_else(|| self.logs.as_ref().map(MetricLogs::mark)) {
            Some(mark) => Metrics::Until(mark),
            None => Metrics::Known(self.history.history()),
        }
    }
}

impl Core {
    pub(crate) fn interrupter(&self) -> &Interrupter {
        self.watch.interrupter()
    }

    /// The value of each metric per epoch so far.
    pub(crate) fn metric_history(&self) -> &MetricHistory {
        &self.measured.history
    }

    /// The metrics that decide which backups are kept.
    pub(crate) fn metrics_to_keep_by(&self) -> Vec<String> {
        self.cadence.metrics()
    }

    /// The metric logs, if this crate writes them.
    pub(crate) fn metric_logs(&self) -> Option<&MetricLogs> {
        self.measured.logs.as_ref()
    }

    /// Warns if a training of `num_epochs` epochs ends before its first backup is due. `steps` is the number of steps
    /// in an epoch, if known.
    pub(crate) fn warn_if_unprotected(&self, num_epochs: usize, steps: Option<u64>) {
        let epochs = num_epochs
            .saturating_add(1)
            .saturating_sub(self.progress.state.first_epoch);
        let first = self.progress.state.first_epoch;
        let is_too_late = self.cadence.trigger().is_due_after_end(epochs, steps)
            && !self.cadence.saves_an_epoch(first, epochs);
        if !self.progress.is_restored && is_too_late {
            log::warn!(
                target: TRIGGER_LOG,
                "this training runs UNPROTECTED: its save_freq takes no backup before the end of the training; \
                 use a save_freq with fewer batches, or with a time interval",
            );
        }
    }

    /// Called between two batches. If a notice says that the training will be killed, saves or stops the training.
    pub(crate) fn check_for_notice(
        &mut self,
        training: &dyn HasParts,
        metrics: &mut dyn MetricSource,
    ) {
        self.saver.handle.count_progress();
        self.look_for_divergence();
        if !self.watch.is_watching() {
            return;
        }
        match self.check() {
            Advice::Continue => {}
            // Accumulated gradients can't be saved, but the last optimizer step can.
            Advice::Save => match self.window.again() {
                Some(held) => self.save_held(held, metrics),
                None if self.window.has_nothing_to_save() => {}
                None => self.save(training, metrics),
            },
            Advice::SaveAndStop => self.watch.leave(),
        }
    }

    /// Checks for a notice and returns what to do.
    fn check(&mut self) -> Advice {
        self.poll();
        let stats = self.saver.handle.stats();
        let writing = self.saver.background.in_flight_for();
        let (advice, news) = self.watch.check(Backups {
            persist: stats.persist_last.max(writing.unwrap_or_default()),
            is_writing: writing.is_some(),
            failed: stats.failed,
            mirror: self.upload(),
        });
        if let Some(notice) = news {
            self.saver.handle.noticed(notice);
        }
        advice
    }

    /// The state of uploads. It matters only after a notice.
    fn upload(&self) -> Upload {
        let mirror = self.saver.mirror.as_ref();
        let Some(mirror) = mirror.filter(|_| self.watch.notice().is_some()) else {
            return Upload::default();
        };
        let status = mirror.status();
        let uploading = status.uploading_since.map(|since| since.elapsed());
        let last = status.upload_last.unwrap_or_default();
        Upload {
            took: last.max(uploading.unwrap_or_default()),
            is_uploading: uploading.is_some(),
        }
    }

    /// Called before the first batch of an epoch, or of the rest of an epoch, is trained.
    pub(crate) fn split_begins(&mut self, training: &dyn HasParts) {
        self.saver.find_running_states(training);
        if self.window.accumulates() && !self.window.is_mid_step() {
            self.hold(training);
        }
        if self.needs_first_backup() {
            self.save(training, &mut NoMetrics);
        }
        self.cadence.step_begins();
    }

    /// Called before the optimizer steps on accumulated gradients. Frees the held snapshot, which would keep the
    /// tensors that the optimizer replaces in memory.
    pub(crate) fn optimizer_step_begins(&mut self) {
        self.window.release();
    }

    /// Called when one more batch is trained on each device. `items` is the progress of the loaders after it, and
    /// `has_stepped` says whether the optimizer has used the gradients.
    pub(crate) fn step_done(
        &mut self,
        training: &dyn HasParts,
        metrics: &mut dyn MetricSource,
        items: &[Items],
        has_stepped: bool,
    ) {
        let progress = &mut self.progress;
        progress.state.after_step(items, progress.split);
        progress.has_stepped_here |= has_stepped;
        progress.state.optimizer_steps += u64::from(has_stepped);
        let position = progress.state.position;
        self.saver.handle.count_progress();
        self.saver.handle.advanced(position, progress.share());
        self.saver.settle_running_states(training);
        self.look_for_divergence();

        let is_disturbed = self.saver.background.is_busy();
        self.poll();
        let is_writing = self.saver.background.is_busy();
        let step = self.cadence.step_time(is_disturbed);
        let cadence = &mut self.cadence;
        if cadence.is_due_after_step(&position, has_stepped, step, is_writing) {
            self.save_when_due(training, metrics);
        }
        self.show_interval();
        if has_stepped && self.window.accumulates() {
            self.hold(training);
        }
        self.cadence.step_begins();
    }

    /// Called when the training is being stopped, before Burn is told that this part of the epoch has ended.
    pub(crate) fn split_stops(&mut self) {
        let logs = self.measured.logs.as_ref();
        self.measured.stop_mark = logs.map(MetricLogs::mark);
    }

    /// Holds a snapshot of this moment. A stop goes back to it until the next one is held.
    pub(super) fn hold(&mut self, training: &dyn HasParts) {
        let snapshot = self.snapshot(training);
        self.window.hold(snapshot);
    }

    /// Saves the held snapshot, if there is one. Called when the training stops but the program first continues with
    /// other work.
    pub(super) fn save_held_snapshot(&mut self, metrics: &mut dyn MetricSource) {
        if let Some(held) = self.window.again() {
            self.save_held(held, metrics);
        }
    }

    /// Called when all batches of the epoch are trained.
    pub(crate) fn split_done(&mut self) {
        self.progress.state.phase = Phase::Validate;
        // Gradients without an optimizer step by now are never used.
        self.window.release();
    }

    /// Records that the part of the validation with this name is done. A restart continues after it.
    #[cfg(feature = "rl")]
    pub(crate) fn part_validated(&mut self, name: String) {
        self.progress.state.results.insert(name, Vec::new());
    }

    /// Forgets which parts of the validation are done.
    #[cfg(feature = "rl")]
    pub(crate) fn forget_validated_parts(&mut self) {
        self.progress.state.results.clear();
    }

    /// Called when the epoch's validation, and everything that Burn does after it, is done.
    pub(crate) fn epoch_done(
        &mut self,
        training: &dyn HasParts,
        metrics: &mut dyn MetricSource,
        early_stopped: bool,
    ) {
        let epoch = self.progress.state.position.epoch;
        self.progress.state.after_epoch(early_stopped);
        let can_save = !self.window.is_mid_step();
        if self.cadence.trigger().follows_writing() {
            self.poll();
        }
        let is_writing = self.saver.background.is_busy();
        if self.cadence.is_due_after_epoch(epoch, can_save, is_writing) {
            self.save_when_due(training, metrics);
        }
    }

    /// Whether a backup has failed since the last call.
    pub(crate) fn take_failure(&mut self) -> bool {
        self.saver.background.take_failure()
    }

    /// Called when the training stops before its end. If a user requested the stop, this moment is saved. After an
    /// error, the last good backup is kept instead.
    pub(crate) fn stopped(&mut self, training: &dyn HasParts, metrics: &mut dyn MetricSource) {
        if !self.watch.has_failed() {
            let is_possible = !self.window.has_nothing_to_save();
            let snapshot = match self.window.take() {
                Some(snapshot) => Some(snapshot),
                None => is_possible.then(|| self.snapshot(training)),
            };
            let moment = match &snapshot {
                Some(snapshot) => snapshot.state.moment(),
                None => self.progress.state.moment(),
            };
            if let Some(mut snapshot) = snapshot {
                if let Some(cadence) = &mut snapshot.state.cadence {
                    cadence.is_stopped = true;
                }
                runs::end(&mut snapshot.state.runs, &self.watch.why_stopped());
                self.save_with_retries(snapshot, metrics);
            }
            if self.saver.committed == Some(moment) {
                self.saver.handle.saved_when_stopped(moment.position);
                self.ending.saved_at = Some(moment.position);
            }
            let mirrored = self.flush_mirror();
            self.report_stop(moment, mirrored);
        }
        self.settle(metrics);
        self.note_ending();
    }

    /// Waits until the mirror has the last backup, as long as the time before the kill allows. Returns the result as
    /// text, or `None` if there is no mirror or no backup.
    fn flush_mirror(&mut self) -> Option<String> {
        let mirroring = self.saver.mirror.clone()?;
        self.saver.committed?;
        self.ending.is_flushed = true;
        let (watch, handle) = (&mut self.watch, &self.saver.handle);
        let until = watch.until();
        let flushed = mirror::flush(handle, &mirroring, until, || watch.has_second_notice());
        let Err(error) = flushed else {
            return Some("and in the mirror".to_owned());
        };
        let there = match self.saver.handle.mirrored() {
            Some((_, Some(position))) => format!("which has {position}"),
            Some((id, None)) => format!("which has backup {id}"),
            None => "which has no known backup".to_owned(),
        };
        let error = with_causes(error.as_ref());
        Some(format!("but NOT in the mirror, {there}: {error}"))
    }

    /// Saves `snapshot`, the last moment before the training stops. If that fails, retries while the time before the
    /// kill allows it.
    fn save_with_retries(&mut self, snapshot: TrainingSnapshot, metrics: &mut dyn MetricSource) {
        let moment = snapshot.state.moment();
        let mut next = Some(snapshot);
        let mut tries = 0;
        while let Some(snapshot) = next.take() {
            let again = snapshot.again();
            let begun = Instant::now();
            self.save_unless_committed(snapshot, metrics);
            tries += 1;
            let is_missing = self.saver.committed != Some(moment);
            if is_missing && self.can_try_again(tries, begun.elapsed()) {
                log::warn!(target: LOG, "the last backup failed; trying again");
                next = again;
            }
        }
    }

    /// Whether the last backup can be retried before the kill, after `tries` failed attempts of which the last one
    /// `took` this long.
    fn can_try_again(&self, tries: u32, took: Duration) -> bool {
        let has_diverged = self.guard.as_ref().is_some_and(Guard::has_diverged);
        let is_hopeless =
            self.watch.has_failed() || self.saver.handle.is_poisoned() || has_diverged;
        !is_hopeless && self.watch.allows_another_try(tries, took)
    }

    /// Reports whether the stopped training was saved at `moment`.
    fn report_stop(&mut self, moment: Moment, mirrored: Option<String>) {
        if self.watch.has_failed() {
            return;
        }
        let position = moment.position;
        let saved = match self.saver.committed {
            Some(committed) if committed == moment => {
                format!("the training is saved at {position}")
            }
            Some(committed) => format!(
                "the training could NOT be saved at {position}, the last backup is from {}",
                committed.position,
            ),
            None => format!("the training could NOT be saved at {position}"),
        };
        let saved = match mirrored {
            Some(mirrored) => format!("{saved}, {mirrored}"),
            None => saved,
        };
        self.ending.saved = Some(saved.clone());
        let (Some(notice), true) = (self.watch.notice(), self.watch.is_preempted()) else {
            log::info!(target: LOG, "stopped; {saved}");
            return;
        };
        let message = format!("{notice}; {saved}");
        log::warn!(target: "burn_backup::preemption", "{message}");
        self.watch.interrupter().stop(Some(&message));
    }

    /// Called when the training is complete.
    pub(crate) fn finished(&mut self, training: &dyn HasParts, metrics: &mut dyn MetricSource) {
        let saves = self.cadence.trigger().at_end();
        if saves && !self.watch.has_failed() {
            let snapshot = self.snapshot(training);
            self.save_unless_committed(snapshot, metrics);
        }
        self.settle(metrics);
        if !saves && !self.watch.has_failed() {
            self.saver.check_final_model(training);
        }
        if let Some(committed) = self.saver.committed
            && committed == self.progress.state.moment()
        {
            let position = committed.position;
            self.ending.saved_at = Some(position);
            self.ending.saved = Some(format!("the training is complete, and saved at {position}"));
        }
        self.ending.is_complete = true;
        self.note_ending();
    }

    /// Called when there is nothing to train because the training has already passed `num_epochs`. An earlier run
    /// asked for more epochs.
    pub(crate) fn past_last_epoch(&mut self, num_epochs: usize) {
        self.ending.past_last_epoch = Some((self.progress.state.position, num_epochs));
        self.note_ending();
    }

    /// Called when the training can't resume, because its loaders can't return to their position.
    pub(crate) fn refused(&mut self, error: TrainingError) {
        self.watch.interrupter().fail(error);
        self.ending.is_refused = true;
        self.note_ending();
    }

    /// Ends the training because of this error, without saving it.
    #[cfg(feature = "rl")]
    pub(crate) fn fails(&mut self, error: BackupError) {
        let error = BackupError::into_training_error(Arc::new(error));
        self.watch.interrupter().fail(error);
        self.settle(&mut NoMetrics);
        self.note_ending();
    }

    /// How the training ended, as recorded when its loop ended.
    pub(crate) fn take_ending(&mut self) -> Ending {
        let ending = std::mem::take(&mut self.ending);
        self.ending.is_complete = ending.is_complete;
        self.ending.is_flushed = ending.is_flushed;
        ending
    }

    /// Cleans up when everything is written and the program is about to get its result. If the training is complete
    /// and `went_well`, its backup is no longer needed.
    pub(crate) fn conclude(self, went_well: bool) {
        let Self {
            saver,
            mut watch,
            ending,
            heartbeat,
            watching,
            ..
        } = self;
        let handle = saver.handle.clone();
        if let Some(failures) = handle.unlogged_failures() {
            log::warn!(target: COMMIT_LOG, "{failures}");
        }
        let is_complete = ending.is_complete && went_well;
        saver.clear_away(is_complete, ending.is_flushed, || watch.has_second_notice());
        drop((heartbeat, watching));
        // A notice that arrived after the training ended is only reported.
        if let Some(notice) = watch.last_check() {
            handle.noticed(notice);
        }
    }

    fn note_ending(&mut self) {
        let is_preempted = self.watch.is_preempted();
        self.ending.note(self.watch.interrupter(), is_preempted);
    }

    /// A snapshot of this moment that shares the training's tensors.
    pub(super) fn snapshot(&mut self, training: &dyn HasParts) -> TrainingSnapshot {
        let _span = spans::snapshot();
        let state = self.state_now(training);
        let metrics = self.measured.now();
        let watched = self.guard.as_ref().map(Guard::mark);
        let snapshot = self.saver.snapshot(training, state, metrics);
        TrainingSnapshot {
            watched,
            ..snapshot
        }
    }

    fn state_now(&self, training: &dyn HasParts) -> TrainingState {
        let mut state = self.progress.state.clone();
        state.cadence = Some(self.cadence.record());
        if self.progress.has_stepped_here {
            let parts = training.named_parts();
            let rate = parts.iter().find_map(|(_, part)| part.learning_rate());
            state.learning_rate = rate.filter(|rate| rate.is_finite());
        }
        state
    }

    /// Saves this moment because a backup is due. If the previous backup has just failed, this one waits for the
    /// retry delay as well.
    fn save_when_due(&mut self, training: &dyn HasParts, metrics: &mut dyn MetricSource) {
        let started = Instant::now();
        self.settle(metrics);
        match self.cadence.is_held_back(false) {
            true => self.saver.handle.held(started.elapsed()),
            false => self.save(training, metrics),
        }
    }

    /// Saves this moment, and measures how long that blocks the training.
    pub(super) fn save(&mut self, training: &dyn HasParts, metrics: &mut dyn MetricSource) {
        let started = Instant::now();
        self.settle(metrics);
        // The previous backup may just have failed, and that failure may end the training.
        if !self.watch.has_failed() {
            let snapshot = self.snapshot(training);
            self.saver.submit(snapshot);
        }
        self.held_since(started);
    }

    /// Saves a held snapshot, unless the last committed backup is of the same moment.
    fn save_held(&mut self, held: TrainingSnapshot, metrics: &mut dyn MetricSource) {
        let started = Instant::now();
        self.settle(metrics);
        if self.saver.committed != Some(held.state.moment()) && !self.watch.has_failed() {
            self.saver.submit(held);
        }
        self.held_since(started);
    }

    fn held_since(&mut self, started: Instant) {
        let held = started.elapsed();
        self.saver.handle.held(held);
        self.cadence.saved(held);
    }

    fn show_interval(&mut self) {
        let Some((interval, slowed, is_news)) = self.cadence.measured() else {
            return;
        };
        self.saver.handle.measured(interval, slowed);
        if is_news {
            log::info!(target: TRIGGER_LOG, "the measured times now give a backup every {interval} batches");
        }
    }

    /// Saves `snapshot`, unless the last committed backup is of the same moment.
    fn save_unless_committed(
        &mut self,
        snapshot: TrainingSnapshot,
        metrics: &mut dyn MetricSource,
    ) {
        let started = Instant::now();
        self.settle(metrics);
        if self.saver.committed != Some(snapshot.state.moment()) && !self.watch.has_failed() {
            self.saver.submit(snapshot);
            self.settle(metrics);
        }
        self.saver.handle.held(started.elapsed());
    }

    /// Records the result of the snapshot in flight, if it is known.
    fn poll(&mut self) {
        let outcome = self.saver.background.poll();
        if let Some(is_committed) = self.saver.note(outcome) {
            self.cadence.noted(is_committed);
        }
    }

    /// Waits until no snapshot is in flight.
    pub(super) fn settle(&mut self, metrics: &mut dyn MetricSource) {
        self.poll();
        let logs = self.measured.logs.as_ref();
        if let Some(logs) = logs.filter(|logs| !logs.is_abandoned())
            && self.saver.background.in_flight_for().is_some()
        {
            // The snapshot in flight waits for metrics. If Burn's metric thread has panicked, `drain` panics
            // as well, like every other message to that thread.
            logs.abandon_on_panic(|| metrics.drain(self.watch.interrupter()));
        }
        let outcome = self.saver.background.settle();
        if let Some(is_committed) = self.saver.note(outcome) {
            self.cadence.noted(is_committed);
        }
    }
}
