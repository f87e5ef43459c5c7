//! How much of the time a training makes progress if its process is killed again and again.
//!
//! A training of fixed length runs in its own process. The process is killed (SIGKILL) at random times, and restarted
//! at once, until the training is done. The gaps between kills are exponentially distributed with the mean time between
//! failures (MTBF). *Goodput* is useful time over wall time. The useful time is the wall time of the same training
//! without backups and kills. Wall time lasts from the first start to the end. *Recovery* is the time from a kill to
//! the end of the first batch that the next process trains.
//!
//! The speed of a machine changes from minute to minute. So the useful time is measured by short
//! uninterrupted trainings right before and right after each of the others.
//!
//! An uninterrupted training takes about 20 times the MTBF, and each of its epochs 10 s. All policies get the same
//! gaps. Gaps are counted from kill to kill, so a slower restart leaves less time to train. For Burn's own checkpoints,
//! [`newest_whole`] finds the epoch, which a user of Burn does by hand. A training is given up once it takes five times
//! as long as the uninterrupted one.
//!
//! The Young-Daly interval follows from the cost of a backup, which is measured beforehand
//! ([`cost`]). The sweep has intervals from a quarter of it to four times as long.

mod contender;
mod cost;
mod gaps;
mod newest_whole;
mod outcome;
mod policy;
mod process;
mod rows;
mod run;
mod settings;
mod trainee;
mod young_daly;

use std::time::Duration;

use anyhow::Result;

use crate::bench::Bench;
use crate::state::{MEDIUM, SMALL, State};

use gaps::Gaps;
use outcome::Reference;
use policy::Policy;
use run::Run;
use trainee::Training;

pub use contender::Contender;
pub use outcome::Outcome;
pub use rows::{NAME, best_fixed, by_failures, rows};
pub use settings::Settings;
pub use trainee::{ChildArgs, SUBCOMMAND, train_in_child};

/// A run is given up once it takes this many times as long as the uninterrupted training.
const GIVE_UP: f64 = 5.0;

/// The length of uninterrupted trainings, as a share of the others. They have at least a few
/// epochs.
const UNINTERRUPTED: f64 = 0.1;
const MIN_UNINTERRUPTED: usize = 3;

/// A larger relative difference between uninterrupted trainings shows that other programs used the
/// machine.
const MAX_NOISE: f64 = 0.03;

/// The lowest assumed cost of a backup, in seconds.
const MIN_COST: f64 = 1e-4;

/// The lengths of trainings.
#[derive(Debug, Clone, Copy)]
struct Scale {
    state: State,
    /// The length of an uninterrupted training, in mean times between failures.
    kills: f64,
    epoch: Duration,
}

/// Everything that is measured at one mean time between failures.
struct Contest<'a> {
    bench: &'a Bench,
    training: Training,
    mtbf: Duration,
    seed: u64,
}

impl Scale {
    fn of(bench: &Bench) -> Self {
        match bench.is_quick() {
            true => Self {
                state: SMALL,
                kills: 4.0,
                epoch: Duration::from_millis(500),
            },
            false => Self {
                state: MEDIUM,
                kills: 20.0,
                epoch: Duration::from_secs(10),
            },
        }
    }

    /// A training for this MTBF and this time of a step.
    fn training(&self, mtbf: Duration, step: Duration) -> Training {
        let epochs = self.kills * mtbf.as_secs_f64() / self.epoch.as_secs_f64();
        Training {
            state: self.state,
            batches: young_daly::steps(self.epoch, step),
            epochs: (epochs.ceil() as usize).max(1),
        }
    }
}

/// Measures goodput at each mean time between failures. Because this takes hours, `on_outcome` gets all outcomes so far
/// after each training.
pub fn measure(
    bench: &Bench,
    settings: &Settings,
    mut on_outcome: impl FnMut(&[Outcome]) -> Result<()>,
) -> Result<Vec<Outcome>> {
    let scale = Scale::of(bench);
    bench.log(NAME, "what a step and a backup take");
    let step = cost::step(bench, scale.state)?;
    let cost = cost::backup(bench, scale.state, step)?;
    let [median, minimum, maximum] = [cost.median, cost.minimum, cost.maximum].map(|s| s * 1e3);
    let costs = format!("a backup adds {median:.1} ms ({minimum:.1} to {maximum:.1})");
    bench.log(NAME, &format!("a step takes {step:.1?}, and {costs}"));
    // The measured cost may be only noise, but the interval must not be zero.
    let cost = Duration::from_secs_f64(cost.median.max(MIN_COST));
    let mut outcomes = Vec::new();
    for mtbf in settings.mtbf(bench) {
        let interval = young_daly::steps(young_daly::interval(cost, mtbf), step);
        let contest = Contest {
            bench,
            training: scale.training(mtbf, step),
            mtbf,
            seed: settings.kill_seed,
        };
        let contenders = settings.contenders();
        contest.run(&contenders, interval, |outcome| {
            outcomes.push(outcome);
            on_outcome(&outcomes)
        })?;
    }
    Ok(outcomes)
}

impl Contest<'_> {
    fn run(
        &self,
        contenders: &[Contender],
        young_daly: usize,
        mut on_outcome: impl FnMut(Outcome) -> Result<()>,
    ) -> Result<()> {
        let mut before = self.uninterrupted()?;
        for contender in contenders {
            for policy in contender.policies(young_daly) {
                let useful = Reference::of(&[&before], self.training)?.useful.median;
                let at_most = Duration::from_secs_f64(useful * GIVE_UP);
                let run = self.train(policy, at_most)?;
                let after = self.uninterrupted()?;
                let reference = Reference::of(&[&before, &after], self.training)?;
                let outcome = Outcome::of(&run, &reference, self.mtbf, *contender, policy.steps());
                self.log(policy, &run, &outcome);
                on_outcome(outcome)?;
                before = after;
            }
        }
        Ok(())
    }

    /// A short uninterrupted run of the same training.
    fn uninterrupted(&self) -> Result<Run> {
        let dir = self.bench.scratch()?;
        let epochs = (self.training.epochs as f64 * UNINTERRUPTED) as usize;
        let training = Training {
            epochs: epochs.max(MIN_UNINTERRUPTED).min(self.training.epochs),
            ..self.training
        };
        run::uninterrupted(training, Policy::Without, dir.path())
    }

    fn train(&self, policy: Policy, at_most: Duration) -> Result<Run> {
        let dir = self.bench.scratch()?;
        let gaps = Gaps::new(self.mtbf, self.seed);
        run::train(self.training, policy, dir.path(), gaps, at_most)
    }

    fn log(&self, policy: Policy, run: &Run, outcome: &Outcome) {
        let how = match run.is_finished {
            true => "took",
            false => "was given up after",
        };
        let what = format!(
            "MTBF {:?}, {policy}: {how} {:.1?}, {} processes, goodput {:.3}",
            self.mtbf,
            run.wall,
            run.processes.len(),
            outcome.goodput,
        );
        self.bench.log(NAME, &what);
        let noise = outcome.useful.maximum / outcome.useful.minimum - 1.0;
        if noise > MAX_NOISE {
            let percent = 100.0 * noise;
            let what = format!("the machine's speed changed by {percent:.0} %: measure again");
            self.bench.log(NAME, &what);
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::spread::Spread;
    use outcome::Lost;
    use std::path::Path;

    /// An outcome on the usual state, for tests of tables and charts.
    pub fn outcome(
        mtbf: f64,
        contender: Contender,
        interval: Option<usize>,
        goodput: f64,
    ) -> Outcome {
        Outcome {
            state: MEDIUM.name.to_owned(),
            mtbf,
            epoch: 10.0,
            contender,
            interval,
            useful: Spread::single(20.0 * mtbf),
            wall: 20.0 * mtbf / goodput,
            goodput,
            is_finished: true,
            kills: 20,
            recovery: Some(Spread::single(0.5)),
            lost: Lost {
                restarts: 10.0,
                retrained: 5.0,
                rest: 0.0,
            },
        }
    }

    #[test]
    fn an_uninterrupted_training_takes_twenty_times_the_mtbf() {
        let bench = Bench::new(Path::new("."), false);
        let step = Duration::from_millis(20);
        let training = Scale::of(&bench).training(Duration::from_secs(15), step);
        assert_eq!((training.batches, training.epochs), (500, 30));
    }
}
