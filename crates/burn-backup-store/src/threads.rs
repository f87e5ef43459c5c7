//! Threads, where they can be had. A system that gives none (`EAGAIN`) must not fail a backup or a
//! restore: the caller does the work itself then.

use std::any::Any;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle, Result, Scope, ScopedJoinHandle, available_parallelism};

const LOG: &str = "burn_backup::persist";

/// A thread at work.
pub(crate) struct Thread<T>(JoinHandle<Option<T>>);

impl<T> Thread<T> {
    pub(crate) fn join(self) -> Result<T> {
        self.0.join().and_then(outcome)
    }
}

/// The same, of a thread that may borrow.
pub(crate) struct ScopedThread<'scope, T>(ScopedJoinHandle<'scope, Option<T>>);

impl<T> ScopedThread<'_, T> {
    pub(crate) fn join(self) -> Result<T> {
        self.0.join().and_then(outcome)
    }
}

/// How many threads the machine runs at once. Containers have it looked up in files, so that is done once.
pub(crate) fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| available_parallelism().map_or(1, NonZero::get))
}

/// Whether all work is to be done in turn, by whoever has it: tests ask for that.
pub(crate) fn in_turn() -> bool {
    test_hook::in_turn()
}

/// Has a thread do `work` with `input`. Without a thread, the input comes back.
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

/// The same, with a thread that may borrow.
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

/// Where a piece of work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// On a thread of its own, if there is one.
    Beside,
    /// By the caller, in its turn.
    Here,
}

/// Does all of the work at once, as far as there are threads for it. Gives what came of each, in
/// the same order.
pub(crate) fn at_once<T, F>(name: &str, works: impl Iterator<Item = (Place, F)>) -> Vec<Result<T>>
where
    T: Send,
    F: FnOnce() -> T + Send,
{
    enum Work<'scope, T, F> {
        There(ScopedThread<'scope, T>),
        Here(F),
        Done(Result<T>),
    }
    std::thread::scope(|scope| {
        let works: Vec<_> = works
            .map(|(place, work)| {
                if place == Place::Here {
                    return Work::Here(work);
                }
                match spawn_scoped(scope, name, work, |work| work()) {
                    Ok(thread) if test_hook::in_turn() => Work::Done(thread.join()),
                    Ok(thread) => Work::There(thread),
                    Err(work) => Work::Here(work),
                }
            })
            .collect();
        let works: Vec<_> = works
            .into_iter()
            .map(|work| match work {
                Work::Here(work) => Work::<T, F>::Done(catch_unwind(AssertUnwindSafe(work))),
                elsewhere => elsewhere,
            })
            .collect();
        let outcomes = works.into_iter().map(|work| match work {
            Work::There(thread) => thread.join(),
            Work::Here(work) => Ok(work()),
            Work::Done(outcome) => outcome,
        });
        outcomes.collect()
    })
}

/// Starts a thread, and says so if there is none.
fn start<H>(name: &str, spawn: impl FnOnce(Builder) -> std::io::Result<H>) -> Option<H> {
    let spawned = match test_hook::is_refused() {
        true => Err(std::io::ErrorKind::WouldBlock.into()),
        false => spawn(Builder::new().name(name.to_owned())),
    };
    spawned
        .inspect_err(|error| {
            log::debug!(target: LOG, "no thread '{name}' could be had, its work is done without: {error}");
        })
        .ok()
}

/// What a thread does: it waits for its input, which would be lost with a thread that isn't started.
fn receiving<I, T>(inbox: Receiver<I>, work: impl FnOnce(I) -> T) -> impl FnOnce() -> Option<T> {
    #[allow(
        clippy::let_unit_value,
        reason = "it is one without the feature testing"
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

/// Where tests reach in: the threads that a test's thread starts, and those that these start.
#[cfg(feature = "testing")]
mod test_hook {
    use std::cell::RefCell;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// What a test has asked for.
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
