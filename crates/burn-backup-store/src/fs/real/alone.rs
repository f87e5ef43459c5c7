//! Whether nobody else has a file open. The standard library can't ask.

use std::fs::File;

/// The kernel's number of a command that the crate `libc` has no name for (`asm-generic/fcntl.h`).
#[cfg(target_os = "linux")]
const F_SETSIG: libc::c_int = 10;

/// Whether nobody else has this file open or mapped. False where that can't be told.
///
/// Linux grants a write lease to such a file only (fcntl(2), `F_SETLEASE`). File systems without leases, such
/// as NFS, refuse it.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "neither std nor rustix has leases")]
pub(super) fn has_open_alone(file: &File) -> bool {
    use std::os::fd::AsRawFd as _;

    let control = |command: libc::c_int, argument: libc::c_int| {
        // SAFETY: the descriptor is open as long as `file` is borrowed, and both commands take an int.
        unsafe { libc::fcntl(file.as_raw_fd(), command, argument) == 0 }
    };
    // Who opens the file while the lease is held has the kernel send a signal. By default that is SIGIO, which
    // ends a process; this one is ignored.
    control(F_SETSIG, libc::SIGURG)
        && control(libc::F_SETLEASE, libc::F_WRLCK)
        && control(libc::F_SETLEASE, libc::F_UNLCK)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn has_open_alone(_file: &File) -> bool {
    false
}
