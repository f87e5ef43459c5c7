//! What people are told directly, on the standard error.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::handle::BackupHandle;
use crate::terminal;

const LOG: &str = "burn_backup::restore";

/// Whether a training runs, or ran, whose renderer may be Burn's dashboard. A process has one terminal.
static HAS_RENDERER: AtomicBool = AtomicBool::new(false);

/// Whether it may be drawn on, where it is Burn's dashboard.
static MAY_DRAW: AtomicBool = AtomicBool::new(false);

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

/// A training of Burn's builder begins: its renderer, which may be the dashboard, has the terminal until it is dropped.
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

/// Whether a line of ours may be drawn on the dashboard.
pub(crate) fn may_draw() -> bool {
    MAY_DRAW.load(Ordering::Relaxed)
}
