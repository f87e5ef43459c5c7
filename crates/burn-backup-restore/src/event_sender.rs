//! Sends events to the program's callback on a separate thread, so that the callback never blocks the training.

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

/// How long the end of a training waits for the callback to receive all events.
const END_LIMIT: Duration = Duration::from_secs(5);

/// A training without progress for less than this time does not count as hung.
const HUNG_AFTER: Duration = Duration::from_secs(60);

/// The longest interval at which the thread checks for progress.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The program's callback.
pub(crate) type Callback = Box<dyn FnMut(Event) + Send>;

/// Sends one training's events. Cloning is cheap.
#[derive(Clone, Default)]
pub(crate) struct EventSender(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Whether there is a callback. Otherwise there is no thread.
    is_asked: AtomicBool,
    state: Mutex<State>,
    /// The thread has work to do.
    arrived: Condvar,
    /// The callback has returned from an event.
    delivered: Condvar,
    callback: Mutex<Option<Callback>>,
}

#[derive(Default)]
struct State {
    queue: Queue,
    /// Whether the callback is running.
    is_delivering: bool,
    has_thread: bool,
    watched: Option<Watched>,
    hung_after: Option<Duration>,
}

/// The training whose progress is checked.
#[derive(Clone)]
pub(crate) struct Watched {
    /// Its progress counter.
    pub progress_count: Arc<AtomicU64>,
    /// Its position.
    pub position: Arc<dyn Fn() -> Option<Position> + Send + Sync>,
}

/// The progress of a training is checked until this is dropped.
pub(crate) struct HangGuard(EventSender);

/// What the thread does next.
enum Next {
    Tell(Event),
    /// No event has arrived for one interval: check for progress.
    Look(Watched),
    End,
}

impl fmt::Debug for EventSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telling").finish_non_exhaustive()
    }
}

impl EventSender {
    /// Sends events to `callback` from now on.
    pub(crate) fn listen(&self, callback: Callback) {
        *self.0.callback() = Some(callback);
        self.0.is_asked.store(true, Ordering::Relaxed);
    }

    /// Sets the shortest time without progress that counts as a hang.
    #[cfg(feature = "testing")]
    pub(crate) fn hung_after(&self, least: Duration) {
        self.0.state().hung_after = Some(least);
    }

    /// Queues the event, and returns at once.
    pub(crate) fn send(&self, event: Event) {
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
                "the callback given to on_event is slower than the events: the oldest events are dropped",
            );
        }
    }

    /// Checks that the training makes progress, until the returned guard is dropped.
    pub(crate) fn watch(&self, watched: Watched) -> HangGuard {
        if self.is_asked() {
            let mut state = self.0.state();
            state.watched = Some(watched);
            self.ensure_thread(&mut state);
        }
        HangGuard(self.clone())
    }

    /// Waits until the callback has received all events, for some seconds at most, and drops the callback.
    pub(crate) fn finish(&self) {
        if !self.is_asked() {
            return;
        }
        let until = Instant::now() + END_LIMIT;
        let mut state = self.0.state();
        while state.has_thread && (state.is_delivering || !state.queue.is_empty()) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let undelivered = state.queue.len() + u64::from(state.is_delivering);
                drop(state);
                log::warn!(
                    target: LOG,
                    "the training has ended, but {undelivered} event(s) were not fully delivered to the callback of \
                     on_event within {} s: the program continues without waiting for it",
                    END_LIMIT.as_secs(),
                );
                return;
            }
            let waited = self.0.delivered.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        self.0.is_asked.store(false, Ordering::Relaxed);
        // The callback may hold a channel's sender: without this drop its receiver would wait for the process's end.
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

    /// Starts the thread if there is none. Returns whether there is one now.
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
                log::error!(target: LOG, "no events are sent to on_event: cannot start a thread: {error}");
            }
        }
        state.has_thread
    }
}

impl Drop for HangGuard {
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
                    let count = watched.progress_count.load(Ordering::Relaxed);
                    if let Some(silence) = hangs.update(count, Instant::now()) {
                        let event = Event::Hung {
                            position: (watched.position)(),
                            silent: silence.lasted,
                            limit: silence.limit,
                        };
                        let mut state = self.state();
                        state.is_delivering = state.watched.is_some();
                        let is_wanted = state.is_delivering;
                        drop(state);
                        if is_wanted {
                            spans::event(&event);
                            self.call(event);
                        }
                    }
                }
                Next::End => {
                    self.delivered.notify_all();
                    return;
                }
            }
        }
    }

    fn next(&self, tick: Duration) -> Next {
        let mut state = self.state();
        loop {
            if let Some(event) = state.queue.pop() {
                state.is_delivering = true;
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

    /// Calls the callback. The caller has already set `is_delivering`.
    fn call(&self, event: Event) {
        self.call_back(event);
        self.state().is_delivering = false;
        self.delivered.notify_all();
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
                "the callback given to on_event has panicked on the event '{name}': {message}; the training continues",
            );
        }
    }

    /// A poisoned lock is ignored, because no update leaves the state inconsistent when a thread panics.
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
    fn without_a_callback_there_is_no_thread() {
        let event_sender = EventSender::default();
        let guard = event_sender.watch(Watched {
            progress_count: Arc::default(),
            position: Arc::new(|| None),
        });
        event_sender.send(dropped(1));
        event_sender.finish();
        assert!(!event_sender.0.state().has_thread);
        assert!(event_sender.0.state().queue.is_empty());
        drop(guard);
    }

    #[test]
    fn events_come_in_order_and_the_end_waits_for_them() {
        let event_sender = EventSender::default();
        let (out, received) = channel();
        event_sender.listen(Box::new(move |event| out.send(event.name()).unwrap()));
        for _ in 0..100 {
            event_sender.send(dropped(1));
        }
        event_sender.send(Event::MirrorFailed {
            error: String::new(),
        });
        event_sender.finish();
        let received: Vec<_> = received.iter().collect();
        assert_eq!(received.len(), 101);
        assert_eq!(received.last(), Some(&"mirror_failed"));
        // The callback was dropped, and with it the sender.
        event_sender.send(dropped(2));
    }

    #[test]
    fn a_callback_that_panics_receives_the_next_event() {
        let event_sender = EventSender::default();
        let (out, received) = channel();
        event_sender.listen(Box::new(move |event| {
            out.send(event.name()).unwrap();
            panic!("this panic is part of the test");
        }));
        for _ in 0..3 {
            event_sender.send(dropped(1));
        }
        event_sender.finish();
        assert_eq!(received.try_iter().count(), 3);
    }

    #[test]
    fn a_training_without_progress_is_reported_once() {
        let event_sender = EventSender::default();
        let (out, received) = channel();
        event_sender.listen(Box::new(move |event| out.send(event).unwrap()));
        event_sender.0.state().hung_after = Some(Duration::from_millis(4));
        let progress_count: Arc<AtomicU64> = Arc::default();
        let position = Position::start_of(3);
        let guard = event_sender.watch(Watched {
            progress_count: progress_count.clone(),
            position: Arc::new(move || Some(position)),
        });
        let event = received.recv().unwrap();
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
        // After progress it may hang again.
        progress_count.fetch_add(1, Ordering::Relaxed);
        assert_eq!(received.recv().unwrap().name(), "hung");
        drop(guard);
        event_sender.finish();
        assert_eq!(received.try_iter().count(), 0);
    }
}
