//! The charts.
use std::path::Path;

use anyhow::Result;

use crate::report::Report;

/// Writes them.
pub fn write(_report: &Report, _dir: &Path) -> Result<()> {
    Ok(())
}
