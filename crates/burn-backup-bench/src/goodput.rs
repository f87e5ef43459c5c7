//! How much of the time a training makes progress when its process is killed again and again.
//!
//! A training of fixed length runs in a process of its own. It is killed (SIGKILL) at random
//! moments, whose gaps are exponentially distributed with the mean time between failures (MTBF),
//! and started again at once, until it is done. *Goodput* is useful time over wall time. Useful is
//! the wall time of the same training without backups and without kills. Wall time lasts from the
//! first start to the end. *Recovery* is the time from a kill to the end of the first batch that the
//! next process trains.
//!
//! What a machine does in a minute is not what it does in the next. So the useful time follows from
//! short undisturbed trainings right before and right after each of the others.
//!
//! An undisturbed training takes about 20 times the MTBF, and an epoch of it 10 s. All policies meet
//! the same gaps. Those are counted from one kill to the next, so that a slower restart leaves less
//! time to train. Burn's own checkpoints have their epoch found by [`newest_whole`], which leaves to
//! each restart what its user does by hand. A training that takes five times as long as the
//! undisturbed one is given up.
//!
//! The interval of Young and Daly follows from the cost of a backup, which is measured beforehand
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
pub use trainee::{Alone, SUBCOMMAND, train_alone};

/// A run that takes so many times as long as the undisturbed training is given up.
const GIVE_UP: f64 = 5.0;

/// Undisturbed trainings are this share of the others, or as many epochs.
const UNDISTURBED: f64 = 0.1;
const MIN_UNDISTURBED: usize = 3;

/// Undisturbed trainings that differ by more than this share show that something else had the
/// machine.
const MAX_NOISE: f64 = 0.03;

/// In seconds.
const MIN_COST: f64 = 1e-4;

/// How long trainings are.
#[derive(Debug, Clone, Copy)]
struct Scale {
    state: State,
    /// Of an undisturbed training, for each mean time between failures.
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

    /// A training of steps that take that long.
    fn training(&self, mtbf: Duration, step: Duration) -> Training {
        let epochs = self.kills * mtbf.as_secs_f64() / self.epoch.as_secs_f64();
        Training {
            state: self.state,
            batches: young_daly::steps(self.epoch, step),
            epochs: (epochs.ceil() as usize).max(1),
        }
    }
}

/// Measures it at each mean time between failures. `on_outcome` is called after each training, with all
/// outcomes so far: all of them together take hours.
pub fn measure(
    bench: &Bench,
    settings: &Settings,
    mut on_outcome: impl FnMut(&[Outcome]) -> Result<()>,
) -> Result<Vec<Outcome>> {
    let scale = Scale::of(bench);
    bench.tell(NAME, "what a step and a backup take");
    let step = cost::step(bench, scale.state)?;
    let cost = cost::backup(bench, scale.state, step)?;
    let [median, minimum, maximum] = [cost.median, cost.minimum, cost.maximum].map(|s| s * 1e3);
    let costs = format!("a backup adds {median:.1} ms ({minimum:.1} to {maximum:.1})");
    bench.tell(NAME, &format!("a step takes {step:.1?}, and {costs}"));
    // If noise is all there is, the interval that follows is not to be zero.
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
        contest.hold(&contenders, interval, |outcome| {
            outcomes.push(outcome);
            on_outcome(&outcomes)
        })?;
    }
    Ok(outcomes)
}

impl Contest<'_> {
    fn hold(
        &self,
        contenders: &[Contender],
        young_daly: usize,
        mut on_outcome: impl FnMut(Outcome) -> Result<()>,
    ) -> Result<()> {
        let mut before = self.undisturbed()?;
        for contender in contenders {
            for policy in contender.policies(young_daly) {
                let useful = Reference::of(&[&before], self.training)?.useful.median;
                let at_most = Duration::from_secs_f64(useful * GIVE_UP);
                let run = self.train(policy, at_most)?;
                let after = self.undisturbed()?;
                let reference = Reference::of(&[&before, &after], self.training)?;
                let outcome = Outcome::of(&run, &reference, self.mtbf, *contender, policy.steps());
                self.tell(policy, &run, &outcome);
                on_outcome(outcome)?;
                before = after;
            }
        }
        Ok(())
    }

    /// A short one of the same training.
    fn undisturbed(&self) -> Result<Run> {
        let dir = self.bench.scratch()?;
        let epochs = (self.training.epochs as f64 * UNDISTURBED) as usize;
        let training = Training {
            epochs: epochs.max(MIN_UNDISTURBED).min(self.training.epochs),
            ..self.training
        };
        run::undisturbed(training, Policy::Without, dir.path())
    }

    fn train(&self, policy: Policy, at_most: Duration) -> Result<Run> {
        let dir = self.bench.scratch()?;
        let gaps = Gaps::new(self.mtbf, self.seed);
        run::train(self.training, policy, dir.path(), gaps, at_most)
    }

    fn tell(&self, policy: Policy, run: &Run, outcome: &Outcome) {
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
        self.bench.tell(NAME, &what);
        let noise = outcome.useful.maximum / outcome.useful.minimum - 1.0;
        if noise > MAX_NOISE {
            let percent = 100.0 * noise;
            let what = format!("the machine's speed changed by {percent:.0} %: measure again");
            self.bench.tell(NAME, &what);
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::spread::Spread;
    use outcome::Lost;
    use std::path::Path;

    /// An outcome on the usual state, for the tests of what is made from outcomes.
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
    fn an_undisturbed_training_takes_twenty_times_between_failures() {
        let bench = Bench::new(Path::new("."), false);
        let step = Duration::from_millis(20);
        let training = Scale::of(&bench).training(Duration::from_secs(15), step);
        assert_eq!((training.batches, training.epochs), (500, 30));
    }
}
