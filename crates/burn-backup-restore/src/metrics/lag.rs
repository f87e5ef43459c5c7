//! Waiting for metrics that Burn computes on its own thread, behind the training.

use std::sync::{Condvar, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How often to check whether metrics can still arrive.
const LOOK: Duration = Duration::from_millis(100);

/// How long to wait while no metrics arrive. At the end of an epoch, some metrics take long to compute.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long to wait after the training has failed, because the thread that computes the metrics may have failed too.
const SHORT_PATIENCE: Duration = Duration::from_secs(1);

/// The progress of a receiver of metrics.
pub(super) struct ReceiverProgress {
    /// The number of calls so far.
    pub calls: u64,
    /// Whether no more calls will come.
    pub is_abandoned: bool,
}

/// Waits until a moment is `reached`. Returns `None` if it can't be reached. `progress` returns the progress recorded in
/// a state, and `changed` is notified when the state changes. `has_failed` says whether the training has failed.
pub(super) fn wait<S, T: Clone>(
    mut state: MutexGuard<'_, S>,
    changed: &Condvar,
    progress: impl Fn(&S) -> ReceiverProgress,
    reached: &OnceLock<T>,
    has_failed: impl Fn() -> bool,
) -> Option<T> {
    let mut last = (progress(&state).calls, Instant::now());
    loop {
        if let Some(moment) = reached.get() {
            return Some(moment.clone());
        }
        let now = progress(&state);
        if now.is_abandoned {
            return None;
        }
        if now.calls != last.0 {
            last = (now.calls, Instant::now());
        }
        let patience = match has_failed() {
            true => SHORT_PATIENCE,
            false => PATIENCE,
        };
        if last.1.elapsed() > patience {
            return None;
        }
        let waited = changed.wait_timeout(state, LOOK);
        (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
    }
}
