//! Preemption notices and stops.

use std::time::{Duration, Instant};

use burn::train::Interrupter;

use crate::notice::Notice;
use crate::preemption::{Advice, Backups, NoticeMonitor};

/// Stops the training, and says whether it is being stopped.
pub(super) struct Watch {
    interrupter: Interrupter,
    /// Watches for preemption notices, if that is requested.
    monitor: Option<NoticeMonitor>,
    is_preempted: bool,
}

impl Watch {
    pub(super) fn new(interrupter: Interrupter, monitor: Option<NoticeMonitor>) -> Self {
        Self {
            interrupter,
            monitor,
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

    /// Whether an error stops the training.
    pub(super) fn has_failed(&self) -> bool {
        self.interrupter.should_stop() && self.interrupter.error().is_some()
    }

    /// Whether notices are watched for and the training is not being stopped.
    pub(super) fn is_watching(&self) -> bool {
        self.monitor.is_some() && !self.is_stopping()
    }

    /// The notice that has arrived.
    pub(super) fn notice(&self) -> Option<&Notice> {
        self.monitor.as_ref().and_then(NoticeMonitor::notice)
    }

    /// Checks for a notice. Returns what to do, and the notice if it is new.
    pub(super) fn check(&mut self, backups: Backups) -> (Advice, Option<Notice>) {
        match &mut self.monitor {
            Some(monitor) => monitor.check(backups),
            None => (Advice::Continue, None),
        }
    }

    /// When to expect the kill, if a notice with a deadline has stopped the training.
    pub(super) fn until(&self) -> Option<Instant> {
        let monitor = self.monitor.as_ref().filter(|_| self.is_preempted)?;
        Some(Instant::now() + monitor.time_left()?)
    }

    /// Whether a second notice has arrived, after which no time is left. After the first one, time remains.
    pub(super) fn has_second_notice(&mut self) -> bool {
        let is_noticed = self.notice().is_some();
        self.check(Backups::default()).1.is_some() && is_noticed
    }

    /// Stops the training because of the notice that has arrived.
    pub(super) fn leave(&mut self) {
        let notice = self.notice().map(ToString::to_string);
        self.is_preempted = true;
        self.interrupter.stop(notice.as_deref());
    }

    /// Why the training is being stopped, as text.
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

    /// Whether the last backup can be retried before the kill, after `tries` failed attempts of which the last one
    /// `took` this long.
    pub(super) fn allows_another_try(&self, tries: u32, took: Duration) -> bool {
        let monitor = self.monitor.as_ref().filter(|_| self.is_preempted);
        monitor.is_some_and(|monitor| monitor.allows_another_try(tries, took))
    }

    /// A notice that arrived after the training ended.
    pub(super) fn last_check(&mut self) -> Option<Notice> {
        self.check(Backups::default()).1
    }
}
