//! Gives the training priority over mirroring.

/// Lets this thread, and those that it starts, run only when no other thread needs the processor.
///
/// `SCHED_IDLE` yields at once to any other thread that wakes up. A low priority (`nice`) does not. A training with a
/// few threads that wait for each other was measured beside a thread that computes all the time. The training lost
/// 23 % beside a thread of priority 19, and 9 % beside one under `SCHED_IDLE`.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the standard library can't set priorities")]
pub(crate) fn lower() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the call reads the parameters, and 0 is the calling thread. If it fails, the thread keeps its priority.
    let lowered = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &parameters) };
    if lowered != 0 {
        log::debug!(target: crate::LOG, "the mirror's thread keeps the training's priority");
    }
}

/// On other systems, a priority applies to the whole process.
#[cfg(not(target_os = "linux"))]
pub(crate) fn lower() {}
