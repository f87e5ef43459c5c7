use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::state::{LARGE, MEDIUM, SCATTERED, SMALL, State};

/// What all measurements go by: where they write, and how much they do.
#[derive(Debug, Clone)]
pub struct Bench {
    dir: PathBuf,
    is_quick: bool,
    states: Vec<State>,
}

/// How often something is measured: in rounds, between which ours and Burn's alternate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repetitions {
    /// How many rounds.
    pub rounds: usize,
    /// How many samples of each in a round, besides the first one, which only warms up.
    pub samples: usize,
}

impl Repetitions {
    /// How many batches a round has, if there is a sample after each.
    pub fn batches(self) -> usize {
        self.samples + 1
    }
}

impl Bench {
    /// Writes below `dir`; `is_quick` only checks that everything runs.
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

    /// Looks at `states` instead of the usual ones, unless there is none.
    pub fn of_states(self, states: &[State]) -> Self {
        match states {
            [] => self,
            states => Self {
                states: states.to_vec(),
                ..self
            },
        }
    }

    /// Below which directory everything is written.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether the numbers don't matter.
    pub fn is_quick(&self) -> bool {
        self.is_quick
    }

    /// The states that every measurement looks at.
    pub fn states(&self) -> Vec<State> {
        self.states.clone()
    }

    /// How many turns ours and Burn's take.
    pub fn turns(&self) -> usize {
        if self.is_quick { 2 } else { 10 }
    }

    /// How often single backups are measured.
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

    /// An empty directory on the measured file system, gone when it is dropped.
    pub fn scratch(&self) -> Result<TempDir> {
        tempfile::tempdir_in(&self.dir)
            .with_context(|| format!("cannot make a directory in {:?}", self.dir))
    }

    /// Says on the terminal what is being measured.
    pub fn announce(&self, measurement: &str, state: &State) {
        self.tell(measurement, state.name);
    }

    /// The same of something else than a state. A measurement doesn't fail for want of it.
    pub fn tell(&self, measurement: &str, what: &str) {
        let _ = writeln!(io::stderr(), "{measurement}: {what}");
    }
}
