//! The process of a training, which this program watches and kills.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read};
use std::path::PathBuf;
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::goodput::trainee::{ChildArgs, Mark};

/// A process that trains. It is killed when it is dropped.
pub struct Process {
    child: Child,
    /// The file for its standard error, which also announces each restart. It helps to find the
    /// cause of a failure.
    errors: PathBuf,
    marks: Receiver<(Instant, Mark)>,
}

/// The next event of a process.
#[derive(Debug)]
pub enum Event {
    /// The process reported this mark at this time.
    Mark(Instant, Mark),
    /// The process has closed its output.
    Ended,
    /// Nothing happened until the deadline.
    DeadlinePassed,
}

impl Process {
    /// Starts the process.
    pub fn start(args: &ChildArgs) -> Result<Self> {
        let errors = args.dir().join("standard-error");
        let file = File::create(&errors).with_context(|| format!("cannot create {errors:?}"))?;
        let mut child = args.child()?.start(file)?;
        let stdout = child.stdout.take().context("the process has no output")?;
        let (sender, marks) = channel();
        std::thread::spawn(move || read(stdout, &sender));
        Ok(Self {
            child,
            errors,
            marks,
        })
    }

    /// Waits for the next event, or until the deadline if there is one.
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

    /// Kills the process, and returns the marks that were not received yet.
    pub fn kill(mut self) -> Result<Vec<(Instant, Mark)>> {
        self.child.kill().context("a training can't be killed")?;
        self.child
            .wait()
            .context("a training can't be waited for")?;
        Ok(self.marks.iter().collect())
    }

    /// Waits for the end of a process that has closed its output.
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
        // Both calls have no effect on a process that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads marks until the output ends or the receiver is gone.
fn read(stdout: impl Read, marks: &Sender<(Instant, Mark)>) {
    let lines = BufReader::new(stdout).lines().map_while(|line| line.ok());
    for line in lines {
        let Ok(mark) = serde_json::from_str(&line) else {
            // A kill can cut the last line short.
            return;
        };
        if marks.send((Instant::now(), mark)).is_err() {
            return;
        }
    }
}
