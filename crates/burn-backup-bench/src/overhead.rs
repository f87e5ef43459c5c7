//! How much training time backups add in total: back to back, and at an interval.
//!
//! Trainings without backups, with ours and with Burn's own alternate. Ratios are taken within a
//! turn, because the load of the machine changes slowly.
//!
//! All trainings of one state run in one process, whose allocator keeps its memory. By default,
//! glibc's allocator returns memory to the system between two steps and requests it again. That can
//! take longer than the steps. It happens in trainings without backups, but rarely while a snapshot
//! exists. So with the defaults, trainings with backups would be faster than those without.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use burn::train::Learner;
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::bench::Bench;
use crate::child::{Child, answer};
use crate::feed::EpochLengths;
use crate::goals::Goals;
use crate::model::Stack;
use crate::row::{Goal, Row};
use crate::spread::Spread;
use crate::state::State;
use crate::variant::Variant;
use crate::{ours, training};

/// The name of the measurement.
pub const NAME: &str = "overhead";
/// The hidden subcommand that runs [`take_turns_in_child`].
pub const SUBCOMMAND: &str = "turns";

const INTERVAL_IN_PERSIST_TIMES: f64 = 10.0;
/// The desired time of the timed part of a training, which decides the number of its epochs.
const TRAINING: Duration = Duration::from_secs(2);
const MAX_EPOCHS: usize = 10;

/// How often backups are taken, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cadence {
    /// The batches of the epochs. A backup follows each epoch.
    lengths: EpochLengths,
    /// The number of epochs that only warm up.
    warm_up: usize,
    /// The number of timed epochs.
    epochs: usize,
}

/// The times of one turn.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Turn {
    without: Duration,
    ours: Duration,
    burns: Duration,
}

/// The turns of one state.
#[derive(Debug, Serialize, Deserialize)]
struct Turns {
    back_to_back: Vec<Turn>,
    at_interval: Vec<Turn>,
}

/// The arguments of a process.
#[derive(Debug, Args)]
pub struct ChildArgs {
    #[arg(long, value_parser = State::named)]
    state: State,
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    quick: bool,
}

/// Measures the overhead on all states.
pub fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for state in bench.states() {
        bench.announce(NAME, &state);
        rows.extend(rows_of(&state, &turns(bench, &state)?)?);
    }
    Ok(rows)
}

/// Takes turns in a new process.
fn turns(bench: &Bench, state: &State) -> Result<Turns> {
    let child = Child::new(SUBCOMMAND)?
        .option("--state", state.name)
        .option("--dir", bench.dir())
        .steady_heap();
    if bench.is_quick() {
        child.flag("--quick").run()
    } else {
        child.run()
    }
}

fn rows_of(state: &State, turns: &Turns) -> Result<[Row; 2]> {
    let over_burns = turns
        .back_to_back
        .iter()
        .map(|turn| quotient(turn.ours, turn.burns));
    let back_to_back = row(state, "time, back to back", &turns.back_to_back)?
        .ratio("Burn's", Spread::of(over_burns)?)
        .goal(Goal::RatioAtMost(Goals::of(state).back_to_back));
    let at_interval = row(state, "time, every 10 persist times", &turns.at_interval)?
        .goal(Goal::OursAtMost(Goals::of(state).at_interval));
    Ok([back_to_back, at_interval])
}

fn row(state: &State, what: &'static str, turns: &[Turn]) -> Result<Row> {
    let ours = turns.iter().map(|turn| quotient(turn.ours, turn.without));
    let burns = turns.iter().map(|turn| quotient(turn.burns, turn.without));
    Ok(Row::new(NAME, state.name, what, "of without")
        .ours(Spread::of(ours)?)
        .burns(Spread::of(burns)?))
}

fn quotient(time: Duration, over: Duration) -> f64 {
    time.as_secs_f64() / over.as_secs_f64()
}

/// Takes turns at both cadences, and prints the times.
pub fn take_turns_in_child(args: &ChildArgs) -> Result<()> {
    let bench = Bench::new(&args.dir, args.quick);
    let state = args.state;
    let learner = state.learner();
    let persist = persist_time(&bench, &state, &learner)?;
    let batch = batch_time(&bench, &state, &learner)?;
    let take_turns = |cadence| take_turns(&bench, &state, &learner, cadence);
    answer(&Turns {
        back_to_back: take_turns(Cadence::back_to_back(&bench, persist + batch))?,
        at_interval: take_turns(Cadence::at_interval(&bench, persist, batch))?,
    })
}

impl Cadence {
    /// A backup after each batch. One backup is being written when the time begins, and the last one when it ends. So
    /// the time includes as many waits as backups. The first two backups are not timed, because they allocate space on
    /// the disk that later ones overwrite.
    fn back_to_back(bench: &Bench, epoch: Duration) -> Self {
        const MIN_EPOCHS: usize = 3;
        let epochs = if bench.is_quick() {
            MIN_EPOCHS
        } else {
            epochs(epoch, MIN_EPOCHS)
        };
        Self {
            lengths: EpochLengths::all(1),
            warm_up: 4,
            epochs,
        }
    }

    /// A backup about every ten times the duration of a backup. None is being written when the time
    /// begins or ends.
    fn at_interval(bench: &Bench, persist: Duration, batch: Duration) -> Self {
        let batches = INTERVAL_IN_PERSIST_TIMES * quotient(persist, batch);
        let batches = (batches.ceil() as usize).max(1);
        let epoch = batch * batches as u32;
        let epochs = if bench.is_quick() {
            1
        } else {
            epochs(epoch, 1)
        };
        Self {
            lengths: EpochLengths {
                first: 2,
                later: batches,
            },
            warm_up: 1,
            epochs,
        }
    }
}

/// The number of epochs of this length in a training.
fn epochs(epoch: Duration, min: usize) -> usize {
    (quotient(TRAINING, epoch) as usize).clamp(min, MAX_EPOCHS)
}

fn take_turns(
    bench: &Bench,
    state: &State,
    learner: &Learner<Stack>,
    cadence: Cadence,
) -> Result<Vec<Turn>> {
    let train = |variant| time(bench, state, learner, variant, cadence);
    (0..bench.turns())
        .map(|_| {
            Ok(Turn {
                without: train(Variant::Without)?,
                ours: train(Variant::Ours)?,
                burns: train(Variant::Burns)?,
            })
        })
        .collect()
}

/// Trains, and returns the time from the end of the warm-up's last batch to the end of the last
/// batch. It includes as many validations and backups as timed epochs.
fn time(
    bench: &Bench,
    state: &State,
    learner: &Learner<Stack>,
    variant: Variant,
    cadence: Cadence,
) -> Result<Duration> {
    let dir = bench.scratch()?;
    let (feed, ends) = state.feed(cadence.lengths).note_epoch_ends();
    let training = training::supervised(dir.path(), feed, cadence.warm_up + cadence.epochs);
    training::run(variant.add_to(training, dir.path()), learner.clone())?;

    let ends: Vec<Instant> = ends.try_iter().skip(cadence.warm_up - 1).collect();
    let (begin, end) = ends.first().zip(ends.last()).context("no epoch ended")?;
    Ok(end.duration_since(*begin))
}

fn persist_time(bench: &Bench, state: &State, learner: &Learner<Stack>) -> Result<Duration> {
    const BACKUPS: usize = 4;
    let dir = bench.scratch()?;
    let times = ours::backups(state, learner, dir.path(), BACKUPS, |backup| {
        Ok(backup.persist)
    })?;
    let seconds = times.iter().skip(1).map(Duration::as_secs_f64);
    Ok(Duration::from_secs_f64(Spread::of(seconds)?.median))
}

fn batch_time(bench: &Bench, state: &State, learner: &Learner<Stack>) -> Result<Duration> {
    const BATCHES: usize = 8;
    let cadence = Cadence {
        lengths: EpochLengths {
            first: 2,
            later: BATCHES,
        },
        warm_up: 1,
        epochs: 1,
    };
    Ok(time(bench, state, learner, Variant::Without, cadence)? / BATCHES as u32)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_interval_is_ten_times_as_long_as_a_backup_takes() {
        let bench = Bench::new(Path::new("."), false);
        let cadence = Cadence::at_interval(&bench, seconds(3), seconds(2));
        assert_eq!(cadence.lengths.later, 15);
    }

    #[test]
    fn a_training_has_more_short_epochs() {
        assert_eq!(epochs(seconds(30), 1), 1);
        assert_eq!(epochs(seconds(30), 3), 3);
        assert_eq!(epochs(Duration::from_millis(500), 3), 4);
        assert_eq!(epochs(Duration::from_millis(1), 1), MAX_EPOCHS);
    }
}
