//! What people are told directly, on the standard error.

use std::io::{self, IsTerminal as _, Write as _};

use crate::handle::BackupHandle;

const LOG: &str = "burn_backup::restore";

/// Writes a line to the standard error, in one piece.
///
/// A standard error that is closed or full loses the line and nothing else, where `eprintln!` would
/// panic: in the middle of a restore, or in a `drop`.
pub(crate) fn say(line: &str) {
    let line = format!("{line}\n");
    // There is nobody left to tell.
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

/// Says it to the training's user: in the log always, and on the standard error unless Burn's dashboard has
/// the terminal.
pub(crate) fn announce(line: &str) {
    log::info!(target: LOG, "{line}");
    if !has_dashboard() {
        say(line);
    }
}

/// Says what the training's user must know: as a warning in the log, and on the standard error. Where
/// Burn's dashboard has the terminal, the dashboard shows it, and it is said once the terminal is free.
pub(crate) fn warn(handle: &BackupHandle, message: &str) {
    log::warn!(target: LOG, "{message}");
    match has_dashboard() {
        true => handle.note(message.to_owned()),
        false => say(&format!("warning: {message}")),
    }
}

/// Whether Burn's dashboard may have the terminal.
fn has_dashboard() -> bool {
    io::stdout().is_terminal() && io::stderr().is_terminal()
}
