//! A second SIGINT or SIGTERM ends the process at once, unless it is a copy of the first. Some supervisors forward a
//! signal to a process that has already received it; the two arrive within milliseconds.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::LOG;

/// After this time a second signal always counts.
const ALWAYS_COUNTS_AFTER: Duration = Duration::from_secs(2);

/// Within this time a second signal is a copy of the first, even if a batch has ended: batches may be short.
const IS_COPY_WITHIN: Duration = Duration::from_millis(500);

/// The interval at which the thread checks the time.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Decides whether a second signal counts. Handlers only read and set flags; a thread checks the time.
pub(super) struct Repeats {
    shared: Arc<Shared>,
    /// Dropping it ends the thread.
    _stop: Sender<Infallible>,
}

#[derive(Default)]
struct Shared {
    /// Whether the first signal has arrived.
    has_arrived: Arc<AtomicBool>,
    /// Whether another signal counts.
    next_counts: Arc<AtomicBool>,
    first: Mutex<Option<FirstSignal>>,
}

/// The first signal.
#[derive(Clone, Copy)]
struct FirstSignal {
    seen: Instant,
    /// Whether the training has seen it, at a batch boundary.
    at_boundary: bool,
}

impl Repeats {
    /// Starts a thread that checks the time. If it can't be started, only batch boundaries check it.
    pub(super) fn watch() -> Self {
        let shared = Arc::new(Shared::default());
        let (stop, stopped) = channel::<Infallible>();
        let watched = shared.clone();
        let thread = std::thread::Builder::new()
            .name("backup-signals".to_owned())
            .spawn(move || {
                while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(CHECK_INTERVAL) {
                    watched.check(Instant::now(), false);
                }
            });
        if let Err(error) = thread {
            log::warn!(
                target: LOG,
                "cannot start a thread that watches for repeated signals; a second signal ends \
                 the process at once only after a batch has ended: {error}",
            );
        }
        Self {
            shared,
            _stop: stop,
        }
    }

    /// The flag that the handler sets when a signal arrives.
    pub(super) fn has_arrived(&self) -> Arc<AtomicBool> {
        self.shared.has_arrived.clone()
    }

    /// Whether a signal that arrives now ends the process at once.
    pub(super) fn next_counts(&self) -> Arc<AtomicBool> {
        self.shared.next_counts.clone()
    }

    /// Call this at a batch boundary.
    pub(super) fn at_boundary(&self) {
        self.shared.check(Instant::now(), true);
    }
}

impl Shared {
    fn check(&self, now: Instant, at_boundary: bool) {
        if !self.has_arrived.load(Ordering::SeqCst) {
            return;
        }
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let first = first.get_or_insert(FirstSignal {
            seen: now,
            at_boundary: false,
        });
        first.at_boundary |= at_boundary;
        let since = now.saturating_duration_since(first.seen);
        if counts(since, first.at_boundary) {
            self.next_counts.store(true, Ordering::SeqCst);
        }
    }
}

/// Whether a second signal counts this long after the first. `at_boundary` says whether a batch boundary has seen the
/// first.
fn counts(since_first: Duration, at_boundary: bool) -> bool {
    since_first >= ALWAYS_COUNTS_AFTER || (at_boundary && since_first >= IS_COPY_WITHIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_signal_counts_after_a_batch_boundary_or_two_seconds_but_not_within_milliseconds() {
        for (millis, at_boundary, expected) in [
            (0, false, false),
            (0, true, false),
            (499, true, false),
            (500, true, true),
            (500, false, false),
            (1999, false, false),
            (2000, false, true),
            (2000, true, true),
        ] {
            let since = Duration::from_millis(millis);
            assert_eq!(
                counts(since, at_boundary),
                expected,
                "{millis} {at_boundary}"
            );
        }
    }

    #[test]
    fn the_time_is_counted_from_the_first_signal_and_not_from_the_start() {
        let shared = Shared::default();
        let start = Instant::now();
        let next_counts = || shared.next_counts.load(Ordering::SeqCst);
        let hour = Duration::from_secs(3600);
        shared.check(start, true);
        shared.check(start + hour, true);
        shared.has_arrived.store(true, Ordering::SeqCst);
        shared.check(start + hour, false);
        shared.check(start + hour + IS_COPY_WITHIN, false);
        assert!(!next_counts(), "no batch has ended since");
        shared.check(start + hour + IS_COPY_WITHIN, true);
        assert!(next_counts());
    }

    #[test]
    fn a_training_without_a_boundary_is_ended_by_a_second_signal_after_two_seconds() {
        let shared = Shared::default();
        shared.has_arrived.store(true, Ordering::SeqCst);
        let start = Instant::now();
        shared.check(start, false);
        shared.check(start + ALWAYS_COUNTS_AFTER - CHECK_INTERVAL, false);
        assert!(!shared.next_counts.load(Ordering::SeqCst));
        shared.check(start + ALWAYS_COUNTS_AFTER, false);
        assert!(shared.next_counts.load(Ordering::SeqCst));
    }
}
