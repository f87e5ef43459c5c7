//! The time from the launch of a restored training to the end of its first batch.
//!
//! Ours is completely verified by then. Burn's own is not verified, and is read lazily, so the
//! first batch is included. All files are in the page cache, as after the end of the previous
//! process.

use std::path::Path;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use burn::train::checkpoint::CheckpointingAction;
use burn_backup_restore::{BackupAndRestore, BackupExt as _, SaveFreq};

use crate::bench::Bench;
use crate::burns::{self, Always};
use crate::feed::EpochLengths;
use crate::goals::Goals;
use crate::row::{Goal, Row};
use crate::spread::Spread;
use crate::state::State;
use crate::training;

/// The name of the measurement.
pub const NAME: &str = "restore";

/// Each epoch has one batch. The training is restored to the end of the first epoch.
const TRAINED_EPOCHS: usize = 1;

/// Measures the time on all states.
pub fn measure(bench: &Bench) -> Result<Vec<Row>> {
    bench
        .states()
        .iter()
        .map(|state| measure_state(bench, state))
        .collect()
}

fn measure_state(bench: &Bench, state: &State) -> Result<Row> {
    bench.announce(NAME, state);
    let dir = bench.scratch()?;
    let (backup, checkpoint) = (dir.path().join("backup"), dir.path().join("checkpoint"));
    back_up(state, &backup)?;
    make_checkpoint(state, &checkpoint)?;

    let (mut ours, mut burns, mut limit) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..=bench.turns() {
        ours.push(restore_ours(state, &backup)?);
        burns.push(restore_burns(state, &checkpoint)?);
        limit.push(read(&checkpoint)?);
    }
    // The first sample of each only warms up.
    let after_warm_up = |times: &[Duration]| times.iter().copied().skip(1).collect::<Vec<_>>();
    let ratios = ours
        .iter()
        .zip(&burns)
        .skip(1)
        .map(|(ours, burns)| ours.as_secs_f64() / burns.as_secs_f64());
    Ok(
        Row::new(NAME, state.name, "launch to first batch trained", "ms")
            .ours(Spread::of_milliseconds(after_warm_up(&ours))?)
            .burns(Spread::of_milliseconds(after_warm_up(&burns))?)
            .limit(Spread::of_milliseconds(after_warm_up(&limit))?)
            .ratio("Burn's", Spread::of(ratios)?)
            .goal(Goal::RatioAtMost(Goals::of(state).restore)),
    )
}

/// Runs a training that ends early and leaves its backup to the restored one.
fn back_up(state: &State, dir: &Path) -> Result<()> {
    let backup = BackupAndRestore::new(dir).delete_checkpoint(false);
    let feed = state.feed(EpochLengths::all(1));
    let training = training::supervised(dir, feed, TRAINED_EPOCHS).backup_and_restore(backup);
    training::run(training, state.fresh_learner())
}

fn make_checkpoint(state: &State, dir: &Path) -> Result<()> {
    let feed = state.feed(EpochLengths::all(1));
    let training = training::supervised(dir, feed, TRAINED_EPOCHS);
    let save = Always(vec![CheckpointingAction::Save]);
    let training = burns::with_checkpoints(training, dir, save);
    training::run(training, state.fresh_learner())
}

/// Continues for one epoch. It takes no further backup, so the existing one stays unchanged.
fn restore_ours(state: &State, dir: &Path) -> Result<Duration> {
    let backup = BackupAndRestore::new(dir)
        .save_freq(SaveFreq::Never)
        .delete_checkpoint(false);
    let handle = backup.handle();
    let (feed, ends) = state.feed(EpochLengths::all(1)).note_epoch_ends();
    let training = training::supervised(dir, feed, TRAINED_EPOCHS + 1).backup_and_restore(backup);
    let learner = state.fresh_learner();

    let launched = Instant::now();
    training::run(training, learner)?;
    ensure!(handle.restored_from().is_some(), "nothing was restored");
    first_batch_trained(launched, &ends)
}

fn restore_burns(state: &State, dir: &Path) -> Result<Duration> {
    let (feed, ends) = state.feed(EpochLengths::all(1)).note_epoch_ends();
    let training = training::supervised(dir, feed, TRAINED_EPOCHS + 1).checkpoint(TRAINED_EPOCHS);
    let training = burns::with_checkpoints(training, dir, Always(Vec::new()));
    let learner = state.fresh_learner();

    let launched = Instant::now();
    training::run(training, learner)?;
    first_batch_trained(launched, &ends)
}

fn first_batch_trained(launched: Instant, ends: &Receiver<Instant>) -> Result<Duration> {
    let end = ends.try_recv().context("no batch was trained")?;
    Ok(end.duration_since(launched))
}

/// Reads the bytes of the checkpoint into new memory.
fn read(checkpoint: &Path) -> Result<Duration> {
    let started = Instant::now();
    let contents = burns::checkpoint_files(checkpoint, TRAINED_EPOCHS)
        .iter()
        .map(|file| std::fs::read(file).with_context(|| format!("cannot read {file:?}")))
        .collect::<Result<Vec<_>>>()?;
    let took = started.elapsed();
    drop(contents);
    Ok(took)
}
