//! Waiting for what Burn works out on a thread of its own, behind the training.

use std::sync::{Condvar, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How often it is looked whether metrics will still come.
const LOOK: Duration = Duration::from_millis(100);

/// How long they are waited for while nothing is heard of them. At an epoch's end some metrics compute for long.
const PATIENCE: Duration = Duration::from_secs(600);

/// The same once the training has failed, and with it perhaps what works them out.
const SHORT_PATIENCE: Duration = Duration::from_secs(1);

/// How far whoever hears of metrics is.
pub(super) struct Heard {
    /// How many calls have come.
    pub calls: u64,
    /// No more will come.
    pub is_abandoned: bool,
}

/// Waits until a moment is `reached`; nothing if it won't be. `heard` tells how far a state is, changes of which are
/// `told`. `has_failed` says whether the training has.
pub(super) fn wait<S, T: Clone>(
    mut state: MutexGuard<'_, S>,
    told: &Condvar,
    heard: impl Fn(&S) -> Heard,
    reached: &OnceLock<T>,
    has_failed: impl Fn() -> bool,
) -> Option<T> {
    let mut last = (heard(&state).calls, Instant::now());
    loop {
        if let Some(moment) = reached.get() {
            return Some(moment.clone());
        }
        let now = heard(&state);
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
        let waited = told.wait_timeout(state, LOOK);
        (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
    }
}
