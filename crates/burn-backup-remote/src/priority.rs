//! The training comes first.

/// Has this thread, and those that it starts, work only where nobody else needs the processor.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the standard library has no priorities")]
pub(crate) fn lower() {
    /// The lowest priority that still gets some of a busy processor.
    const LOWEST: libc::c_int = 19;
    // SAFETY: it takes numbers, and 0 is the calling thread. Where it fails, the thread goes on as it is.
    let lowered = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, LOWEST) };
    if lowered != 0 {
        log::debug!(target: crate::LOG, "the mirror works with the training's priority");
    }
}

/// Elsewhere a priority is that of the whole process.
#[cfg(not(target_os = "linux"))]
pub(crate) fn lower() {}
