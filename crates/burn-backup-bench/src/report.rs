//! The JSON file: the results and the machine.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::goodput::{self, Outcome};
use crate::machine::Machine;
use crate::row::Row;

/// The contents of the JSON file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    machine: Machine,
    is_quick: bool,
    /// The table's lines.
    pub rows: Vec<Row>,
    /// The outcomes behind the lines of goodput.
    #[serde(default)]
    pub goodput: Vec<Outcome>,
}

impl Report {
    /// A report of measurements on `machine`. Adds the lines of goodput to `rows`.
    pub fn new(machine: Machine, is_quick: bool, rows: Vec<Row>, goodput: Vec<Outcome>) -> Self {
        let mut report = Self {
            machine,
            is_quick,
            rows,
            goodput,
        };
        report.rows.extend(goodput::rows(&report.goodput));
        report
    }

    /// Reads the report from this file.
    pub fn read(path: &Path) -> Result<Self> {
        let json = fs::read(path).with_context(|| format!("cannot read {path:?}"))?;
        serde_json::from_slice(&json).with_context(|| format!("{path:?} is no report"))
    }

    /// Writes the report to this file.
    pub fn write(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(self)?;
        fs::write(path, json).with_context(|| format!("cannot write {path:?}"))
    }

    /// Adds the contents of `later`, which replace earlier measurements of the same kind.
    pub fn merge(self, later: Self) -> Self {
        let mut rows = self.rows;
        // These lines are created again, because they compare outcomes with each other.
        rows.retain(|row| row.measurement != goodput::NAME);
        for row in later.rows {
            if row.measurement != goodput::NAME {
                replace(&mut rows, row, Row::is_same);
            }
        }
        let mut outcomes = self.goodput;
        for outcome in later.goodput {
            replace(&mut outcomes, outcome, Outcome::is_same);
        }
        let is_quick = self.is_quick || later.is_quick;
        Self::new(later.machine, is_quick, rows, outcomes)
    }
}

/// Replaces the entry that `is_same` with `new`, or appends `new`.
fn replace<T>(list: &mut Vec<T>, new: T, is_same: impl Fn(&T, &T) -> bool) {
    match list.iter_mut().find(|old| is_same(old, &new)) {
        Some(old) => *old = new,
        None => list.push(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goodput::Contender;
    use crate::goodput::tests::outcome;
    use crate::spread::Spread;

    fn report(rows: Vec<Row>, goodput: Vec<Outcome>) -> Report {
        Report::new(Machine::here(Path::new(".")), false, rows, goodput)
    }

    fn persist(speed: f64) -> Row {
        Row::new("persist", "1M", "speed", "MB/s").ours(Spread::single(speed))
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bench.json");
        let report = report(
            vec![persist(100.0)],
            vec![outcome(5.0, Contender::Auto, None, 0.5)],
        );
        report.write(&path).unwrap();
        assert_eq!(Report::read(&path).unwrap(), report);
    }

    #[test]
    fn a_report_without_goodput_is_read_too() {
        let json = r#"{"machine":{"cpu":null,"cores":2,"dir":"/"},"is_quick":false,"rows":[]}"#;
        let report: Report = serde_json::from_str(json).unwrap();
        assert_eq!(report.goodput, []);
    }

    #[test]
    fn later_values_replace_earlier_ones_and_outcomes_of_two_runs_are_compared() {
        let auto = outcome(5.0, Contender::Auto, None, 0.45);
        let best = outcome(5.0, Contender::YoungDaly, Some(20), 0.9);
        let merged = report(vec![persist(100.0)], vec![auto])
            .merge(report(vec![persist(200.0)], vec![best]));
        let speeds: Vec<f64> = merged
            .rows
            .iter()
            .filter(|row| row.measurement == "persist")
            .map(|row| row.ours.unwrap().median)
            .collect();
        assert_eq!(speeds, [200.0]);
        let ratio = merged.rows.iter().find_map(|row| row.ratio.as_ref());
        assert_eq!(ratio.unwrap().spread.median, 0.5);
    }
}
