//! Measures backups against Burn's own checkpoints and the raw disk.
//!
//! ```text
//! cargo run --release -p burn-backup-bench
//! ```
//!
//! prints a table, and writes `backup-bench.json` and charts of it ([`charts`]). Each measurement has its own module,
//! which explains the method:
//!
//! ```text
//! stall      how long a backup pauses the training thread
//! overhead   what backups add to a training's time
//! persist    how fast backups reach the disk
//! restore    how long it takes to resume a training
//! memory     how much memory backups take
//! mirror     what a mirror costs, and how fast it is
//! loading    how long a loader that can resume anywhere takes for its batches
//! session    what a session adds to each step of a manual loop
//! goodput    how much of the time a repeatedly killed training makes progress
//! ```
//!
//! All measurements except mirror, loading and session use the same training. Its model has only parameters ([`model`],
//! [`state`]). Its loader ([`feed`]) runs callbacks on the training thread between any two steps.

mod bench;
mod burns;
mod charts;
mod child;
mod device;
mod feed;
mod goals;
mod goodput;
mod loading;
mod machine;
mod memory;
mod mirror;
mod model;
mod number;
mod options;
mod ours;
mod overhead;
mod persist;
mod raw_disk;
mod renderer;
mod report;
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
use std::path::Path;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use peak_alloc::PeakAlloc;

use crate::bench::Bench;
use crate::machine::Machine;
use crate::options::{Charts, Measurement, Options, Task};
use crate::report::Report;
use crate::row::Row;

/// Tracks the peak of allocated memory.
#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

fn main() -> Result<()> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let options = Options::parse();
    options.device.choose();
    match &options.task {
        Some(Task::Charts(charts)) => draw_again(charts),
        Some(Task::Peak(args)) => memory::train_in_child(args),
        Some(Task::Turns(args)) => overhead::take_turns_in_child(args),
        Some(Task::Train(args)) => goodput::train_in_child(args),
        Some(Task::Serve(args)) => mirror::serve_in_child(args),
        None => measure_all(&options),
    }
}

fn measure_all(options: &Options) -> Result<()> {
    let dir = tempfile::Builder::new()
        .prefix("burn-backup-bench-")
        .tempdir_in(&options.dir)
        .with_context(|| format!("cannot make a directory in {:?}", options.dir))?;
    let dir_given = fs::canonicalize(&options.dir).context("the directory has no full path")?;
    let bench = Bench::new(dir.path(), options.quick).of_states(&options.states);

    let report = measure(&bench, options, &Machine::here(&dir_given))?;
    report.write(&options.json)?;
    let beside = options.json.parent().unwrap_or(Path::new(""));
    show(&report, options.charts.as_deref().unwrap_or(beside))
}

/// Takes the measurements. Those of goodput take hours, so they are written one by one.
fn measure(bench: &Bench, options: &Options, machine: &Machine) -> Result<Report> {
    let report = |rows, outcomes| Report::new(machine.clone(), options.quick, rows, outcomes);
    let (mut rows, mut outcomes): (Vec<Row>, _) = (Vec::new(), Vec::new());
    for measurement in options.measurements() {
        rows.extend(match measurement {
            Measurement::Stall => stall::measure(bench)?,
            Measurement::Overhead => overhead::measure(bench)?,
            Measurement::Persist => persist::measure(bench)?,
            Measurement::Restore => restore::measure(bench)?,
            Measurement::Memory => memory::measure(bench)?,
            Measurement::Mirror => mirror::measure(bench)?,
            Measurement::Loading => loading::measure(bench)?,
            Measurement::Session => session::measure(bench)?,
            Measurement::Goodput => {
                outcomes = goodput::measure(bench, &options.goodput, |outcomes| {
                    report(rows.clone(), outcomes.to_vec()).write(&options.json)
                })?;
                Vec::new()
            }
        });
    }
    Ok(report(rows, outcomes))
}

fn draw_again(charts: &Charts) -> Result<()> {
    let mut reports = charts.from.iter().map(|path| Report::read(path));
    let first = reports.next().context("there is no report")??;
    let merged = reports.try_fold(first, |merged, later| anyhow::Ok(merged.merge(later?)))?;
    let beside = charts.from.first().and_then(|path| path.parent());
    let dir = charts.charts.as_deref().or(beside);
    show(&merged, dir.unwrap_or(Path::new("")))
}

/// Draws the charts into `dir`, and prints the table.
fn show(report: &Report, dir: &Path) -> Result<()> {
    charts::write(report, dir)?;
    write!(io::stdout(), "{}", table::render(&report.rows)).context("cannot print the table")
}
