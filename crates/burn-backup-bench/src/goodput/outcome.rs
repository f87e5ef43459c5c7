//! The result of a training with failures, as the report holds it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::goodput::contender::Contender;
use crate::goodput::run::{Life, Run};
use crate::goodput::trainee::Training;
use crate::spread::Spread;

/// One training. All times are in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The state's name.
    pub state: String,
    /// The mean time between failures.
    pub mtbf: f64,
    /// How long an epoch of the undisturbed training takes.
    pub epoch: f64,
    pub contender: Contender,
    /// How many batches are between two backups, if that is fixed.
    pub interval: Option<usize>,
    /// The same training without backups and without failures, as it is before and after.
    pub useful: Spread,
    /// From the first start to the end.
    pub wall: f64,
    /// Useful time over wall time.
    pub goodput: f64,
    /// Whether it ran to its end. Of one that was given up, what it had trained until then counts as
    /// useful.
    pub is_finished: bool,
    /// How often it was killed.
    pub kills: usize,
    /// From each kill to the end of the first batch that the next process trains; of those that
    /// lived so long.
    pub recovery: Option<Spread>,
    pub lost: Lost,
}

/// Where the wall time went that was not useful.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Lost {
    /// From kills until the next process trains.
    pub restarts: f64,
    /// Batches that were trained and lost, the ones cut short by the kills included.
    pub retrained: f64,
    /// The rest: backups, the first steps of each process, which are slower, and what the machine was
    /// slower than in the undisturbed training.
    pub rest: f64,
}

/// The training without backups and without failures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reference {
    /// Its wall time, by each of the runs.
    pub useful: Spread,
    training: Training,
    /// How long one of them takes.
    step: f64,
    /// From its start until it trains.
    startup: f64,
}

impl Reference {
    /// What `training` takes by undisturbed runs of it, which may end sooner.
    pub fn of(runs: &[&Run], training: Training) -> Result<Self> {
        let lives: Vec<&Life> = runs
            .iter()
            .filter_map(|run| run.processes.first())
            .collect();
        let step = Spread::of(lives.iter().filter_map(|life| mean_step(life)))?.median;
        let first = lives.iter().filter_map(|life| life.batches.first());
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

/// What `training` takes by a run of its first batches, in seconds.
fn whole(run: &Run, training: Training) -> Option<f64> {
    let life = run.processes.first()?;
    let left = training.total().checked_sub(life.batches.len() as u64)?;
    Some(run.wall.as_secs_f64() + left as f64 * mean_step(life)?)
}

fn mean_step(life: &Life) -> Option<f64> {
    let time = *life.batches.last()? - *life.batches.first()?;
    let steps = life
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
        let recovery = restarts.filter_map(|life| Some(life.batches.first()?.as_secs_f64()));
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

    /// Whether it is about the same thing.
    pub fn is_same(&self, other: &Self) -> bool {
        let is_same_training = self.state == other.state && self.mtbf == other.mtbf;
        is_same_training && self.contender == other.contender && self.interval == other.interval
    }

    /// What the table and the chart call its policy.
    pub fn label(&self) -> String {
        match self.interval {
            Some(interval) => format!("{}, every {interval} batches", self.contender),
            None => self.contender.to_string(),
        }
    }
}

impl Lost {
    fn of(run: &Run, reference: &Reference, lost: f64) -> Self {
        let starting = run.processes.iter().map(|life| match life.batches.first() {
            Some(first) => first.as_secs_f64() - reference.step,
            None => life.lasted.as_secs_f64(),
        });
        let restarts = starting.sum::<f64>() - reference.startup;
        let trained: usize = run.processes.iter().map(|life| life.batches.len()).sum();
        let lost_batches = trained as f64 - run.reached() as f64;
        let killed = run.processes.len() - usize::from(run.is_finished);
        let cut_short = run.processes.iter().take(killed).filter_map(|life| {
            let last = life.batches.last()?;
            Some(life.lasted.saturating_sub(*last).as_secs_f64())
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

    fn life(resumed_at: u64, batches: &[u64], lasted: u64) -> Life {
        Life {
            resumed_at: Some(resumed_at),
            batches: batches.iter().copied().map(Duration::from_secs).collect(),
            lasted: Duration::from_secs(lasted),
        }
    }

    /// Two seconds to start, and ten batches of a second.
    fn reference() -> Reference {
        let training = Training {
            state: MEDIUM,
            batches: 5,
            epochs: 2,
        };
        let batches: Vec<u64> = (3..=12).collect();
        let run = Run {
            wall: Duration::from_secs(12),
            processes: vec![life(0, &batches, 12)],
            is_finished: true,
        };
        Reference::of(&[&run], training).unwrap()
    }

    #[test]
    fn what_an_undisturbed_training_takes_follows_from_its_first_batches() {
        let whole = reference();
        let run = Run {
            wall: Duration::from_secs(7),
            processes: vec![life(0, &[3, 4, 5, 6, 7], 7)],
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
        // Six batches, a second of each backup after 3 and 6, and a kill in the middle of the next
        // batch; then a restart that takes 4 s, from batch 3.
        let run = Run {
            wall: Duration::from_secs(22),
            processes: vec![
                life(0, &[3, 4, 5, 7, 8, 9], 11),
                life(3, &[5, 6, 7, 8, 9, 10, 11], 11),
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
    fn of_a_training_that_was_given_up_what_it_had_trained_counts() {
        let run = Run {
            wall: Duration::from_secs(60),
            processes: vec![life(0, &[3, 4, 5, 6, 7], 8), life(0, &[], 1)],
            is_finished: false,
        };
        let outcome = outcome(&run);
        assert_eq!(outcome.goodput, 6.0 / 60.0);
        assert_eq!(outcome.kills, 2);
        assert_eq!(outcome.recovery, None);
    }
}
