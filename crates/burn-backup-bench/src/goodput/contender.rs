//! The policies that are compared.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::goodput::policy::{Policy, Share};

/// A way to decide when a backup is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contender {
    /// `SaveFreq::auto(0.01)`.
    Auto,
    /// `SaveFreq::auto(0.1)`.
    AutoTenth,
    /// `SaveFreq::Steps` at the Young-Daly interval for the measured cost.
    YoungDaly,
    /// `SaveFreq::Continuous`.
    Continuous,
    /// `SaveFreq::Epoch`.
    Epoch,
    /// Burn's own checkpoint after each epoch.
    Burns,
    /// `SaveFreq::Steps` at intervals around the Young-Daly interval.
    Sweep,
}

/// The intervals of the sweep, relative to the Young-Daly interval, which is their middle.
const SWEEP: [f64; 4] = [0.25, 0.5, 2.0, 4.0];

impl Contender {
    /// All contenders, in the order of the table.
    pub fn all() -> Vec<Self> {
        Self::value_variants().to_vec()
    }

    /// The policies of its trainings. `young_daly` is the number of steps between two backups.
    pub fn policies(self, young_daly: usize) -> Vec<Policy> {
        match self {
            Self::Auto => vec![Policy::Auto(Share::Hundredth)],
            Self::AutoTenth => vec![Policy::Auto(Share::Tenth)],
            Self::YoungDaly => vec![Policy::Steps(young_daly)],
            Self::Continuous => vec![Policy::Continuous],
            Self::Epoch => vec![Policy::Epoch],
            Self::Burns => vec![Policy::Burns],
            Self::Sweep => sweep(young_daly),
        }
    }

    /// Whether the interval is fixed beforehand.
    pub fn is_fixed(self) -> bool {
        matches!(self, Self::YoungDaly | Self::Sweep)
    }
}

fn sweep(young_daly: usize) -> Vec<Policy> {
    let mut intervals: Vec<usize> = SWEEP
        .iter()
        .map(|factor| ((young_daly as f64 * factor).round() as usize).max(1))
        .filter(|steps| *steps != young_daly)
        .collect();
    intervals.dedup();
    intervals.into_iter().map(Policy::Steps).collect()
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => write!(f, "auto({})", Share::Hundredth.of_time()),
            Self::AutoTenth => write!(f, "auto({})", Share::Tenth.of_time()),
            Self::YoungDaly => f.write_str("Young/Daly"),
            Self::Continuous => f.write_str("continuous"),
            Self::Epoch => f.write_str("epoch"),
            Self::Burns => f.write_str("Burn's own, epoch"),
            Self::Sweep => f.write_str("sweep"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sweep_surrounds_the_young_daly_interval_without_repeating_it() {
        let steps = |interval| Contender::Sweep.policies(interval);
        let expected = [10, 20, 80, 160].map(Policy::Steps);
        assert_eq!(steps(40), expected);
        assert_eq!(steps(1), [2, 4].map(Policy::Steps));
    }
}
