//! A line on a transfer that takes long.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use super::LOG;
use crate::handle::whole_seconds;
use crate::mirror::Transfer;
use crate::say::{has_dashboard, say};

/// Shorter ones are over before anybody wonders.
const SHOWN_AFTER: Duration = Duration::from_secs(2);

/// How often the line is written anew on a terminal.
const ON_TERMINAL: Duration = Duration::from_millis(250);

/// How often another line is written to a file or the log.
const ELSEWHERE: Duration = Duration::from_secs(10);

/// Says how far a transfer is, once it has taken two seconds.
pub(super) struct TransferLine {
    what: String,
    began: Instant,
    shown: Option<Instant>,
    place: Place,
}

/// Where the line is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A terminal, which shows the last one only.
    Terminal,
    /// A file, or a pipe.
    Stream,
    /// The log, because Burn's dashboard has the terminal.
    Log,
}

impl Place {
    fn find() -> Self {
        match (has_dashboard(), io::stderr().is_terminal()) {
            (true, _) => Self::Log,
            (false, true) => Self::Terminal,
            (false, false) => Self::Stream,
        }
    }

    /// How often it is written.
    fn interval(self) -> Duration {
        match self {
            Self::Terminal => ON_TERMINAL,
            Self::Stream | Self::Log => ELSEWHERE,
        }
    }
}

impl TransferLine {
    pub(super) fn new(what: String) -> Self {
        Self {
            what,
            began: Instant::now(),
            shown: None,
            place: Place::find(),
        }
    }

    pub(super) fn show(&mut self, transfer: Transfer) {
        let now = Instant::now();
        let is_due = match self.shown {
            None => now - self.began >= SHOWN_AFTER,
            Some(shown) => now - shown >= self.place.interval(),
        };
        if !is_due {
            return;
        }
        self.shown = Some(now);
        let line = format!("{}: {}", self.what, progress(transfer, now - self.began));
        match self.place {
            // Over the one before, to the end of the line.
            Place::Terminal => {
                let _ = write!(io::stderr().lock(), "\r{line}\u{1b}[K");
            }
            Place::Stream => say(&line),
            Place::Log => log::info!(target: LOG, "{line}"),
        }
    }

    /// What is written next begins on a line of its own.
    pub(super) fn end(&mut self) {
        if self.place == Place::Terminal && self.shown.take().is_some() {
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
    if transfer.of == 0 {
        return "waiting for the mirror".to_owned();
    }
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let (done, of) = (megabytes(transfer.done), megabytes(transfer.of));
    let rate = done / took.as_secs_f64().max(f64::MIN_POSITIVE);
    // Of a small backup, the megabytes that are shown are not all zero.
    let digits = if of < 10.0 { 3 } else { 0 };
    let left = match rate > 0.0 {
        true => Duration::try_from_secs_f64((of - done).max(0.0) / rate).ok(),
        false => None,
    };
    match left {
        Some(left) => format!(
            "{done:.digits$} of {of:.digits$} MB, {rate:.1} MB/s, about {} left",
            whole_seconds(left),
        ),
        None => format!("{done:.digits$} of {of:.digits$} MB"),
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
        assert_eq!(shown(0, 40_000, 2), "0.000 of 0.040 MB");
        assert_eq!(shown(0, 0, 2), "waiting for the mirror");
    }
}
