//! Notices of a preemption, and stops.

use std::time::{Duration, Instant};

use burn::train::Interrupter;

use crate::notice::Notice;
use crate::preemption::{Advice, Backups, Lookout};

/// Stops the training, and says whether it is being stopped.
pub(super) struct Watch {
    interrupter: Interrupter,
    /// Looks out for notices of a preemption, if that is asked for.
    lookout: Option<Lookout>,
    is_preempted: bool,
}

impl Watch {
    pub(super) fn new(interrupter: Interrupter, lookout: Option<Lookout>) -> Self {
        Self {
            interrupter,
            lookout,
            is_preempted: false,
        }
    }

    pub(super) fn interrupter(&self) -> &Interrupter {
        &self.interrupter
    }

    pub(super) fn is_preempted(&self) -> bool {
        self.is_preempted
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.interrupter.should_stop()
    }

    /// Whether it is an error that stops the training.
    pub(super) fn has_failed(&self) -> bool {
        self.interrupter.should_stop() && self.interrupter.error().is_some()
    }

    /// Whether notices are looked out for, and none has ended the training yet.
    pub(super) fn is_looking_out(&self) -> bool {
        self.lookout.is_some() && !self.is_stopping()
    }

    /// The notice that has come.
    pub(super) fn notice(&self) -> Option<&Notice> {
        self.lookout.as_ref().and_then(Lookout::notice)
    }

    /// Looks whether a notice has come, and says what to do; gives a notice that is new.
    pub(super) fn look(&mut self, backups: Backups) -> (Advice, Option<Notice>) {
        match &mut self.lookout {
            Some(lookout) => lookout.look(backups),
            None => (Advice::GoOn, None),
        }
    }

    /// When the kill is to be expected, if the training is left because of a notice that says so.
    pub(super) fn until(&self) -> Option<Instant> {
        let lookout = self.lookout.as_ref().filter(|_| self.is_preempted)?;
        Some(Instant::now() + lookout.time_left()?)
    }

    /// Whether another notice has come, after which no time is left. The first one leaves its own.
    pub(super) fn is_urged(&mut self) -> bool {
        let is_noticed = self.notice().is_some();
        self.look(Backups::default()).1.is_some() && is_noticed
    }

    /// The training is left because of the notice that has come.
    pub(super) fn leave(&mut self) {
        let notice = self.notice().map(ToString::to_string);
        self.is_preempted = true;
        self.interrupter.stop(notice.as_deref());
    }

    /// Why the training is being stopped, in words.
    pub(super) fn why_stopped(&self) -> String {
        let notice = self.notice().filter(|_| self.is_preempted);
        let interruption = self.interrupter.interruption();
        let reason = interruption.and_then(|interruption| interruption.reason);
        match (notice, reason) {
            (Some(notice), _) => notice.to_string(),
            (None, Some(reason)) => reason.to_string(),
            (None, None) => "stopped".to_owned(),
        }
    }

    /// Whether the last backup, of which so many `tries` have failed and the last one `took` so long, can
    /// be tried again before the kill.
    pub(super) fn allows_another_try(&self, tries: u32, took: Duration) -> bool {
        let lookout = self.lookout.as_ref().filter(|_| self.is_preempted);
        lookout.is_some_and(|lookout| lookout.allows_another_try(tries, took))
    }

    /// A notice that has come since the training ended.
    pub(super) fn last_look(&mut self) -> Option<Notice> {
        self.look(Backups::default()).1
    }
}
