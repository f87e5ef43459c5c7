//! One training from its first start to its end, including all restarts.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::goodput::newest_whole::newest_whole;
use crate::goodput::policy::{Policy, burns_directory};
use crate::goodput::process::{Event, Process};
use crate::goodput::trainee::{ChildArgs, Mark, Training};

/// A training as the sequence of its processes.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// The time from the first start to the end.
    pub wall: Duration,
    /// The processes, in order.
    pub processes: Vec<ProcessRun>,
    /// Whether the training finished. A training that takes too long is given up.
    pub is_finished: bool,
}

/// The course of one process.
#[derive(Debug, Clone, Default)]
pub struct ProcessRun {
    /// The number of batches already trained when the process began to train.
    pub resumed_at: Option<u64>,
    /// The time at which each batch was trained, since the first start or the last kill.
    pub batches: Vec<Duration>,
    /// The time until the process ended, since the first start or the last kill.
    pub lasted: Duration,
}

impl ProcessRun {
    /// The number of batches trained when the process ended.
    pub fn reached(&self) -> Option<u64> {
        Some(self.resumed_at? + self.batches.len() as u64)
    }

    fn record(&mut self, started: Instant, at: Instant, mark: Mark) -> Result<()> {
        match mark {
            Mark::Resumed(batches) => self.resumed_at = Some(batches),
            Mark::Trained(batches) => {
                self.batches.push(at.saturating_duration_since(started));
                ensure!(
                    self.reached() == Some(batches),
                    "a training that resumed after batch {:?} counts {batches} batches after {} more",
                    self.resumed_at,
                    self.batches.len(),
                );
            }
        }
        Ok(())
    }
}

impl Run {
    /// The highest number of batches that the training reached.
    pub fn reached(&self) -> u64 {
        self.processes
            .iter()
            .filter_map(ProcessRun::reached)
            .max()
            .unwrap_or(0)
    }
}

/// Trains without kills.
pub fn uninterrupted(training: Training, policy: Policy, dir: &Path) -> Result<Run> {
    train(training, policy, dir, std::iter::empty(), Duration::MAX)
}

/// Trains, kills the process after each of the `gaps`, and restarts it. Ends when the training is
/// done or has taken `at_most`.
pub fn train(
    training: Training,
    policy: Policy,
    dir: &Path,
    mut gaps: impl Iterator<Item = Duration>,
    at_most: Duration,
) -> Result<Run> {
    let mut run = Run::default();
    let started = Instant::now();
    let mut since = started;
    loop {
        let kill_at = gaps.next().map(|gap| since + gap);
        let checkpoint = match policy {
            Policy::Burns => newest_whole(&burns_directory(dir))?,
            _ => None,
        };
        let args = ChildArgs::new(training, dir.to_owned(), policy).at_checkpoint(checkpoint);
        let (process, killed) = run_process(&args, since, kill_at)?;
        run.processes.push(process);
        run.wall = started.elapsed();
        match killed {
            None => run.is_finished = true,
            Some(at) => since = at,
        }
        if run.is_finished || run.wall >= at_most {
            break;
        }
    }
    ensure!(
        !run.is_finished || run.reached() == training.total(),
        "a training of {} batches ended after {}",
        training.total(),
        run.reached(),
    );
    Ok(run)
}

/// Runs one process. Also returns the time of its kill, if it was killed.
fn run_process(
    args: &ChildArgs,
    since: Instant,
    kill_at: Option<Instant>,
) -> Result<(ProcessRun, Option<Instant>)> {
    let mut run = ProcessRun::default();
    let process = Process::start(args)?;
    loop {
        match process.next(kill_at) {
            Event::Mark(at, mark) => run.record(since, at, mark)?,
            Event::Ended => {
                process.end()?;
                run.lasted = since.elapsed();
                return Ok((run, None));
            }
            Event::DeadlinePassed => {
                let killed = Instant::now();
                run.lasted = killed.saturating_duration_since(since);
                for (at, mark) in process.kill()? {
                    run.record(since, at, mark)?;
                }
                return Ok((run, Some(killed)));
            }
        }
    }
}
