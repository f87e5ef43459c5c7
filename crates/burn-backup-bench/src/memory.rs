//! How much memory continuous backups take beyond the training's own, relative to the size of the
//! backed-up state.
//!
//! Each training has its own process, because peaks can't be reset.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum as _};
use serde::{Deserialize, Serialize};

use crate::bench::Bench;
use crate::child::{Child, answer};
use crate::feed::EpochLengths;
use crate::goals::Goals;
use crate::row::{Goal, Row};
use crate::spread::Spread;
use crate::state::State;
use crate::variant::Variant;
use crate::{ALLOCATOR, ours, training};

/// The name of the measurement.
pub const NAME: &str = "memory";
/// The hidden subcommand that runs [`train_in_child`].
pub const SUBCOMMAND: &str = "peak";

const MAX_BLOCKING: f64 = 1.0;
const BATCHES: usize = 6;

/// The arguments of a process.
#[derive(Debug, Args)]
pub struct ChildArgs {
    #[arg(long, value_enum)]
    variant: Variant,
    #[arg(long, value_parser = State::named)]
    state: State,
    #[arg(long)]
    dir: PathBuf,
}

/// The answer of a process.
#[derive(Debug, Serialize, Deserialize)]
struct Peak {
    bytes: u64,
}

/// Measures the memory on all states.
pub fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for state in bench.states() {
        bench.announce(NAME, &state);
        rows.extend(measure_state(bench, &state)?);
    }
    Ok(rows)
}

fn measure_state(bench: &Bench, state: &State) -> Result<Vec<Row>> {
    let size = ours::backup_bytes(state, bench.scratch()?.path())?;
    let (mut ours, mut blocking, mut burns) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.turns() {
        let without = peak(bench, state, Variant::Without)?;
        let beyond = |variant| {
            let peak = peak(bench, state, variant)?;
            anyhow::Ok((peak as f64 - without as f64) / size as f64)
        };
        ours.push(beyond(Variant::Ours)?);
        blocking.push(beyond(Variant::Blocking)?);
        burns.push(beyond(Variant::Burns)?);
    }
    let burns = Spread::of(burns)?;
    let row = |what, ours, most| {
        let row = Row::new(NAME, state.name, what, "of state");
        row.ours(ours).burns(burns).goal(Goal::OursAtMost(most))
    };
    Ok(vec![
        row(
            "peak beyond training",
            Spread::of(ours)?,
            Goals::of(state).memory,
        ),
        row(
            "peak beyond training, blocking",
            Spread::of(blocking)?,
            MAX_BLOCKING,
        ),
    ])
}

/// Trains in a new process, and returns its peak of allocated memory.
fn peak(bench: &Bench, state: &State, variant: Variant) -> Result<u64> {
    let dir = bench.scratch()?;
    let variant = variant
        .to_possible_value()
        .context("this variant has no name")?;
    let peak: Peak = Child::new(SUBCOMMAND)?
        .option("--variant", variant.get_name())
        .option("--state", state.name)
        .option("--dir", dir.path())
        .run()?;
    Ok(peak.bytes)
}

/// Trains, and prints the peak of allocated memory.
pub fn train_in_child(args: &ChildArgs) -> Result<()> {
    let dir: &Path = &args.dir;
    let feed = args.state.feed(EpochLengths::all(1));
    let training = training::supervised(dir, feed, BATCHES);
    training::run(
        args.variant.add_to(training, dir),
        args.state.fresh_learner(),
    )?;
    let bytes = ALLOCATOR.peak_usage() as u64;
    answer(&Peak { bytes })
}
