//! How a training protects itself against failures, as its process gets it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};
use burn_backup_restore::{BackupAndRestore, SaveFreq};

/// The share of the training time that `SaveFreq::auto` may spend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// The guide's recommendation.
    Hundredth,
    /// The guide's recommendation for frequent failures.
    Tenth,
}

impl Share {
    /// The share as a number for `SaveFreq::auto`.
    pub fn of_time(self) -> f64 {
        match self {
            Self::Hundredth => 0.01,
            Self::Tenth => 0.1,
        }
    }
}

/// How a training protects itself against failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// No protection.
    Without,
    /// Our backup, with `SaveFreq::auto`.
    Auto(Share),
    /// Our backup after this number of batches.
    Steps(usize),
    /// Our backup. The next one begins as soon as the last one is durable.
    Continuous,
    /// Our backup after each epoch.
    Epoch,
    /// Burn's own checkpoint after each epoch.
    Burns,
}

impl Policy {
    /// Our backup below `dir`, if this policy takes any.
    pub fn backup(self, dir: &Path) -> Option<BackupAndRestore> {
        let frequency = match self {
            Self::Without | Self::Burns => return None,
            Self::Auto(share) => SaveFreq::auto(share.of_time()),
            Self::Steps(steps) => SaveFreq::Steps(steps),
            Self::Continuous => SaveFreq::Continuous,
            Self::Epoch => SaveFreq::Epoch,
        };
        Some(BackupAndRestore::new(dir.join("backup")).save_freq(frequency))
    }

    /// The number of batches between two backups, if it is fixed.
    pub fn steps(self) -> Option<usize> {
        match self {
            Self::Steps(steps) => Some(steps),
            _ => None,
        }
    }
}

/// The directory in which Burn's builder puts its checkpoints.
pub fn burns_directory(dir: &Path) -> PathBuf {
    dir.join("checkpoint")
}

const STEPS: &str = "steps=";

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Without => f.write_str("without"),
            Self::Auto(Share::Hundredth) => f.write_str("auto"),
            Self::Auto(Share::Tenth) => f.write_str("auto-tenth"),
            Self::Steps(steps) => write!(f, "{STEPS}{steps}"),
            Self::Continuous => f.write_str("continuous"),
            Self::Epoch => f.write_str("epoch"),
            Self::Burns => f.write_str("burns"),
        }
    }
}

impl FromStr for Policy {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let policy = match text {
            "without" => Self::Without,
            "auto" => Self::Auto(Share::Hundredth),
            "auto-tenth" => Self::Auto(Share::Tenth),
            "continuous" => Self::Continuous,
            "epoch" => Self::Epoch,
            "burns" => Self::Burns,
            _ => match text.strip_prefix(STEPS) {
                Some(steps) => Self::Steps(steps.parse().context("no number of steps")?),
                None => bail!("there is no policy {text:?}"),
            },
        };
        Ok(policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_as_it_is_written() {
        for policy in [
            Policy::Without,
            Policy::Auto(Share::Hundredth),
            Policy::Auto(Share::Tenth),
            Policy::Steps(23),
            Policy::Continuous,
            Policy::Epoch,
            Policy::Burns,
        ] {
            assert_eq!(policy.to_string().parse::<Policy>().unwrap(), policy);
        }
        assert!("steps=".parse::<Policy>().is_err());
        assert!("sometimes".parse::<Policy>().is_err());
    }
}
