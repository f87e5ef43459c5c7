//! Collects notices while a training runs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::Preemption;
use super::grace::{Advice, Backups, Boundary, Grace};
use super::signals::{After, Signals};
use super::watcher::RunningWatcher;
use crate::error::BackupError;
use crate::notice::Notice;

const LOG: &str = "burn_backup::preemption";

/// Listens to signals and polls watchers until it is dropped.
pub(crate) struct NoticeMonitor {
    signals: Signals,
    posted: Arc<Mutex<Vec<Notice>>>,
    /// Dropping a `RunningWatcher` ends its thread.
    _watchers: Vec<RunningWatcher>,
    grace_period: Duration,
    /// The time of the last check. A notice that is found now arrived after it.
    checked: Instant,
    noticed: Option<Noticed>,
}

/// A notice that has arrived.
struct Noticed {
    notice: Notice,
    since: Instant,
    grace: Grace,
}

impl NoticeMonitor {
    /// Starts to listen for the notices that `preemption` defines.
    pub(crate) fn start(preemption: Preemption) -> Result<Self, BackupError> {
        // Signals come first: a notice during the start counts too.
        let after = match preemption.leaves_signals {
            true => After::LeftToProgram,
            false => After::AsBefore,
        };
        let signals = Signals::listen(&preemption.signals, after).map_err(BackupError::Signals)?;
        let posted = Arc::new(Mutex::new(Vec::new()));
        let post: Arc<dyn Fn(Notice) + Send + Sync> = {
            let posted = posted.clone();
            Arc::new(move |notice| {
                let mut posted = posted.lock().unwrap_or_else(PoisonError::into_inner);
                posted.push(notice);
            })
        };
        let watchers = preemption.watchers.into_iter();
        let watching = watchers.map(|watcher| RunningWatcher::start(watcher, post.clone()));
        let watching: Result<_, _> = watching.collect();
        Ok(Self {
            signals,
            posted,
            _watchers: watching.map_err(BackupError::Thread)?,
            grace_period: preemption.grace_period,
            checked: Instant::now(),
            noticed: None,
        })
    }

    /// What to do at this batch boundary, given the progress of the backups. Also returns the notice, if one has
    /// arrived since the last check.
    pub(crate) fn check(&mut self, backups: Backups) -> (Advice, Option<Notice>) {
        let news = self.news();
        let now = Instant::now();
        let step = now.duration_since(self.checked);
        self.checked = now;
        let Some(noticed) = &mut self.noticed else {
            return (Advice::Continue, None);
        };
        let boundary = Boundary {
            noticed: now.duration_since(noticed.since),
            step,
            backups,
        };
        (noticed.grace.advise(boundary), news)
    }

    /// Whether the time before the kill is enough to try the last backup again. `tries` attempts have failed, and the
    /// last one `took` this long.
    pub(crate) fn allows_another_try(&self, tries: u32, took: Duration) -> bool {
        self.noticed.as_ref().is_some_and(|noticed| {
            let since = noticed.since.elapsed();
            noticed.grace.allows_another_try(since, tries, took)
        })
    }

    /// The time until the kill; `None` if unknown.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        let noticed = self.noticed.as_ref()?;
        let is_known = !self.grace_period.is_zero() || noticed.notice.deadline().is_some();
        is_known.then(|| noticed.grace.left(noticed.since.elapsed()))
    }

    /// The notice that has arrived, if any.
    pub(crate) fn notice(&self) -> Option<&Notice> {
        self.noticed.as_ref().map(|noticed| &noticed.notice)
    }

    /// The notice that has arrived since the last check, if any. A second notice for another reason ends the grace
    /// period.
    fn news(&mut self) -> Option<Notice> {
        let mut come: Vec<_> = self.signals.take().into_iter().map(Notice::new).collect();
        {
            let mut posted = self.posted.lock().unwrap_or_else(PoisonError::into_inner);
            come.append(&mut posted);
        }
        let mut news = None;
        for notice in come {
            match &mut self.noticed {
                Some(noticed) if noticed.notice.reason() == notice.reason() => continue,
                Some(noticed) => {
                    log::warn!(
                        target: LOG,
                        "another preemption notice arrived, so no more time is left: {notice}",
                    );
                    noticed.grace.end();
                    noticed.notice = notice.clone();
                }
                None => {
                    log::warn!(target: LOG, "preemption notice: {notice}");
                    self.noticed = Some(Noticed {
                        since: self.checked,
                        grace: Grace::new(self.time_after(&notice)),
                        notice: notice.clone(),
                    });
                }
            }
            news = Some(notice);
        }
        news
    }

    fn time_after(&self, notice: &Notice) -> Duration {
        match notice.deadline() {
            Some(deadline) => until(deadline).min(self.grace_period),
            None => self.grace_period,
        }
    }
}

fn until(deadline: SystemTime) -> Duration {
    deadline
        .duration_since(SystemTime::now())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn monitor(grace_period: Duration) -> NoticeMonitor {
        NoticeMonitor::start(Preemption::new().grace_period(grace_period)).unwrap()
    }

    fn post(monitor: &NoticeMonitor, notice: &Notice) {
        monitor.posted.lock().unwrap().push(notice.clone());
    }

    #[test]
    fn another_notice_ends_the_wait_and_the_same_one_does_not() {
        let mut monitor = monitor(Duration::from_secs(3600));
        let check = |monitor: &mut NoticeMonitor| monitor.check(Backups::default());
        assert_eq!(check(&mut monitor), (Advice::Continue, None));
        let (first, second) = (Notice::new("maintenance"), Notice::new("SIGTERM"));
        post(&monitor, &first);
        assert_eq!(check(&mut monitor), (Advice::Save, Some(first.clone())));
        post(&monitor, &first);
        assert_eq!(check(&mut monitor), (Advice::Continue, None));
        assert_eq!(monitor.notice(), Some(&first));
        post(&monitor, &second);
        assert_eq!(
            check(&mut monitor),
            (Advice::SaveAndStop, Some(second.clone()))
        );
        assert_eq!(monitor.notice(), Some(&second));
    }

    #[test]
    fn a_deadline_shortens_the_time_and_does_not_lengthen_it() {
        for (grace, deadline, expected) in [
            (3600, 0, Advice::SaveAndStop),
            (3600, 1800, Advice::Save),
            (0, 3600, Advice::SaveAndStop),
        ] {
            let mut monitor = monitor(Duration::from_secs(grace));
            let deadline = SystemTime::now() + Duration::from_secs(deadline);
            post(&monitor, &Notice::new("the end").with_deadline(deadline));
            assert_eq!(monitor.check(Backups::default()).0, expected);
        }
    }
}
