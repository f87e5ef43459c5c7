//! Threads, if the system provides them. If it refuses a thread (`EAGAIN`), a backup or a restore must not fail: the
//! caller then does the work itself.

use std::any::Any;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle, Result, Scope, ScopedJoinHandle, available_parallelism};

const LOG: &str = "burn_backup::persist";

/// A running thread.
pub(crate) struct Thread<T>(JoinHandle<Option<T>>);

impl<T> Thread<T> {
    pub(crate) fn join(self) -> Result<T> {
        self.0.join().and_then(outcome)
    }
}

/// Like [`Thread`], for a thread that may borrow.
pub(crate) struct ScopedThread<'scope, T>(ScopedJoinHandle<'scope, Option<T>>);

impl<T> ScopedThread<'_, T> {
    pub(crate) fn join(self) -> Result<T> {
        self.0.join().and_then(outcome)
    }
}

/// How many threads the machine runs at once. The value is cached, because it is read from files in containers.
pub(crate) fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| available_parallelism().map_or(1, NonZero::get))
}

/// Whether all work must be done one piece after the other. Tests ask for this.
pub(crate) fn in_turn() -> bool {
    test_hook::in_turn()
}

/// Starts a thread that does `work` with `input`. If there is no thread, returns the input.
pub(crate) fn spawn<I, T>(
    name: &str,
    input: I,
    work: impl FnOnce(I) -> T + Send + 'static,
) -> std::result::Result<Thread<T>, I>
where
    I: Send + 'static,
    T: Send + 'static,
{
    let (sender, inbox) = channel();
    let thread = start(name, |builder| builder.spawn(receiving(inbox, work)));
    match thread {
        Some(thread) => hand_over(&sender, input).map(|()| Thread(thread)),
        None => Err(input),
    }
}

/// Like [`spawn`], with a thread that may borrow.
pub(crate) fn spawn_scoped<'scope, I, T>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    input: I,
    work: impl FnOnce(I) -> T + Send + 'scope,
) -> std::result::Result<ScopedThread<'scope, T>, I>
where
    I: Send + 'scope,
    T: Send + 'scope,
{
    let (sender, inbox) = channel();
    let thread = start(name, |builder| {
        builder.spawn_scoped(scope, receiving(inbox, work))
    });
    match thread {
        Some(thread) => hand_over(&sender, input).map(|()| ScopedThread(thread)),
        None => Err(input),
    }
}

/// The thread on which a piece of work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunOn {
    /// A thread of its own, if one can be started.
    NewThread,
    /// The caller's thread.
    CallingThread,
}

/// Does all of the work in parallel, as far as threads can be started. Returns the outcomes in the same order.
pub(crate) fn at_once<T, F>(name: &str, works: impl Iterator<Item = (RunOn, F)>) -> Vec<Result<T>>
where
    T: Send,
    F: FnOnce() -> T + Send,
{
    enum Work<'scope, T, F> {
        Running(ScopedThread<'scope, T>),
        Pending(F),
        Done(Result<T>),
    }
    std::thread::scope(|scope| {
        let works: Vec<_> = works
            .map(|(run_on, work)| {
                if run_on == RunOn::CallingThread {
                    return Work::Pending(work);
                }
                match spawn_scoped(scope, name, work, |work| work()) {
                    Ok(thread) if test_hook::in_turn() => Work::Done(thread.join()),
                    Ok(thread) => Work::Running(thread),
                    Err(work) => Work::Pending(work),
                }
            })
            .collect();
        let works: Vec<_> = works
            .into_iter()
            .map(|work| match work {
                Work::Pending(work) => Work::<T, F>::Done(catch_unwind(AssertUnwindSafe(work))),
                elsewhere => elsewhere,
            })
            .collect();
        let outcomes = works.into_iter().map(|work| match work {
            Work::Running(thread) => thread.join(),
            Work::Pending(work) => Ok(work()),
            Work::Done(outcome) => outcome,
        });
        outcomes.collect()
    })
}

/// Starts a thread, and logs if that fails.
fn start<H>(name: &str, spawn: impl FnOnce(Builder) -> std::io::Result<H>) -> Option<H> {
    let spawned = match test_hook::is_refused() {
        true => Err(std::io::ErrorKind::WouldBlock.into()),
        false => spawn(Builder::new().name(name.to_owned())),
    };
    spawned
        .inspect_err(|error| {
            log::debug!(target: LOG, "the thread '{name}' could not be started, so its caller does the work: {error}");
        })
        .ok()
}

/// The body of a thread: it receives its input, which would be lost with a thread that fails to start.
fn receiving<I, T>(inbox: Receiver<I>, work: impl FnOnce(I) -> T) -> impl FnOnce() -> Option<T> {
    #[allow(
        clippy::let_unit_value,
        reason = "the function is const without the feature testing"
    )]
    let hook = test_hook::current();
    move || {
        test_hook::inherit(hook);
        inbox.recv().ok().map(work)
    }
}

fn hand_over<I>(sender: &Sender<I>, input: I) -> std::result::Result<(), I> {
    sender.send(input).map_err(|unsent| unsent.0)
}

fn outcome<T>(outcome: Option<T>) -> Result<T> {
    outcome.ok_or_else(|| Box::new("the thread was given no work") as Box<dyn Any + Send>)
}

#[cfg(feature = "testing")]
pub(crate) use test_hook::TestHook;

/// The hooks for tests. They apply to the threads that a test's thread starts, and to the threads that those start.
#[cfg(feature = "testing")]
mod test_hook {
    use std::cell::RefCell;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// The behaviour that a test has asked for.
    pub(crate) struct TestHook {
        pub asked: AtomicUsize,
        pub refuses: Box<dyn Fn(usize) -> bool + Send + Sync>,
        pub in_turn: bool,
    }

    thread_local! {
        static HOOK: RefCell<Option<Arc<TestHook>>> = const { RefCell::new(None) };
    }

    pub(super) fn current() -> Option<Arc<TestHook>> {
        HOOK.with_borrow(Clone::clone)
    }

    pub(super) fn inherit(hook: Option<Arc<TestHook>>) {
        TestHook::replace(hook);
    }

    pub(super) fn in_turn() -> bool {
        HOOK.with_borrow(|hook| hook.as_ref().is_some_and(|hook| hook.in_turn))
    }

    pub(super) fn is_refused() -> bool {
        current().is_some_and(|hook| {
            let number = hook.asked.fetch_add(1, Ordering::Relaxed);
            (hook.refuses)(number)
        })
    }

    impl TestHook {
        pub(crate) fn replace(hook: Option<Arc<Self>>) -> Option<Arc<Self>> {
            HOOK.replace(hook)
        }
    }
}

#[cfg(not(feature = "testing"))]
mod test_hook {
    pub(super) fn current() {}

    pub(super) fn inherit((): ()) {}

    pub(super) fn in_turn() -> bool {
        false
    }

    pub(super) fn is_refused() -> bool {
        false
    }
}
