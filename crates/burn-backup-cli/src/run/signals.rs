//! The signals that are passed on to the command.

use std::io;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

/// Receives the signals of this process.
pub struct Signals {
    received: Receiver<i32>,
}

impl Signals {
    /// Handles the signals, so that none of them ends this process.
    pub fn handle() -> io::Result<Self> {
        let handled = [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGCHLD];
        let mut signals = signal_hook::iterator::Signals::new(handled)?;
        let (out, received) = channel();
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                for signal in signals.forever() {
                    if out.send(signal).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self { received })
    }

    /// The next signal to pass on, if one arrives within that time. It returns earlier if a child has ended.
    pub fn next(&self, within: Duration) -> Option<Signal> {
        let signal = self.received.recv_timeout(within).ok()?;
        Signal::try_from(signal)
            .ok()
            .filter(|signal| *signal != Signal::SIGCHLD)
    }
}

/// Whether a signal asks the command to end. Other signals may have any meaning for a program.
pub fn ends(signal: Signal) -> bool {
    matches!(signal, Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT)
}
