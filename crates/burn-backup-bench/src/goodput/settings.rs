//! The settings of goodput on the command line.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;

use crate::bench::Bench;
use crate::goodput::contender::Contender;

/// The settings of goodput.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// The mean times between failures for goodput, in seconds. At 5 s it takes 40 minutes, at 15 s
    /// an hour, at 60 s four hours.
    #[arg(
        long,
        value_name = "SECONDS",
        value_delimiter = ',',
        default_value = "5,15",
        value_parser = mtbf
    )]
    pub mtbf: Vec<Duration>,

    /// The policies for goodput. The default is all of them.
    #[arg(long, value_enum, value_name = "NAMES", value_delimiter = ',')]
    pub policies: Vec<Contender>,

    /// The seed of the times at which goodput's trainings are killed.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub kill_seed: u64,
}

impl Settings {
    /// The mean times between failures. `--quick` has its own short one.
    pub fn mtbf(&self, bench: &Bench) -> Vec<Duration> {
        match bench.is_quick() {
            true => vec![Duration::from_millis(500)],
            false => self.mtbf.clone(),
        }
    }

    /// The contenders, in the order of the table.
    pub fn contenders(&self) -> Vec<Contender> {
        match self.policies.is_empty() {
            true => Contender::all(),
            false => self.policies.clone(),
        }
    }
}

fn mtbf(text: &str) -> Result<Duration> {
    let mtbf = Duration::try_from_secs_f64(text.parse()?)?;
    ensure!(!mtbf.is_zero(), "no time between failures");
    Ok(mtbf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_between_failures_is_a_positive_number_of_seconds() {
        assert_eq!(mtbf("0.5").unwrap(), Duration::from_millis(500));
        for text in ["0", "-1", "soon"] {
            assert!(mtbf(text).is_err(), "{text}");
        }
    }
}
