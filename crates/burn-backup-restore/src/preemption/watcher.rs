//! The thread that looks for a notice while the training runs.

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

/// How often a watcher looks that doesn't say.
const INTERVAL: Duration = Duration::from_secs(1);

/// A watcher that asks for less would take time from the training.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// Looks for a sign that the machine is about to go.
///
/// It is asked on a thread of its own, so that it may take its time and may fail: the training
/// neither waits for it nor ends with it.
///
/// # Example
///
/// ```
/// use std::error::Error;
///
/// use burn_backup_restore::{Notice, PreemptionWatcher};
///
/// /// The scheduler of a cluster, which leaves a word in an environment variable.
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
    /// What is watched, for logs, such as "the file '/run/evicted'".
    fn name(&self) -> String;

    /// Looks once, and gives the notice if there is one. It is asked again after that: another notice, for
    /// another reason, may be more urgent.
    ///
    /// # Errors
    ///
    /// When it can't be known whether there is one. The failure is logged, as a panic is, and after
    /// the next [`interval`](Self::interval) it is asked again.
    fn poll(&mut self) -> Result<Option<Notice>, Box<dyn Error + Send + Sync>>;

    /// How long to wait between two looks; one second if not overridden, and never less than ten
    /// milliseconds.
    fn interval(&self) -> Duration {
        INTERVAL
    }
}

/// A watcher at work. Dropping it ends the work, but does not wait for a look that hangs: the thread
/// then ends when the look does, without posting what it found.
pub(crate) struct Watching {
    _stop: Sender<Infallible>,
}

impl Watching {
    /// Looks at once, and then after each interval, and hands each notice that is new to `post`.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
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

/// Looks until nobody wants to know any more.
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

/// What came of a look, and of the questions around it.
struct Turn {
    name: String,
    seen: Result<Option<Notice>, String>,
    interval: Duration,
}

fn turn(watcher: &mut dyn PreemptionWatcher) -> Turn {
    let name = catch_unwind(AssertUnwindSafe(|| watcher.name()));
    let seen = look(watcher);
    let interval = catch_unwind(AssertUnwindSafe(|| watcher.interval()));
    Turn {
        name: name.unwrap_or_else(|_| "a watcher without a name".to_owned()),
        seen,
        interval: interval.unwrap_or(INTERVAL),
    }
}

/// Looks once; a failure, or a panic, is told with its causes.
fn look(watcher: &mut dyn PreemptionWatcher) -> Result<Option<Notice>, String> {
    catch_unwind(AssertUnwindSafe(|| {
        watcher.poll().map_err(|error| with_causes(error.as_ref()))
    }))
    .unwrap_or_else(|panic| Err(format!("it panicked: {}", panic_message(panic.as_ref()))))
}

fn report(failures: &mut Failures, name: &str, seen: &Result<Option<Notice>, String>) {
    match seen {
        Ok(_) => {
            if failures.end() {
                log::info!(target: LOG, "{name} can be watched for a preemption again");
            }
        }
        Err(message) => log::log!(
            target: LOG,
            failures.add(message),
            "{name} can't be watched for a preemption; the training goes on, and it is tried again: \
             {message}",
        ),
    }
}

/// The failures in a row, which decide how loud each is told: a watcher that fails every second must
/// not fill the log.
#[derive(Debug, Default)]
struct Failures {
    last: Option<String>,
}

impl Failures {
    /// The level at which to tell it.
    fn add(&mut self, message: &str) -> log::Level {
        if self.last.as_deref() == Some(message) {
            return log::Level::Debug;
        }
        self.last = Some(message.to_owned());
        log::Level::Warn
    }

    /// Whether there were any.
    fn end(&mut self) -> bool {
        self.last.take().is_some()
    }
}
