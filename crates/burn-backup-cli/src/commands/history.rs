//! `history`: shows the values of metrics by epoch, and where the training was resumed.

mod chart;
mod curves;
mod logs;
mod svg;

use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::Serialize;

use crate::atomic_write;
use crate::exit::{Exit, refuse};
use crate::output::{Output, Page, Report, moment};
use crate::place::Place;
use crate::source::Source;
use crate::training::{Position, Run, Training};
use curves::{Curve, curves};

/// Shows the values of metrics by epoch, and where the training was resumed
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A backup directory or the URL of a mirror
    pub place: Place,

    /// The generation's number; by default the newest one
    #[arg(long, value_name = "N")]
    pub generation: Option<u64>,

    /// Shows only this metric; can be given several times
    #[arg(long, value_name = "NAME")]
    pub metric: Vec<String>,

    /// Draws the charts as SVG to this file, and overwrites it
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,

    /// Burn's directory of metric logs, for metrics without values in the backup
    #[arg(long, value_name = "DIR")]
    pub logs: Option<PathBuf>,
}

/// The history of a training.
#[derive(Debug, Serialize)]
struct History {
    generation: u64,
    position: Option<Position>,
    metrics: Vec<Metric>,
    runs: Vec<Run>,
    svg: Option<PathBuf>,
}

/// A metric's values, in both splits.
#[derive(Debug, Serialize)]
struct Metric {
    metric: String,
    curves: Vec<Curve>,
}

pub fn run(args: &Args, output: &Output) -> Result<Exit> {
    let mut source = Source::open(&args.place)?;
    let manifest = source.pick(args.generation)?;
    let training = Training::of(&manifest);
    let logged = match &args.logs {
        Some(dir) => logs::read(dir)?,
        None => Vec::new(),
    };
    let history = History {
        generation: manifest.generation.number(),
        position: training.position,
        metrics: metrics(curves(training.history(), logged), &args.metric)?,
        runs: training.runs().to_vec(),
        svg: args.svg.clone(),
    };
    if let Some(path) = &args.svg {
        let drawn = svg::draw(&history.charts()).context("the charts can't be drawn")?;
        atomic_write::write(path, true, |file| {
            let written = std::io::Write::write_all(file, drawn.as_bytes());
            written.with_context(|| format!("cannot write '{}'", path.display()))
        })?;
    }
    output.print(&history)?;
    Ok(Exit::Good)
}

/// The requested metrics.
fn metrics(curves: Vec<Curve>, asked: &[String]) -> Result<Vec<Metric>> {
    let mut metrics: Vec<Metric> = Vec::new();
    for curve in curves {
        match metrics
            .iter_mut()
            .find(|metric| metric.metric == curve.metric)
        {
            Some(metric) => metric.curves.push(curve),
            None => metrics.push(Metric {
                metric: curve.metric.clone(),
                curves: vec![curve],
            }),
        }
    }
    let known: Vec<_> = metrics.iter().map(|metric| metric.metric.clone()).collect();
    if let Some(unknown) = asked.iter().find(|name| !known.contains(name)) {
        let known = match known.is_empty() {
            true => "none; metrics get their values at the end of an epoch".to_owned(),
            false => known.join(", "),
        };
        return Err(refuse(
            Exit::Failed,
            format!("there is no metric '{unknown}'. Known metrics: {known}"),
        ));
    }
    metrics.retain(|metric| asked.is_empty() || asked.contains(&metric.metric));
    Ok(metrics)
}

/// A chart of one metric.
pub struct Chart<'h> {
    pub title: &'h str,
    pub curves: &'h [Curve],
    /// Where the training was resumed, in epochs.
    pub resumed: Vec<f64>,
}

impl History {
    fn charts(&self) -> Vec<Chart<'_>> {
        let resumed: Vec<_> = self
            .runs
            .iter()
            .filter_map(|run| epochs(run.from?, self.position))
            .collect();
        let charts = self.metrics.iter().map(|metric| Chart {
            title: &metric.metric,
            curves: &metric.curves,
            resumed: resumed.clone(),
        });
        charts.collect()
    }
}

/// A position on the epoch axis. The value of an epoch is at the epoch's end, which is at its number. The number of
/// batches in an epoch is known from the `last` position, if that is in a later epoch.
fn epochs(position: Position, last: Option<Position>) -> Option<f64> {
    let whole = position.epoch.checked_sub(1)? as f64;
    let per_epoch = last.and_then(|last| {
        let epochs = last.epoch.checked_sub(1).filter(|epochs| *epochs > 0)?;
        Some(last.global_step.checked_sub(last.step_in_epoch)? as f64 / epochs as f64)
    });
    let inside = match per_epoch {
        Some(batches) if batches > 0.0 => (position.step_in_epoch as f64 / batches).min(1.0),
        _ if position.step_in_epoch > 0 => 0.5,
        _ => 0.0,
    };
    Some(whole + inside)
}

impl Report for History {
    fn show(&self, page: &mut Page) {
        page.field("generation", self.generation);
        page.field_if("position", self.position);
        if self.metrics.is_empty() {
            page.gap();
            page.line("No metric has values. Metrics get their values at the end of an epoch.");
        }
        for chart in self.charts() {
            page.heading(chart.title);
            chart::draw(&chart, page);
        }
        if !self.runs.is_empty() {
            page.heading("Runs");
            let titles = ["began", "from", "on", ">process", "ended"];
            page.table(&titles, self.runs.iter().map(columns).collect());
        }
        if let Some(svg) = &self.svg {
            page.gap();
            page.line(format!("The charts are in '{}'.", svg.display()));
        }
    }
}

fn columns(run: &Run) -> Vec<String> {
    let nothing = || "-".to_owned();
    let began = run
        .began
        .as_ref()
        .map(|began| match began.parse::<Timestamp>() {
            Ok(began) => moment(SystemTime::from(began)),
            Err(_) => began.clone(),
        });
    vec![
        began.unwrap_or_else(nothing),
        run.from
            .map_or_else(|| "the beginning".to_owned(), |from| from.to_string()),
        run.host.clone().unwrap_or_else(nothing),
        run.process
            .map_or_else(nothing, |process| process.to_string()),
        run.ended.clone().unwrap_or_else(nothing),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_inside_an_epoch_follows_from_its_batches() {
        let position = |epoch, step_in_epoch, global_step| Position {
            epoch,
            step_in_epoch,
            global_step,
        };
        let last = Some(position(3, 5, 25));
        let table = [
            (position(1, 0, 0), last, 0.0),
            (position(2, 0, 10), last, 1.0),
            (position(2, 5, 15), last, 1.5),
            (position(2, 99, 109), last, 2.0),
            (position(1, 3, 3), None, 0.5),
            (position(1, 3, 3), Some(position(1, 4, 4)), 0.5),
        ];
        for (at, last, expected) in table {
            assert_eq!(epochs(at, last), Some(expected), "{at}");
        }
        assert_eq!(epochs(position(0, 0, 0), last), None);
    }
}
