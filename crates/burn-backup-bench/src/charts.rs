//! The charts, as SVG files: how long backups hold a training, how fast they are, and goodput.
//!
//! They are made from a report, just measured or read again. What was not measured has no chart.

mod axis;
mod bars;
mod disk;
mod goodput;
mod lines;
mod picture;
mod stall;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::report::Report;

/// Writes the charts into `dir`, in files that are named after what they show.
pub fn write(report: &Report, dir: &Path) -> Result<()> {
    let charts = [
        ("stall", stall::draw(&report.rows)?),
        ("disk", disk::draw(&report.rows)?),
        ("goodput", goodput::draw(&report.goodput)?),
    ];
    for (name, chart) in charts {
        let Some(chart) = chart else { continue };
        fs::create_dir_all(dir).with_context(|| format!("cannot make {dir:?}"))?;
        let path = dir.join(format!("bench-{name}.svg"));
        fs::write(&path, chart).with_context(|| format!("cannot write {path:?}"))?;
    }
    Ok(())
}
