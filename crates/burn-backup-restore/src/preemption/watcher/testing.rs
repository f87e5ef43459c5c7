//! Helpers for tests of watchers.

use std::error::Error;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::{PreemptionWatcher, RunningWatcher};
use crate::notice::Notice;

/// A watcher with an interval and a function that it calls for a poll.
pub(crate) struct FromFn<F>(pub Duration, pub F);

impl<F> PreemptionWatcher for FromFn<F>
where
    F: FnMut() -> Result<Option<Notice>, Box<dyn Error + Send + Sync>> + Send + 'static,
{
    fn name(&self) -> String {
        "a test".to_owned()
    }

    fn poll(&mut self) -> Result<Option<Notice>, Box<dyn Error + Send + Sync>> {
        (self.1)()
    }

    fn interval(&self) -> Duration {
        self.0
    }
}

/// Starts the watcher. The channel of notices closes when its thread ends.
pub(crate) fn notices(watcher: impl PreemptionWatcher) -> (RunningWatcher, Receiver<Notice>) {
    let (posted, notices) = channel();
    let post = Arc::new(move |notice| {
        let _ = posted.send(notice);
    });
    let watching = RunningWatcher::start(Box::new(watcher), post).expect("a thread can be started");
    (watching, notices)
}

/// Starts the watcher with a shorter interval, and returns its first notice.
pub(crate) fn first_notice(mut watcher: impl PreemptionWatcher) -> Notice {
    let (_watchers, notices) = notices(FromFn(Duration::ZERO, move || watcher.poll()));
    // Only a broken watcher lets this time out.
    let patience = Duration::from_secs(60);
    notices.recv_timeout(patience).expect("there is a notice")
}
