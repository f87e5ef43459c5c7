//! The result of a training with failures, as it is stored in the report.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::goodput::contender::Contender;
use crate::goodput::run::{ProcessRun, Run};
use crate::goodput::trainee::Training;
use crate::spread::Spread;

/// The result of one training. All times are in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The state's name.
    pub state: String,
    /// The mean time between failures.
    pub mtbf: f64,
    /// The time of an epoch of the uninterrupted training.
    pub epoch: f64,
    pub contender: Contender,
    /// The number of batches between two backups, if it is fixed.
    pub interval: Option<usize>,
    /// The time of the same training without backups and failures, measured before and after.
    pub useful: Spread,
    /// The time from the first start to the end.
    pub wall: f64,
    /// Useful time over wall time.
    pub goodput: f64,
    /// Whether the training finished. If it was given up, its trained batches count as useful.
    pub is_finished: bool,
    /// The number of kills.
    pub kills: usize,
    /// The time from each kill to the end of the first batch that the next process trains, if it
    /// lived that long.
    pub recovery: Option<Spread>,
    pub lost: Lost,
}

/// The parts of the wall time that were not useful.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Lost {
    /// The time from each kill until the next process trains.
    pub restarts: f64,
    /// The time of batches that were trained and lost, including those that a kill cut short.
    pub retrained: f64,
    /// The rest: backups, slower first steps of each process, and times when the machine was slower than in the
    /// uninterrupted training.
    pub rest: f64,
}

/// The training without backups and without failures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reference {
    /// The wall time of the whole training, estimated from each run.
    pub useful: Spread,
    training: Training,
    /// The time of one batch.
    step: f64,
    /// The time from the start to the first batch.
    startup: f64,
}

impl Reference {
    /// The times of `training`, estimated from uninterrupted runs of it, which may end sooner.
    pub fn of(runs: &[&Run], training: Training) -> Result<Self> {
        let processes: Vec<&ProcessRun> = runs
            .iter()
            .filter_map(|run| run.processes.first())
            .collect();
        let step = Spread::of(processes.iter().filter_map(|process| mean_step(process)))?.median;
        let first = processes
            .iter()
            .filter_map(|process| process.batches.first());
        let first = Spread::of(first.map(Duration::as_secs_f64))?.median;
        Ok(Self {
            useful: Spread::of(runs.iter().filter_map(|run| whole(run, training)))
                .context("no training without backups was run")?,
            training,
            step,
            startup: first - step,
        })
    }
}

/// The time of `training` in seconds, estimated from a run of its first batches.
fn whole(run: &Run, training: Training) -> Option<f64> {
    let process = run.processes.first()?;
    let left = training.total().checked_sub(process.batches.len() as u64)?;
    Some(run.wall.as_secs_f64() + left as f64 * mean_step(process)?)
}

fn mean_step(process: &ProcessRun) -> Option<f64> {
    let time = *process.batches.last()? - *process.batches.first()?;
    let steps = process
        .batches
        .len()
        .checked_sub(1)
        .filter(|steps| *steps > 0)?;
    Some(time.as_secs_f64() / steps as f64)
}

impl Outcome {
    /// The outcome of `run`.
    pub fn of(
        run: &Run,
        reference: &Reference,
        mtbf: Duration,
        contender: Contender,
        interval: Option<usize>,
    ) -> Self {
        let wall = run.wall.as_secs_f64();
        let share = run.reached() as f64 / reference.training.total() as f64;
        let useful = reference.useful.median * share;
        let restarts = run.processes.iter().skip(1);
        let recovery = restarts.filter_map(|process| Some(process.batches.first()?.as_secs_f64()));
        Self {
            state: reference.training.state.name.to_owned(),
            mtbf: mtbf.as_secs_f64(),
            epoch: reference.step * reference.training.batches as f64,
            contender,
            interval,
            useful: reference.useful,
            wall,
            goodput: useful / wall,
            is_finished: run.is_finished,
            kills: run.processes.len() - usize::from(run.is_finished),
            recovery: Spread::of(recovery).ok(),
            lost: Lost::of(run, reference, wall - useful),
        }
    }

    /// Whether both measure the same configuration.
    pub fn is_same(&self, other: &Self) -> bool {
        let is_same_training = self.state == other.state && self.mtbf == other.mtbf;
        is_same_training && self.contender == other.contender && self.interval == other.interval
    }

    /// The name of the policy in the table and the chart.
    pub fn label(&self) -> String {
        match self.interval {
            Some(interval) => format!("{}, every {interval} batches", self.contender),
            None => self.contender.to_string(),
        }
    }
}

impl Lost {
    fn of(run: &Run, reference: &Reference, lost: f64) -> Self {
        let starting = run
            .processes
            .iter()
            .map(|process| match process.batches.first() {
                Some(first) => first.as_secs_f64() - reference.step,
                None => process.lasted.as_secs_f64(),
            });
        let restarts = starting.sum::<f64>() - reference.startup;
        let trained: usize = run
            .processes
            .iter()
            .map(|process| process.batches.len())
            .sum();
        let lost_batches = trained as f64 - run.reached() as f64;
        let killed = run.processes.len() - usize::from(run.is_finished);
        let cut_short = run.processes.iter().take(killed).filter_map(|process| {
            let last = process.batches.last()?;
            Some(process.lasted.saturating_sub(*last).as_secs_f64())
        });
        let retrained = lost_batches * reference.step + cut_short.sum::<f64>();
        Self {
            restarts,
            retrained,
            rest: lost - restarts - retrained,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::MEDIUM;

    fn process(resumed_at: u64, batches: &[u64], lasted: u64) -> ProcessRun {
        ProcessRun {
            resumed_at: Some(resumed_at),
            batches: batches.iter().copied().map(Duration::from_secs).collect(),
            lasted: Duration::from_secs(lasted),
        }
    }

    /// Two seconds to start, and ten batches of one second.
    fn reference() -> Reference {
        let training = Training {
            state: MEDIUM,
            batches: 5,
            epochs: 2,
        };
        let batches: Vec<u64> = (3..=12).collect();
        let run = Run {
            wall: Duration::from_secs(12),
            processes: vec![process(0, &batches, 12)],
            is_finished: true,
        };
        Reference::of(&[&run], training).unwrap()
    }

    #[test]
    fn the_uninterrupted_time_follows_from_the_first_batches() {
        let whole = reference();
        let run = Run {
            wall: Duration::from_secs(7),
            processes: vec![process(0, &[3, 4, 5, 6, 7], 7)],
            is_finished: true,
        };
        assert_eq!(Reference::of(&[&run], whole.training).unwrap(), whole);
    }

    fn outcome(run: &Run) -> Outcome {
        let mtbf = Duration::from_secs(5);
        Outcome::of(run, &reference(), mtbf, Contender::Auto, None)
    }

    #[test]
    fn useful_and_lost_times_add_up_to_the_wall_time() {
        // Six batches of one second, a backup of one second after batches 3 and 6, and a kill in
        // the middle of the next batch. Then a restart of 4 s, from batch 3.
        let run = Run {
            wall: Duration::from_secs(22),
            processes: vec![
                process(0, &[3, 4, 5, 7, 8, 9], 11),
                process(3, &[5, 6, 7, 8, 9, 10, 11], 11),
            ],
            is_finished: true,
        };
        let outcome = outcome(&run);
        assert_eq!(outcome.goodput, 12.0 / 22.0);
        assert_eq!((outcome.kills, outcome.epoch), (1, 5.0));
        assert_eq!(outcome.recovery, Some(Spread::single(5.0)));
        let lost = Lost {
            restarts: 4.0,
            retrained: 3.0 + 2.0,
            rest: 1.0,
        };
        assert_eq!(outcome.lost, lost);
    }

    #[test]
    fn batches_of_an_abandoned_training_count_as_useful() {
        let run = Run {
            wall: Duration::from_secs(60),
            processes: vec![process(0, &[3, 4, 5, 6, 7], 8), process(0, &[], 1)],
            is_finished: false,
        };
        let outcome = outcome(&run);
        assert_eq!(outcome.goodput, 6.0 / 60.0);
        assert_eq!(outcome.kills, 2);
        assert_eq!(outcome.recovery, None);
    }
}
