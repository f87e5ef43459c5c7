use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::state::{LARGE, MEDIUM, SCATTERED, SMALL, State};

/// The settings of all measurements: where they write, and how much they measure.
#[derive(Debug, Clone)]
pub struct Bench {
    dir: PathBuf,
    is_quick: bool,
    states: Vec<State>,
}

/// How often something is measured. Our samples and Burn's alternate in rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repetitions {
    /// The number of rounds.
    pub rounds: usize,
    /// The number of samples of each in a round, after a first one that only warms up.
    pub samples: usize,
}

impl Repetitions {
    /// The number of batches in a round with a sample after each.
    pub fn batches(self) -> usize {
        self.samples + 1
    }
}

impl Bench {
    /// Writes below `dir`. `is_quick` only checks that everything runs.
    pub fn new(dir: &Path, is_quick: bool) -> Self {
        Self {
            dir: dir.to_owned(),
            is_quick,
            states: match is_quick {
                true => vec![SMALL, SCATTERED],
                false => vec![SMALL, MEDIUM, LARGE, SCATTERED],
            },
        }
    }

    /// Measures `states` instead of the default ones, unless the list is empty.
    pub fn of_states(self, states: &[State]) -> Self {
        match states {
            [] => self,
            states => Self {
                states: states.to_vec(),
                ..self
            },
        }
    }

    /// The directory below which everything is written.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether the results don't matter.
    pub fn is_quick(&self) -> bool {
        self.is_quick
    }

    /// The states that every measurement uses.
    pub fn states(&self) -> Vec<State> {
        self.states.clone()
    }

    /// The number of turns that ours and Burn's take.
    pub fn turns(&self) -> usize {
        if self.is_quick { 2 } else { 10 }
    }

    /// The repetitions of measurements of single backups.
    pub fn repetitions(&self) -> Repetitions {
        if self.is_quick {
            Repetitions {
                rounds: 1,
                samples: 3,
            }
        } else {
            Repetitions {
                rounds: 3,
                samples: 4,
            }
        }
    }

    /// An empty directory on the measured file system. It is removed when it is dropped.
    pub fn scratch(&self) -> Result<TempDir> {
        tempfile::tempdir_in(&self.dir)
            .with_context(|| format!("cannot create a directory in {:?}", self.dir))
    }

    /// Shows on the terminal what is being measured.
    pub fn announce(&self, measurement: &str, state: &State) {
        self.log(measurement, state.name);
    }

    /// Shows what is being measured if it is not a state. Ignores errors, because they must not
    /// fail a measurement.
    pub fn log(&self, measurement: &str, what: &str) {
        let _ = writeln!(io::stderr(), "{measurement}: {what}");
    }
}
