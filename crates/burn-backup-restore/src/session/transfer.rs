//! A line on a transfer that takes long.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crate::handle::whole_seconds;
use crate::mirror::Transfer;
use crate::say::say;

/// Shorter ones are over before anybody wonders.
const SHOWN_AFTER: Duration = Duration::from_secs(2);

/// How often the line is written anew where a terminal shows the last one only.
const ON_TERMINAL: Duration = Duration::from_millis(250);

/// How often another line is written elsewhere.
const ELSEWHERE: Duration = Duration::from_secs(10);

/// Says how far a transfer is, once it has taken two seconds.
pub(super) struct TransferLine {
    what: String,
    began: Instant,
    shown: Option<Instant>,
    is_terminal: bool,
}

impl TransferLine {
    pub(super) fn new(what: String) -> Self {
        Self {
            what,
            began: Instant::now(),
            shown: None,
            is_terminal: io::stderr().is_terminal(),
        }
    }

    pub(super) fn show(&mut self, transfer: Transfer) {
        let now = Instant::now();
        let every = match self.is_terminal {
            true => ON_TERMINAL,
            false => ELSEWHERE,
        };
        let is_due = match self.shown {
            None => now - self.began >= SHOWN_AFTER,
            Some(shown) => now - shown >= every,
        };
        if !is_due {
            return;
        }
        self.shown = Some(now);
        let line = format!("{}: {}", self.what, progress(transfer, now - self.began));
        match self.is_terminal {
            // Over the one before, to the end of the line.
            true => {
                let _ = write!(io::stderr().lock(), "\r{line}\u{1b}[K");
            }
            false => say(&line),
        }
    }

    /// What is written next begins on a line of its own.
    pub(super) fn end(&mut self) {
        if self.is_terminal && self.shown.take().is_some() {
            let _ = writeln!(io::stderr().lock());
        }
    }
}

impl Drop for TransferLine {
    fn drop(&mut self) {
        self.end();
    }
}

/// `120 of 756 MB, 60.0 MB/s, about 11s left`.
fn progress(transfer: Transfer, took: Duration) -> String {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let (done, of) = (megabytes(transfer.done), megabytes(transfer.of));
    let rate = done / took.as_secs_f64().max(f64::MIN_POSITIVE);
    let left = match rate > 0.0 {
        true => Duration::try_from_secs_f64((of - done).max(0.0) / rate).ok(),
        false => None,
    };
    match left {
        Some(left) => format!(
            "{done:.0} of {of:.0} MB, {rate:.1} MB/s, about {} left",
            whole_seconds(left),
        ),
        None => format!("{done:.0} of {of:.0} MB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_has_bytes_rate_and_time_left() {
        let shown = |done, of, seconds| {
            let mut transfer = Transfer::default();
            (transfer.done, transfer.of) = (done, of);
            progress(transfer, Duration::from_secs(seconds))
        };
        let expected = "120 of 756 MB, 60.0 MB/s, about 10s left";
        assert_eq!(shown(120_000_000, 756_000_000, 2), expected);
        assert_eq!(shown(0, 756_000_000, 2), "0 of 756 MB");
    }
}
