//! Passes on the error output of a command, and keeps its last lines.

use std::collections::VecDeque;
use std::io::{self, Read, Write as _};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// The number of lines to keep.
const LINES: usize = 20;

/// How long to wait for the output's end after the command has ended, because another process may have it open.
const LIMIT: Duration = Duration::from_secs(1);

/// A longer line is cut.
const MAX_LINE_BYTES: usize = 1000;

/// Passes on the output until it ends.
pub struct Tail {
    lines: Arc<Mutex<Lines>>,
    /// A channel without messages that is closed at the end of the output.
    ended: Receiver<()>,
}

#[derive(Default)]
struct Lines {
    whole: VecDeque<Vec<u8>>,
    last: Vec<u8>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.last);
                    self.whole.push_back(line);
                    if self.whole.len() > LINES {
                        self.whole.pop_front();
                    }
                }
                // A carriage return overwrites the line.
                b'\r' => self.last.clear(),
                byte if self.last.len() < MAX_LINE_BYTES => self.last.push(*byte),
                _ => {}
            }
        }
    }

    fn text(&self) -> Vec<String> {
        let last = Some(&self.last).filter(|last| !last.is_empty());
        let lines = self.whole.iter().chain(last);
        let text = lines.map(|line| String::from_utf8_lossy(line).into_owned());
        let text: Vec<_> = text.collect();
        let surplus = text.len().saturating_sub(LINES);
        text.into_iter().skip(surplus).collect()
    }
}

impl Tail {
    pub fn of(mut source: impl Read + Send + 'static) -> io::Result<Self> {
        let lines = Arc::new(Mutex::new(Lines::default()));
        let kept = lines.clone();
        let (end, ended) = channel::<()>();
        let thread = thread::Builder::new().name("error-output".to_owned());
        thread.spawn(move || {
            let _end = end;
            let mut buffer = [0; 4096];
            loop {
                let read = match source.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(read) => buffer.get(..read).unwrap_or_default(),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(_) => return,
                };
                // If the standard error is closed, there is no other place to report it.
                let _ = io::stderr().lock().write_all(read);
                kept.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(read);
            }
        })?;
        Ok(Self { lines, ended })
    }

    /// Waits for the output's end, and returns the last lines.
    pub fn finish(self) -> Vec<String> {
        // Both results are errors: the channel is closed, or the time is over.
        let _ = self.ended.recv_timeout(LIMIT);
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_stay() {
        let mut lines = Lines::default();
        for number in 0..100 {
            lines.push(format!("line {number}\n").as_bytes());
        }
        lines.push(b"10 %\r20 %\rpan");
        lines.push(b"icked");
        let text = lines.text();
        assert_eq!(text.len(), LINES);
        assert_eq!(text.first().unwrap(), "line 81");
        assert_eq!(
            text.last().unwrap(),
            "20 %panicked".trim_start_matches("20 %")
        );
        lines.push(&vec![b'x'; 5000]);
        assert_eq!(lines.text().last().unwrap().len(), MAX_LINE_BYTES);
    }
}
