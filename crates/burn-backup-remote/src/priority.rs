//! The training comes first.

/// Has this thread, and those that it starts, work only where nobody else needs the processor.
///
/// `SCHED_IDLE` gives way at once to any other thread that wakes up. A low priority (`nice`) does not: a training of a few
/// threads that wait for each other lost 23 % beside a thread of priority 19 that computes all the time, and 9 % beside
/// one under `SCHED_IDLE`.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the standard library has no priorities")]
pub(crate) fn lower() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: it reads the parameters, and 0 is the calling thread. Where it fails, the thread goes on as it is.
    let lowered = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &parameters) };
    if lowered != 0 {
        log::debug!(target: crate::LOG, "the mirror works with the training's priority");
    }
}

/// Elsewhere a priority is that of the whole process.
#[cfg(not(target_os = "linux"))]
pub(crate) fn lower() {}
