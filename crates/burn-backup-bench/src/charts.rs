//! The charts as SVG files: how long backups pause a training, how fast they are, and goodput.
//!
//! They are drawn from a report that was just measured, or read again. Missing measurements have no
//! chart.

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

/// Writes the charts into `dir`. The files are named after their contents.
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
