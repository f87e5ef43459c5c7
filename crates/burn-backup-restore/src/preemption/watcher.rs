//! The thread that polls a watcher while the training runs.

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::Duration;

use crate::error::with_causes;
use crate::notice::Notice;
use crate::panics::panic_message;

const LOG: &str = "burn_backup::preemption";

/// The default interval of a watcher.
const INTERVAL: Duration = Duration::from_secs(1);

/// A shorter interval would take time from the training.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// Looks for a sign that the machine is about to be stopped.
///
/// A watcher is polled on its own thread, so it may be slow and may fail. The training neither waits for it nor ends
/// because of it.
///
/// # Example
///
/// ```
/// use std::error::Error;
///
/// use burn_backup_restore::{Notice, PreemptionWatcher};
///
/// /// The scheduler of a cluster, which sets an environment variable.
/// struct Scheduler;
///
/// impl PreemptionWatcher for Scheduler {
///     fn name(&self) -> String {
///         "the scheduler".to_owned()
///     }
///
///     fn poll(&mut self) -> Result<Option<Notice>, Box<dyn Error + Send + Sync>> {
///         Ok(std::env::var("EVICTED_BY").ok().map(Notice::new))
///     }
/// }
///
/// assert_eq!(Scheduler.poll()?, None);
/// # Ok::<(), Box<dyn Error + Send + Sync>>(())
/// ```
pub trait PreemptionWatcher: Send + 'static {
    /// What is watched, for logs. For example: "the file '/run/evicted'".
    fn name(&self) -> String;

    /// Looks once, and returns the notice if there is one. Polling continues after a notice, because a second one for
    /// another reason may be more urgent.
    ///
    /// # Errors
    ///
    /// If the watcher can't tell whether there is a notice. An error or a panic is logged, and the watcher is polled
    /// again after the next [`interval`](Self::interval).
    fn poll(&mut self) -> Result<Option<Notice>, Box<dyn Error + Send + Sync>>;

    /// The time between two polls; one second by default, and never less than ten milliseconds.
    fn interval(&self) -> Duration {
        INTERVAL
    }
}

/// A running watcher. Dropping it ends the thread, but does not wait for a poll that hangs. The thread then ends
/// after that poll, without posting the result.
pub(crate) struct RunningWatcher {
    _stop: Sender<Infallible>,
}

impl RunningWatcher {
    /// Polls at once, and then after each interval. Passes each new notice to `post`.
    ///
    /// # Errors
    ///
    /// If no thread can be started.
    pub(crate) fn start(
        watcher: Box<dyn PreemptionWatcher>,
        post: Arc<dyn Fn(Notice) + Send + Sync>,
    ) -> io::Result<Self> {
        let (stop, stopped) = channel();
        std::thread::Builder::new()
            .name("backup-watch".to_owned())
            .spawn(move || watch(watcher, &stopped, post.as_ref()))?;
        Ok(Self { _stop: stop })
    }
}

/// Polls until the [`RunningWatcher`] is dropped.
fn watch(
    mut watcher: Box<dyn PreemptionWatcher>,
    stopped: &Receiver<Infallible>,
    post: &(dyn Fn(Notice) + Send + Sync),
) {
    let mut failures = Failures::default();
    let mut posted = String::new();
    loop {
        let Turn {
            name,
            seen,
            interval,
        } = turn(watcher.as_mut());
        if let Err(TryRecvError::Disconnected) = stopped.try_recv() {
            return;
        }
        report(&mut failures, &name, &seen);
        if let Ok(Some(notice)) = seen
            && notice.reason() != posted
        {
            notice.reason().clone_into(&mut posted);
            post(notice);
        }
        let interval = interval.max(SHORTEST_INTERVAL);
        if let Err(RecvTimeoutError::Disconnected) = stopped.recv_timeout(interval) {
            return;
        }
    }
}

/// The answers of one poll.
struct Turn {
    name: String,
    seen: Result<Option<Notice>, String>,
    interval: Duration,
}

fn turn(watcher: &mut dyn PreemptionWatcher) -> Turn {
    let name = catch_unwind(AssertUnwindSafe(|| watcher.name()));
    let seen = poll_once(watcher);
    let interval = catch_unwind(AssertUnwindSafe(|| watcher.interval()));
    Turn {
        name: name.unwrap_or_else(|_| "a watcher without a name".to_owned()),
        seen,
        interval: interval.unwrap_or(INTERVAL),
    }
}

/// Polls once. An error includes its causes; a panic becomes an error.
fn poll_once(watcher: &mut dyn PreemptionWatcher) -> Result<Option<Notice>, String> {
    catch_unwind(AssertUnwindSafe(|| {
        watcher.poll().map_err(|error| with_causes(error.as_ref()))
    }))
    .unwrap_or_else(|panic| {
        Err(format!(
            "the watcher panicked: {}",
            panic_message(panic.as_ref())
        ))
    })
}

fn report(failures: &mut Failures, name: &str, seen: &Result<Option<Notice>, String>) {
    match seen {
        Ok(_) => {
            if failures.end() {
                log::info!(target: LOG, "watching {name} for a preemption works again");
            }
        }
        Err(message) => log::log!(
            target: LOG,
            failures.add(message),
            "cannot watch {name} for a preemption; the training continues, and the watcher will \
             be tried again: {message}",
        ),
    }
}

/// Consecutive failures, which decide the log level: a watcher that fails every second must not fill the log.
#[derive(Debug, Default)]
struct Failures {
    last: Option<String>,
}

impl Failures {
    /// The level at which to log this failure.
    fn add(&mut self, message: &str) -> log::Level {
        if self.last.as_deref() == Some(message) {
            return log::Level::Debug;
        }
        self.last = Some(message.to_owned());
        log::Level::Warn
    }

    /// Ends the series of failures. Returns whether there were any.
    fn end(&mut self) -> bool {
        self.last.take().is_some()
    }
}
