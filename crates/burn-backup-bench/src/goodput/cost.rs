//! What the harness has to know beforehand: how long a step takes, and what a backup adds to the
//! training's time.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::bench::Bench;
use crate::goodput::policy::Policy;
use crate::goodput::run::{Run, undisturbed};
use crate::goodput::trainee::Training;
use crate::goodput::young_daly;
use crate::spread::Spread;
use crate::state::State;

/// The first steps of a process are slower than the others.
const WARM_UP: usize = 8;

/// How long a step of `state` takes without backups.
pub fn step(bench: &Bench, state: State) -> Result<Duration> {
    let (batches, rounds) = if bench.is_quick() { (64, 1) } else { (128, 3) };
    let mut steps = Vec::new();
    for _ in 0..rounds {
        let time = time(bench, one_epoch(state, batches), Policy::Without)?;
        steps.push(time.as_secs_f64() / (batches - WARM_UP) as f64);
    }
    Ok(Duration::from_secs_f64(Spread::of(steps)?.median))
}

/// What a backup that no other is waiting for adds to the time of a training of such steps: the
/// difference between trainings with and without, which take turns, over the number of backups. In
/// seconds.
pub fn backup(bench: &Bench, state: State, step: Duration) -> Result<Spread> {
    let (every, backups, rounds) = if bench.is_quick() {
        (Duration::from_millis(100), 4, 2)
    } else {
        (Duration::from_millis(500), 10, 5)
    };
    let every = young_daly::steps(every, step);
    // The last backup is durable before the end; the first comes after the warm-up.
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

/// From the end of the warm-up to the last batch.
fn time(bench: &Bench, training: Training, policy: Policy) -> Result<Duration> {
    let dir = bench.scratch()?;
    let run = undisturbed(training, policy, dir.path())?;
    between(&run, WARM_UP).context("too few batches were trained")
}

/// From the end of the first `warm_up` batches to the end of the last one, in the first process.
fn between(run: &Run, warm_up: usize) -> Option<Duration> {
    let batches = &run.processes.first()?.batches;
    let first = batches.get(warm_up.checked_sub(1)?)?;
    Some(*batches.last()? - *first)
}
