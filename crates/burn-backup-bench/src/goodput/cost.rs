//! The costs that must be known beforehand: the time of a step, and the training time that a backup
//! adds.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::bench::Bench;
use crate::goodput::policy::Policy;
use crate::goodput::run::{Run, uninterrupted};
use crate::goodput::trainee::Training;
use crate::goodput::young_daly;
use crate::spread::Spread;
use crate::state::State;

/// The first steps of a process are slower than the others.
const WARM_UP: usize = 8;

/// The time of a step of `state` without backups.
pub fn step(bench: &Bench, state: State) -> Result<Duration> {
    let (batches, rounds) = if bench.is_quick() { (64, 1) } else { (128, 3) };
    let mut steps = Vec::new();
    for _ in 0..rounds {
        let time = time(bench, one_epoch(state, batches), Policy::Without)?;
        steps.push(time.as_secs_f64() / (batches - WARM_UP) as f64);
    }
    Ok(Duration::from_secs_f64(Spread::of(steps)?.median))
}

/// The training time that a backup adds if no other backup waits for it, in seconds.
///
/// Trainings with and without backups alternate. The result is their difference divided by the
/// number of backups.
pub fn backup(bench: &Bench, state: State, step: Duration) -> Result<Spread> {
    let (every, backups, rounds) = if bench.is_quick() {
        (Duration::from_millis(100), 4, 2)
    } else {
        (Duration::from_millis(500), 10, 5)
    };
    let every = young_daly::steps(every, step);
    // The first backup comes after the warm-up, and the last one is durable before the end.
    let training = one_epoch(state, every * backups + every / 2);
    let counted = (backups - WARM_UP / every) as f64;
    let mut costs = Vec::new();
    for _ in 0..rounds {
        let without = time(bench, training, Policy::Without)?;
        let with = time(bench, training, Policy::Steps(every))?;
        costs.push((with.as_secs_f64() - without.as_secs_f64()) / counted);
    }
    Spread::of(costs)
}

fn one_epoch(state: State, batches: usize) -> Training {
    Training {
        state,
        batches,
        epochs: 1,
    }
}

/// The time from the end of the warm-up to the last batch.
fn time(bench: &Bench, training: Training, policy: Policy) -> Result<Duration> {
    let dir = bench.scratch()?;
    let run = uninterrupted(training, policy, dir.path())?;
    between(&run, WARM_UP).context("too few batches were trained")
}

/// The time from the end of the first `warm_up` batches to the end of the last one, in the first
/// process.
fn between(run: &Run, warm_up: usize) -> Option<Duration> {
    let batches = &run.processes.first()?.batches;
    let first = batches.get(warm_up.checked_sub(1)?)?;
    Some(*batches.last()? - *first)
}
