//! Telling a program of events, on a thread of its own: whatever its callback does, it never holds the training.

mod hang;
mod queue;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use crate::event::Event;
use crate::panics::panic_message;
use crate::position::Position;
use crate::spans;
use hang::HangRule;
use queue::Queue;

const LOG: &str = "burn_backup::events";

/// How long the end of a training waits until all events are told.
const END_LIMIT: Duration = Duration::from_secs(5);

/// A training that has given no sign of life for less than this does not hang.
const HUNG_AFTER: Duration = Duration::from_secs(60);

/// How often the thread looks for signs of life, at most.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What a program gives to be told.
pub(crate) type Callback = Box<dyn FnMut(Event) + Send>;

/// Tells one training's events. Cloning is cheap.
#[derive(Clone, Default)]
pub(crate) struct Telling(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Whether somebody wants to be told. Otherwise there is no thread.
    is_asked: AtomicBool,
    state: Mutex<State>,
    /// There is something to do.
    arrived: Condvar,
    /// An event was told.
    told: Condvar,
    callback: Mutex<Option<Callback>>,
}

#[derive(Default)]
struct State {
    queue: Queue,
    /// Whether the callback is at work.
    is_telling: bool,
    has_thread: bool,
    watched: Option<Watched>,
    hung_after: Option<Duration>,
}

/// The training whose signs of life are looked at.
#[derive(Clone)]
pub(crate) struct Watched {
    /// How many it has given.
    pub lives: Arc<AtomicU64>,
    /// Where it is.
    pub position: Arc<dyn Fn() -> Option<Position> + Send + Sync>,
}

/// A training is looked at, until this is dropped.
pub(crate) struct Watching(Telling);

/// What the thread does next.
enum Next {
    Tell(Event),
    /// For so long nothing came: it looks for signs of life.
    Look(Watched),
    End,
}

impl fmt::Debug for Telling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telling").finish_non_exhaustive()
    }
}

impl Telling {
    /// From now on `callback` is told.
    pub(crate) fn listen(&self, callback: Callback) {
        *self.0.callback() = Some(callback);
        self.0.is_asked.store(true, Ordering::Relaxed);
    }

    /// No silence that is shorter is told of.
    #[cfg(feature = "testing")]
    pub(crate) fn hung_after(&self, least: Duration) {
        self.0.state().hung_after = Some(least);
    }

    /// Tells it later, and returns at once.
    pub(crate) fn tell(&self, event: Event) {
        spans::event(&event);
        if !self.is_asked() {
            return;
        }
        let mut state = self.0.state();
        let is_first_drop = state.queue.push(event);
        let has_thread = self.ensure_thread(&mut state);
        drop(state);
        self.0.arrived.notify_one();
        if is_first_drop && has_thread {
            log::warn!(
                target: LOG,
                "the callback given to on_event is slower than events come: the oldest ones are dropped",
            );
        }
    }

    /// Looks whether the training lives, until what is returned is dropped.
    pub(crate) fn watch(&self, watched: Watched) -> Watching {
        if self.is_asked() {
            let mut state = self.0.state();
            state.watched = Some(watched);
            self.ensure_thread(&mut state);
        }
        Watching(self.clone())
    }

    /// Waits until all events are told, for some seconds at most, and lets go of the callback: no others come.
    pub(crate) fn finish(&self) {
        if !self.is_asked() {
            return;
        }
        let until = Instant::now() + END_LIMIT;
        let mut state = self.0.state();
        while state.has_thread && (state.is_telling || !state.queue.is_empty()) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let untold = state.queue.len() + u64::from(state.is_telling);
                drop(state);
                log::warn!(
                    target: LOG,
                    "the training ends, and the callback given to on_event has not returned from {untold} event(s) \
                     within {} s: it is not waited for any longer",
                    END_LIMIT.as_secs(),
                );
                return;
            }
            let waited = self.0.told.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        self.0.is_asked.store(false, Ordering::Relaxed);
        // Whoever waits for what it has, a channel say, need not wait for the process's end.
        let callback = match self.0.callback.try_lock() {
            Ok(mut callback) => callback.take(),
            Err(TryLockError::Poisoned(callback)) => callback.into_inner().take(),
            Err(TryLockError::WouldBlock) => None,
        };
        drop(callback);
    }

    fn is_asked(&self) -> bool {
        self.0.is_asked.load(Ordering::Relaxed)
    }

    /// Gives whether there is a thread.
    fn ensure_thread(&self, state: &mut State) -> bool {
        if state.has_thread {
            return true;
        }
        let shared = self.0.clone();
        let hangs = HangRule::new(state.hung_after.unwrap_or(HUNG_AFTER));
        let thread = thread::Builder::new().name("backup-events".to_owned());
        match thread.spawn(move || shared.run(hangs)) {
            Ok(_detached) => state.has_thread = true,
            Err(error) => {
                self.0.is_asked.store(false, Ordering::Relaxed);
                log::error!(target: LOG, "no events are told: there is no thread for it: {error}");
            }
        }
        state.has_thread
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.0.state().watched = None;
        self.0.0.arrived.notify_one();
    }
}

impl Shared {
    fn run(&self, mut hangs: HangRule) {
        let tick = LOOK_EVERY.min(hangs.least() / 4);
        loop {
            match self.next(tick) {
                Next::Tell(event) => self.call(event),
                Next::Look(watched) => {
                    let count = watched.lives.load(Ordering::Relaxed);
                    if let Some(silence) = hangs.look(count, Instant::now()) {
                        let event = Event::Hung {
                            position: (watched.position)(),
                            silent: silence.lasted,
                            limit: silence.limit,
                        };
                        let mut state = self.state();
                        state.is_telling = state.watched.is_some();
                        let is_wanted = state.is_telling;
                        drop(state);
                        if is_wanted {
                            spans::event(&event);
                            self.call(event);
                        }
                    }
                }
                Next::End => {
                    self.told.notify_all();
                    return;
                }
            }
        }
    }

    fn next(&self, tick: Duration) -> Next {
        let mut state = self.state();
        loop {
            if let Some(event) = state.queue.pop() {
                state.is_telling = true;
                return Next::Tell(event);
            }
            let Some(watched) = state.watched.clone() else {
                state.has_thread = false;
                return Next::End;
            };
            let waited = self.arrived.wait_timeout(state, tick);
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() && woken.queue.is_empty() {
                return Next::Look(watched);
            }
            state = woken;
        }
    }

    /// Tells it; the state says so already.
    fn call(&self, event: Event) {
        self.call_back(event);
        self.state().is_telling = false;
        self.told.notify_all();
    }

    fn call_back(&self, event: Event) {
        let name = event.name();
        let mut callback = self.callback();
        let Some(callback) = callback.as_mut() else {
            return;
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| callback(event))) {
            let message = panic_message(panic.as_ref());
            log::error!(
                target: LOG,
                "the callback given to on_event has panicked, told of '{name}': {message}; the training goes on",
            );
        }
    }

    /// Plain data: a panic elsewhere leaves nothing half done in it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn callback(&self) -> MutexGuard<'_, Option<Callback>> {
        self.callback.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    fn dropped(events: u64) -> Event {
        Event::Dropped { events }
    }

    #[test]
    fn nobody_who_did_not_ask_costs_a_thread() {
        let telling = Telling::default();
        let watching = telling.watch(Watched {
            lives: Arc::default(),
            position: Arc::new(|| None),
        });
        telling.tell(dropped(1));
        telling.finish();
        assert!(!telling.0.state().has_thread);
        assert!(telling.0.state().queue.is_empty());
        drop(watching);
    }

    #[test]
    fn events_come_in_order_and_the_end_waits_for_them() {
        let telling = Telling::default();
        let (out, told) = channel();
        telling.listen(Box::new(move |event| out.send(event.name()).unwrap()));
        for _ in 0..100 {
            telling.tell(dropped(1));
        }
        telling.tell(Event::MirrorFailed {
            error: String::new(),
        });
        telling.finish();
        let told: Vec<_> = told.iter().collect();
        assert_eq!(told.len(), 101);
        assert_eq!(told.last(), Some(&"mirror_failed"));
        // The callback is gone, and with it the sender.
        telling.tell(dropped(2));
    }

    #[test]
    fn a_callback_that_panics_is_told_of_the_next_event() {
        let telling = Telling::default();
        let (out, told) = channel();
        telling.listen(Box::new(move |event| {
            out.send(event.name()).unwrap();
            panic!("the test has it panic");
        }));
        for _ in 0..3 {
            telling.tell(dropped(1));
        }
        telling.finish();
        assert_eq!(told.try_iter().count(), 3);
    }

    #[test]
    fn a_training_without_a_sign_of_life_is_told_of_once() {
        let telling = Telling::default();
        let (out, told) = channel();
        telling.listen(Box::new(move |event| out.send(event).unwrap()));
        telling.0.state().hung_after = Some(Duration::from_millis(4));
        let lives: Arc<AtomicU64> = Arc::default();
        let position = Position::start_of(3);
        let watching = telling.watch(Watched {
            lives: lives.clone(),
            position: Arc::new(move || Some(position)),
        });
        let event = told.recv().unwrap();
        let Event::Hung {
            position: Some(found),
            silent,
            limit,
        } = event
        else {
            panic!("{event:?}");
        };
        assert_eq!(found, position);
        assert!(silent > limit);
        // After a sign of life it may hang once more.
        lives.fetch_add(1, Ordering::Relaxed);
        assert_eq!(told.recv().unwrap().name(), "hung");
        drop(watching);
        telling.finish();
        assert_eq!(told.try_iter().count(), 0);
    }
}
