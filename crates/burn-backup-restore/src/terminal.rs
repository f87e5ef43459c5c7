//! Detects whether a program such as Burn's dashboard draws on the whole terminal.

use std::io::{self, IsTerminal as _};
use std::thread;
use std::time::{Duration, Instant};

/// Burn's dashboard sets up the terminal on its own thread, which takes some milliseconds.
const SETUP: Duration = Duration::from_millis(100);
const LOOKS_EVERY: Duration = Duration::from_millis(5);

/// Whether the standard output and the standard error are terminals.
pub(crate) fn is_shown() -> bool {
    io::stdout().is_terminal() && io::stderr().is_terminal()
}

/// Waits until the terminal is in raw mode, or until a dashboard would have put it there.
///
/// Lines that are printed after that would be lost on the dashboard. Lines that are printed before are kept.
pub(crate) fn wait_for_dashboard() {
    let began = Instant::now();
    while is_shown() && is_raw() == Some(false) && began.elapsed() < SETUP {
        thread::sleep(LOOKS_EVERY);
    }
}

/// Whether the terminal is in raw mode. A dashboard sets it, but a renderer that prints lines does not. `None` if
/// unknown.
#[cfg(unix)]
pub(crate) fn is_raw() -> Option<bool> {
    use rustix::termios::{LocalModes, tcgetattr};

    let modes = tcgetattr(io::stdout()).ok()?.local_modes;
    Some(!modes.contains(LocalModes::ICANON))
}

/// Whether the terminal is in raw mode, which is unknown on this system.
#[cfg(not(unix))]
pub(crate) fn is_raw() -> Option<bool> {
    None
}
