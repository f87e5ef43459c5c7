//! Looks out for notices while a training runs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::grace::{Advice, Grace, Outset};
use super::signals::Signals;
use super::watcher::Watching;
use super::{Notice, Preemption};
use crate::error::BackupError;

const LOG: &str = "burn_backup::preemption";

/// Listens to signals and asks watchers until it is dropped.
pub(crate) struct Lookout {
    signals: Signals,
    posted: Arc<Mutex<Option<Notice>>>,
    /// Each ends its thread when it is dropped.
    _watching: Vec<Watching>,
    grace_period: Duration,
    /// When it was looked last: a notice that is found now has come since.
    looked: Instant,
    noticed: Option<Noticed>,
}

/// A notice that has come.
struct Noticed {
    notice: Notice,
    since: Instant,
    grace: Grace,
}

impl Lookout {
    /// Begins to look out for what `preemption` says.
    pub(crate) fn start(preemption: Preemption) -> Result<Self, BackupError> {
        // First of all: a notice during the start counts too.
        let signals = Signals::listen(&preemption.signals).map_err(BackupError::Signals)?;
        let posted = Arc::new(Mutex::new(None));
        let post: Arc<dyn Fn(Notice) + Send + Sync> = {
            let posted = posted.clone();
            Arc::new(move |notice| {
                let mut posted = posted.lock().unwrap_or_else(PoisonError::into_inner);
                posted.get_or_insert(notice);
            })
        };
        let watchers = preemption.watchers.into_iter();
        let watching = watchers.map(|watcher| Watching::start(watcher, post.clone()));
        let watching: Result<_, _> = watching.collect();
        Ok(Self {
            signals,
            posted,
            _watching: watching.map_err(BackupError::Thread)?,
            grace_period: preemption.grace_period,
            looked: Instant::now(),
            noticed: None,
        })
    }

    /// What to do at this batch boundary, with the last backup having taken `persist` to be written;
    /// and the notice, the first time that it is seen.
    pub(crate) fn look(&mut self, persist: Duration) -> (Advice, Option<Notice>) {
        let news = self.news();
        let now = Instant::now();
        let step = now.duration_since(self.looked);
        self.looked = now;
        let Some(noticed) = &mut self.noticed else {
            return (Advice::GoOn, None);
        };
        let outset = Outset {
            noticed: now.duration_since(noticed.since),
            persist,
            step,
        };
        (noticed.grace.advise(outset), news)
    }

    /// The notice that has come, if one has.
    pub(crate) fn notice(&self) -> Option<&Notice> {
        self.noticed.as_ref().map(|noticed| &noticed.notice)
    }

    /// The notice if it has come since it was looked last. Later ones change nothing.
    fn news(&mut self) -> Option<Notice> {
        let signal = self.signals.take().map(Notice::new);
        if self.noticed.is_some() {
            return None;
        }
        let posted = || {
            let mut posted = self.posted.lock().unwrap_or_else(PoisonError::into_inner);
            posted.take()
        };
        let notice = signal.or_else(posted)?;
        let period = match notice.deadline() {
            Some(deadline) => until(deadline).min(self.grace_period),
            None => self.grace_period,
        };
        log::warn!(target: LOG, "notice: {notice}; the training is saved at once");
        self.noticed = Some(Noticed {
            notice: notice.clone(),
            since: self.looked,
            grace: Grace::new(period),
        });
        Some(notice)
    }
}

fn until(deadline: SystemTime) -> Duration {
    deadline
        .duration_since(SystemTime::now())
        .unwrap_or_default()
}
