//! A training's process, watched and killed by this one.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read};
use std::path::PathBuf;
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::goodput::trainee::{Alone, Mark};

/// A process that trains. It is killed when it is dropped.
pub struct Process {
    child: Child,
    /// Where its standard error goes, in which each restart is announced. It is for those only who
    /// look for a failure's cause.
    errors: PathBuf,
    marks: Receiver<(Instant, Mark)>,
}

/// What happens next.
#[derive(Debug)]
pub enum Event {
    /// The process said something, then.
    Mark(Instant, Mark),
    /// It says no more.
    Ended,
    /// Nothing until the deadline.
    DeadlinePassed,
}

impl Process {
    /// Starts it.
    pub fn start(alone: &Alone) -> Result<Self> {
        let errors = alone.dir().join("standard-error");
        let file = File::create(&errors).with_context(|| format!("cannot create {errors:?}"))?;
        let mut child = alone.child()?.start(file)?;
        let stdout = child.stdout.take().context("the process has no output")?;
        let (sender, marks) = channel();
        std::thread::spawn(move || read(stdout, &sender));
        Ok(Self {
            child,
            errors,
            marks,
        })
    }

    /// Waits until something happens, or for the deadline if there is one.
    pub fn next(&self, deadline: Option<Instant>) -> Event {
        let received = match deadline {
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                self.marks.recv_timeout(left)
            }
            None => self.marks.recv().map_err(RecvTimeoutError::from),
        };
        match received {
            Ok((at, mark)) => Event::Mark(at, mark),
            Err(RecvTimeoutError::Timeout) => Event::DeadlinePassed,
            Err(RecvTimeoutError::Disconnected) => Event::Ended,
        }
    }

    /// Kills it, and gives what it had said last and nobody had heard yet.
    pub fn kill(mut self) -> Result<Vec<(Instant, Mark)>> {
        self.child.kill().context("a training can't be killed")?;
        self.child
            .wait()
            .context("a training can't be waited for")?;
        Ok(self.marks.iter().collect())
    }

    /// Waits for the end of a process that says no more.
    pub fn end(mut self) -> Result<()> {
        let status = self
            .child
            .wait()
            .context("a training can't be waited for")?;
        ensure!(
            status.success(),
            "a training failed: {status}\n{}",
            fs::read_to_string(&self.errors).unwrap_or_default(),
        );
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Of a process that has ended, neither does anything.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends with the output, or when nobody listens any more.
fn read(stdout: impl Read, marks: &Sender<(Instant, Mark)>) {
    let lines = BufReader::new(stdout).lines().map_while(|line| line.ok());
    for line in lines {
        let Ok(mark) = serde_json::from_str(&line) else {
            // The last line of a process that was killed can be cut short.
            return;
        };
        if marks.send((Instant::now(), mark)).is_err() {
            return;
        }
    }
}
