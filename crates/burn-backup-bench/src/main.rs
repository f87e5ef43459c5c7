//! Backups measured against Burn's own checkpoints and the raw disk.
//!
//! ```text
//! cargo run --release -p burn-backup-bench
//! ```
//!
//! prints a table and writes `backup-bench.json`. Each measurement is in a module of its own, which
//! says how it is done:
//!
//! ```text
//! stall      how long a backup holds the training thread
//! overhead   what backups add to a training's time
//! persist    how fast backups get to the disk
//! restore    how long it takes to continue a training
//! memory     how much memory backups take
//! loading    how long a loader that can be taken up anywhere takes for its batches
//! session    what a session adds to each step of a loop that is written by hand
//! ```
//!
//! All but the last two have the same training watched, of a model that is nothing but parameters ([`model`],
//! [`state`]), from its loader ([`feed`]), which is called on the training thread between any two
//! steps.

mod bench;
mod burns;
mod child;
mod feed;
mod loading;
mod machine;
mod memory;
mod model;
mod number;
mod options;
mod ours;
mod overhead;
mod persist;
mod raw_disk;
mod renderer;
mod restore;
mod row;
mod session;
mod spread;
mod stall;
mod state;
mod table;
mod training;
mod variant;

use std::fs;
use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use clap::Parser as _;
use peak_alloc::PeakAlloc;
use serde::Serialize;

use crate::bench::Bench;
use crate::machine::Machine;
use crate::options::{Measurement, Options, Task};
use crate::row::Row;

/// Knows the most memory that was ever allocated.
#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// What the JSON file holds.
#[derive(Serialize)]
struct Report {
    machine: Machine,
    is_quick: bool,
    rows: Vec<Row>,
}

fn main() -> Result<()> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let options = Options::parse();
    match &options.task {
        Some(Task::Peak(alone)) => memory::train_alone(alone),
        Some(Task::Turns(alone)) => overhead::take_turns_alone(alone),
        None => measure_all(&options),
    }
}

fn measure_all(options: &Options) -> Result<()> {
    let dir = tempfile::Builder::new()
        .prefix("burn-backup-bench-")
        .tempdir_in(&options.dir)
        .with_context(|| format!("cannot make a directory in {:?}", options.dir))?;
    let dir_given = fs::canonicalize(&options.dir).context("the directory has no full path")?;
    let bench = Bench::new(dir.path(), options.quick);

    let mut rows = Vec::new();
    for measurement in options.measurements() {
        rows.extend(measure(&bench, measurement)?);
    }
    let table = table::render(&rows);
    let report = Report {
        machine: Machine::here(&dir_given),
        is_quick: options.quick,
        rows,
    };
    let json = serde_json::to_string_pretty(&report)?;
    fs::write(&options.json, json).with_context(|| format!("cannot write {:?}", options.json))?;
    write!(io::stdout(), "{table}").context("cannot print the table")
}

fn measure(bench: &Bench, measurement: Measurement) -> Result<Vec<Row>> {
    match measurement {
        Measurement::Stall => stall::measure(bench),
        Measurement::Overhead => overhead::measure(bench),
        Measurement::Persist => persist::measure(bench),
        Measurement::Restore => restore::measure(bench),
        Measurement::Memory => memory::measure(bench),
        Measurement::Loading => loading::measure(bench),
        Measurement::Session => session::measure(bench),
    }
}
