//! Whether something draws on the whole terminal, as Burn's dashboard does.

use std::io::{self, IsTerminal as _};
use std::thread;
use std::time::{Duration, Instant};

/// Burn's dashboard sets up the terminal on a thread of its own, which takes some milliseconds.
const SETUP: Duration = Duration::from_millis(100);
const LOOKS_EVERY: Duration = Duration::from_millis(5);

/// Whether a person sees both streams on a terminal.
pub(crate) fn is_shown() -> bool {
    io::stdout().is_terminal() && io::stderr().is_terminal()
}

/// Waits until the terminal is in raw mode, or until a dashboard would have put it there.
///
/// What is written later than that would be lost on the dashboard; what is written earlier is not.
pub(crate) fn wait_for_dashboard() {
    let began = Instant::now();
    while is_shown() && is_raw() == Some(false) && began.elapsed() < SETUP {
        thread::sleep(LOOKS_EVERY);
    }
}

/// Whether the terminal is in raw mode: a dashboard sets it, and a renderer of lines does not. `None` if unknown.
#[cfg(unix)]
pub(crate) fn is_raw() -> Option<bool> {
    use rustix::termios::{LocalModes, tcgetattr};

    let modes = tcgetattr(io::stdout()).ok()?.local_modes;
    Some(!modes.contains(LocalModes::ICANON))
}

/// Whether the terminal is in raw mode; unknown on this system.
#[cfg(not(unix))]
pub(crate) fn is_raw() -> Option<bool> {
    None
}
