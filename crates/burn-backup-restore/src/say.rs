//! What people are told directly, on the standard error.

use std::io::{self, Write as _};

/// Writes a line to the standard error, in one piece.
///
/// A standard error that is closed or full loses the line and nothing else, where `eprintln!` would
/// panic: in the middle of a restore, or in a `drop`.
pub(crate) fn say(line: &str) {
    let line = format!("{line}\n");
    // There is nobody left to tell.
    let _ = io::stderr().lock().write_all(line.as_bytes());
}
