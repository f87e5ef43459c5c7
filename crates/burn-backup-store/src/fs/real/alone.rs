//! Checks that no other process has a file open. The standard library can't do this.

use std::fs::File;

/// The number of a kernel command that the crate `libc` does not define (`asm-generic/fcntl.h`).
#[cfg(target_os = "linux")]
const F_SETSIG: libc::c_int = 10;

/// Whether no other process has this file open or mapped. False if the platform can't tell.
///
/// Linux grants a write lease only on such a file (fcntl(2), `F_SETLEASE`). File systems without leases, such as NFS,
/// refuse it.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "neither std nor rustix has leases")]
pub(super) fn has_open_alone(file: &File) -> bool {
    use std::os::fd::AsRawFd as _;

    let control = |command: libc::c_int, argument: libc::c_int| {
        // SAFETY: the descriptor is open while `file` is borrowed, and both commands take an int.
        unsafe { libc::fcntl(file.as_raw_fd(), command, argument) == 0 }
    };
    // If another process opens the file while the lease is held, the kernel sends a signal to the lease holder. The
    // default is SIGIO, which ends a process. SIGURG is ignored by default.
    control(F_SETSIG, libc::SIGURG)
        && control(libc::F_SETLEASE, libc::F_WRLCK)
        && control(libc::F_SETLEASE, libc::F_UNLCK)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn has_open_alone(_file: &File) -> bool {
    false
}
