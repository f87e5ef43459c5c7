//! A progress line for a long transfer: reading, fetching or sending a backup.

mod dashboard;

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::LOG;
use crate::handle::whole_seconds;
use crate::messages::{has_dashboard, may_draw, print_line};
use crate::terminal;

/// Shorter transfers show no line.
const SHOWN_AFTER: Duration = Duration::from_secs(1);

/// How often the line is rewritten on a terminal.
const ON_TERMINAL: Duration = Duration::from_millis(250);

/// How often a new line is written to a file or the log.
const ELSEWHERE: Duration = Duration::from_secs(10);

/// Shows the progress of a transfer that takes more than a second, until it is dropped.
///
/// A separate thread writes the line, because the transfer may wait for a disk that does not respond.
pub(super) struct TransferLine {
    far: Arc<TransferProgress>,
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The progress of a transfer, in bytes.
#[derive(Default)]
struct TransferProgress {
    done: AtomicU64,
    of: AtomicU64,
}

/// Where the line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineTarget {
    /// A terminal, which shows only the last line.
    Terminal,
    /// The bottom border of Burn's dashboard.
    Dashboard,
    /// A file or a pipe.
    Stream,
    /// The log, because a renderer uses the terminal.
    Log,
}

impl LineTarget {
    fn find() -> Self {
        match (has_dashboard(), io::stderr().is_terminal()) {
            (true, _) if terminal::is_raw() == Some(true) && may_draw() => Self::Dashboard,
            (true, _) => Self::Log,
            (false, true) => Self::Terminal,
            (false, false) => Self::Stream,
        }
    }
}

impl TransferLine {
    pub(super) fn new(what: String) -> Self {
        let far = Arc::<TransferProgress>::default();
        let (end, ended) = channel();
        let shown = far.clone();
        let thread = thread::Builder::new().name("backup-line".to_owned());
        // Without a thread, no line is shown.
        let thread = thread.spawn(move || write(&what, &shown, &ended)).ok();
        Self {
            far,
            end: Some(end),
            thread,
        }
    }

    /// Sets the progress: `done` bytes out of `of`.
    pub(super) fn show(&self, done: u64, of: u64) {
        self.far.done.store(done, Ordering::Relaxed);
        self.far.of.store(of, Ordering::Relaxed);
    }
}

impl Drop for TransferLine {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // The panic hook has already reported a panic of that thread.
            drop(thread.join());
        }
    }
}

/// Writes the line until the sender of `ended` is dropped, then cleans up the terminal.
fn write(what: &str, far: &TransferProgress, ended: &Receiver<()>) {
    let began = Instant::now();
    let mut written = Written::default();
    let mut wait = SHOWN_AFTER;
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(wait) {
        let (done, of) = (&far.done, &far.of);
        let (done, of) = (done.load(Ordering::Relaxed), of.load(Ordering::Relaxed));
        let line = format!("{what}: {}", progress(done, of, began.elapsed()));
        written.write(&line, LineTarget::find());
        wait = ON_TERMINAL;
    }
    written.end();
}

/// What was written so far.
#[derive(Default)]
struct Written {
    is_on_terminal: bool,
    on_dashboard: dashboard::Border,
    /// When the last permanent line was written.
    last: Option<Instant>,
}

impl Written {
    fn write(&mut self, line: &str, place: LineTarget) {
        let is_due = self.last.is_none_or(|last| last.elapsed() >= ELSEWHERE);
        match place {
            // Overwrites the previous line and clears the rest of it.
            LineTarget::Terminal => {
                self.is_on_terminal = true;
                let _ = write!(io::stderr().lock(), "\r{line}\u{1b}[K");
            }
            LineTarget::Dashboard => self.on_dashboard.write(line),
            LineTarget::Stream | LineTarget::Log => {}
        }
        if is_due && place != LineTarget::Terminal {
            self.last = Some(Instant::now());
            match place {
                LineTarget::Stream => print_line(line),
                _ => log::info!(target: LOG, "{line}"),
            }
        }
    }

    /// Makes the next terminal output start on its own line.
    fn end(&mut self) {
        self.on_dashboard.clear();
        if self.is_on_terminal {
            let _ = writeln!(io::stderr().lock());
        }
    }
}

/// `120 of 756 MB, 60.0 MB/s, about 11s left`.
fn progress(done: u64, of: u64, took: Duration) -> String {
    if of == 0 {
        return format!("waiting, {} so far", whole_seconds(took));
    }
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let (done, of) = (megabytes(done), megabytes(of));
    let rate = done / took.as_secs_f64().max(f64::MIN_POSITIVE);
    // Show decimals for a small backup, so that it does not appear as 0 MB.
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
        let shown = |done, of| progress(done, of, Duration::from_secs(2));
        let expected = "120 of 756 MB, 60.0 MB/s, about 10s left";
        assert_eq!(shown(120_000_000, 756_000_000), expected);
        assert_eq!(shown(0, 756_000_000), "0 of 756 MB");
        assert_eq!(shown(0, 40_000), "0.000 of 0.040 MB");
        assert_eq!(shown(0, 0), "waiting, 2s so far");
    }
}
