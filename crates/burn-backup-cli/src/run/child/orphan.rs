//! Linux functions for a process and its children.

use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// Makes the process receive SIGTERM when this one is killed. It then saves and ends, and the next supervisor starts
/// another one.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the standard library can't ask for it")]
pub fn end_with_parent(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;

    let parent = nix::unistd::getpid();
    // SAFETY: between the fork and the program it makes two system calls, and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
            // The parent may have been killed before the call.
            match nix::unistd::getppid() == parent {
                true => Ok(()),
                false => Err(nix::errno::Errno::ESRCH.into()),
            }
        });
    }
}

/// On other systems the process continues. It holds the lock of the backup until it ends.
#[cfg(not(target_os = "linux"))]
pub fn end_with_parent(_command: &mut Command) {}

/// Whether a process handles a signal, so that the signal does not end it.
#[cfg(target_os = "linux")]
pub fn handles(pid: Pid, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    status.is_ok_and(|status| is_caught(&status, signal))
}

/// Unknown on this system.
#[cfg(not(target_os = "linux"))]
pub fn handles(_pid: Pid, _signal: Signal) -> bool {
    false
}

/// Whether `/proc/<pid>/status` lists the signal as caught.
#[cfg(target_os = "linux")]
fn is_caught(status: &str, signal: Signal) -> bool {
    let mut lines = status.lines();
    let caught = lines.find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal as u32 - 1)) != 0)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_status_lists_the_caught_signals() {
        let status = "Name:\ttrain\nSigIgn:\t0000000000001000\nSigCgt:\t0000000000000004\n";
        assert!(is_caught(status, Signal::SIGQUIT));
        assert!(!is_caught(status, Signal::SIGTERM));
        assert!(!is_caught("Name:\ttrain\n", Signal::SIGQUIT));
        assert!(!handles(nix::unistd::getpid(), Signal::SIGQUIT));
    }
}
