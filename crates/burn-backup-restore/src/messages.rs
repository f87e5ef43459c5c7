//! Messages to the user on the standard error.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::handle::BackupHandle;
use crate::terminal;

const LOG: &str = "burn_backup::restore";

/// Whether there is a renderer that may be Burn's dashboard. It is static because a process has one terminal.
static HAS_RENDERER: AtomicBool = AtomicBool::new(false);

/// Whether lines may be drawn on that dashboard.
static MAY_DRAW: AtomicBool = AtomicBool::new(false);

/// Writes a line to the standard error, in one piece.
///
/// If the standard error is closed or full, the line is lost. `eprintln!` would panic, perhaps in the middle of a
/// restore or in a `drop`.
pub(crate) fn print_line(line: &str) {
    let line = format!("{line}\n");
    // There is no other place to report the failure.
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

/// Logs the line, and prints it on the standard error unless Burn's dashboard has the terminal.
pub(crate) fn announce(line: &str) {
    log::info!(target: LOG, "{line}");
    if !has_dashboard() {
        print_line(line);
    }
}

/// Logs a warning that the user must see, and prints it on the standard error. If Burn's dashboard has the terminal,
/// the dashboard shows the warning, and it is printed when the terminal is free.
pub(crate) fn warn(handle: &BackupHandle, message: &str) {
    log::warn!(target: LOG, "{message}");
    match has_dashboard() {
        true => handle.note(message.to_owned()),
        false => print_line(&format!("warning: {message}")),
    }
}

/// A training with Burn's builder begins. Its renderer, which may be the dashboard, has the terminal until it is
/// dropped.
pub(crate) fn leave_terminal_to_renderer(may_draw: bool) {
    MAY_DRAW.store(may_draw, Ordering::Relaxed);
    HAS_RENDERER.store(true, Ordering::Relaxed);
    terminal::wait_for_dashboard();
}

/// The renderer was dropped.
pub(crate) fn terminal_is_given_back() {
    HAS_RENDERER.store(false, Ordering::Relaxed);
}

/// Whether Burn's dashboard may have the terminal.
pub(crate) fn has_dashboard() -> bool {
    let has_renderer = HAS_RENDERER.load(Ordering::Relaxed);
    has_renderer && terminal::is_shown() && terminal::is_raw() != Some(false)
}

/// Whether this crate may draw lines on the dashboard.
pub(crate) fn may_draw() -> bool {
    MAY_DRAW.load(Ordering::Relaxed)
}
