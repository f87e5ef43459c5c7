//! The end of the loop.

use super::Session;
use crate::error::BackupError;
use crate::messages::print_line;
use crate::outcome::Outcome;
use crate::parts::State;
use crate::preemption::AfterPreemption;
use crate::session::{NoMetrics, Remaining, closing};

impl<S: State> Session<S> {
    /// Ends the training. Call it after the loop.
    ///
    /// If the training was stopped, it is saved, and a printed line says so. The program resumes the training when it
    /// runs again.
    ///
    /// If the training is complete, its backup is deleted, unless
    /// [`delete_checkpoint`](crate::BackupAndRestore::delete_checkpoint) is turned off or the model contains NaN. A
    /// loop that the program left early by itself, for example with `break`, counts as complete.
    ///
    /// # Errors
    ///
    /// If a failed backup ends the training (see [`OnBackupError`](crate::OnBackupError)), or if the training has
    /// diverged.
    pub fn finish(mut self, state: &S) -> Result<Outcome, BackupError> {
        if self.has_stepped_in_epoch {
            self.core.warn_if_unseen();
        }
        self.core.fail_if_diverged();
        let is_stopping = self.core.interrupter().should_stop();
        if self.loaders.has_pending() {
            // The loop was left in the middle of a step, so the current state can't be saved.
            self.core.window.set_mid_step(true);
        }
        match is_stopping {
            true => self.core.stopped(state, &mut NoMetrics),
            false => self.ends(state),
        }
        let Self {
            mut core,
            mut drop_notice,
            after,
            ..
        } = self;
        let ending = core.take_ending();
        core.conclude(ending.error.is_none() && ending.interrupted.is_none());
        let handle = drop_notice.handle().clone();
        let outcome = match (&ending.error, ending.past_last_epoch, &ending.interrupted) {
            (Some(_), _, _) => Outcome::Failed,
            (None, Some((at, num_epochs)), _) => Outcome::PastLastEpoch { at, num_epochs },
            (None, None, Some(_)) => Outcome::Stopped {
                saved: ending.saved_at,
            },
            (None, None, None) => Outcome::Finished,
        };
        if let Some(error) = ending.error {
            let error = BackupError::from_training(error);
            drop_notice.finished(outcome, Some(&error));
            return Err(error);
        }
        drop_notice.finished(outcome, None);
        let reason = ending.interrupted.and_then(|stop| stop.reason);
        let saved = ending.saved.as_deref();
        let line = closing::line(outcome, None, reason.as_deref(), saved, &handle);
        for note in handle.take_notes() {
            print_line(&format!("warning: {note}"));
        }
        match (line, after) {
            (Some(line), AfterPreemption::Exit(code)) if ending.is_preempted => {
                closing::exit(&line, code)
            }
            (Some(line), _) => print_line(&line),
            (None, _) => {}
        }
        Ok(outcome)
    }

    /// Ends a training that was not stopped.
    fn ends(&mut self, state: &S) {
        let progress = &mut self.core.progress;
        if let Some(num_epochs) = self.num_epochs {
            let is_left = !progress.state.early_stopped;
            match progress.remaining(num_epochs) {
                Remaining::PastLastEpoch if is_left => {
                    return self.core.past_last_epoch(num_epochs);
                }
                // The loop was left early.
                Remaining::Unfinished => progress.state.early_stopped = true,
                Remaining::PastLastEpoch | Remaining::Complete => {}
            }
        }
        let are_left =
            |(place, num_steps): &(usize, u64)| self.loaders.stream(*place).0 < *num_steps;
        if self.num_steps.iter().any(are_left) {
            progress.state.early_stopped = true;
        }
        self.commit();
        self.core.finished(state, &mut NoMetrics);
    }
}
