//! One training from its first start to its end, all restarts included.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::goodput::newest_whole::newest_whole;
use crate::goodput::policy::{Policy, burns_directory};
use crate::goodput::process::{Event, Process};
use crate::goodput::trainee::{Alone, Mark, Training};

/// A training, by what its processes did.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// From the first start to the end.
    pub wall: Duration,
    /// Each of its processes, in order.
    pub processes: Vec<Life>,
    /// Whether it ran to its end. One that takes too long is given up.
    pub is_finished: bool,
}

/// What one process did.
#[derive(Debug, Clone, Default)]
pub struct Life {
    /// How many batches were trained when it began to train.
    pub resumed_at: Option<u64>,
    /// When it had trained each of its batches, since the first start or the last kill.
    pub batches: Vec<Duration>,
    /// How long it lived, from there on.
    pub lasted: Duration,
}

impl Life {
    /// How far the training was when it ended.
    pub fn reached(&self) -> Option<u64> {
        Some(self.resumed_at? + self.batches.len() as u64)
    }

    fn hear(&mut self, started: Instant, at: Instant, mark: Mark) -> Result<()> {
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
    /// How far the training ever was.
    pub fn reached(&self) -> u64 {
        self.processes
            .iter()
            .filter_map(Life::reached)
            .max()
            .unwrap_or(0)
    }
}

/// Trains without being killed.
pub fn undisturbed(training: Training, policy: Policy, dir: &Path) -> Result<Run> {
    train(training, policy, dir, std::iter::empty(), Duration::MAX)
}

/// Trains, kills the process after each of the `gaps` and starts it again, until the training is
/// done or that has taken as long as `at_most`.
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
        let alone = Alone::new(training, dir.to_owned(), policy).at_checkpoint(checkpoint);
        let (life, killed) = live(&alone, since, kill_at)?;
        run.processes.push(life);
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

/// One process, and when it was killed if it was.
fn live(
    alone: &Alone,
    since: Instant,
    kill_at: Option<Instant>,
) -> Result<(Life, Option<Instant>)> {
    let mut life = Life::default();
    let process = Process::start(alone)?;
    loop {
        match process.next(kill_at) {
            Event::Mark(at, mark) => life.hear(since, at, mark)?,
            Event::Ended => {
                process.end()?;
                life.lasted = since.elapsed();
                return Ok((life, None));
            }
            Event::DeadlinePassed => {
                let killed = Instant::now();
                life.lasted = killed.saturating_duration_since(since);
                for (at, mark) in process.kill()? {
                    life.hear(since, at, mark)?;
                }
                return Ok((life, Some(killed)));
            }
        }
    }
}
