//! `kill -9` at random moments, again and again, until the training is done.
//!
//! The seed of the moments is printed. To repeat a failure, set it in the environment variable `KILL_SEED`.
//! `KILLS` is the number of kills.

use std::time::{Duration, Instant};

use burn_backup_store::testing::report;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::trainee::{End, Scratch, damage};

const DEFAULT_KILLS: u64 = 300;

/// Parts of the lines that a training logs.
const OPEN: &str = "' is open";
const RESTORED: &str = "restored from backup";
const COMMITTED: &str = "burn_backup::commit] backup ";
const REMOVING: &str = "removing the backup in";
const REMOVED: &str = "backup' removed";

/// When a process is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// At any time.
    Any,
    /// From when it has the directory until it has restored.
    Restore,
    /// The same, with the newest backup damaged.
    Quarantine,
    /// From when it begins to delete the backup.
    Deletion,
}

/// How long things take on this machine.
struct Times {
    whole: Duration,
    restore: Duration,
    deletion: Duration,
}

/// How many kills came in which phase.
#[derive(Debug, Default)]
struct Tally {
    restore: u64,
    quarantine: u64,
    training: u64,
    deletion: u64,
    /// Kills in the deletion that left it half done.
    half_deleted: u64,
    trainings: u64,
}

impl Tally {
    fn kills(&self) -> u64 {
        self.restore + self.quarantine + self.training + self.deletion
    }
}

pub fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap())
}

/// An uninterrupted training's digest, and how long things take.
fn uninterrupted() -> (String, Times) {
    let scratch = Scratch::new();
    let mut process = scratch.start();
    let removing = process.wait_for(REMOVING).unwrap();
    let removed = process.wait_for(REMOVED).unwrap();
    let started = process.started();
    let (End::Finished { digest }, _) = process.end() else {
        panic!("nobody kills it");
    };
    let whole = started.elapsed();

    // A second process is killed once there is something to restore.
    let mut process = scratch.start();
    process.wait_for(COMMITTED).unwrap();
    process.wait_for(COMMITTED).unwrap();
    process.kill();
    let mut process = scratch.start();
    let open = process.wait_for(OPEN).unwrap();
    let restored = process.wait_for(RESTORED).unwrap();
    process.kill();
    let times = Times {
        whole,
        restore: restored - open,
        deletion: removed - removing,
    };
    (digest, times)
}

/// Runs a training until it is done, and kills its processes at random moments. Returns its digest.
fn train_and_kill(random: &mut StdRng, times: &Times, tally: &mut Tally) -> String {
    let scratch = Scratch::new();
    loop {
        let generations = scratch.generations();
        let moment = match random.random_range(0..10) {
            0..=3 => Moment::Any,
            4..=5 => Moment::Restore,
            6..=7 if generations.len() > 1 => Moment::Quarantine,
            6..=8 => Moment::Restore,
            _ => Moment::Deletion,
        };
        if let (Moment::Quarantine, Some(newest)) = (moment, generations.last()) {
            damage(newest);
        }
        let mut process = scratch.start();
        let span = match moment {
            Moment::Any => times.whole,
            Moment::Restore | Moment::Quarantine => {
                process.wait_for(OPEN);
                times.restore
            }
            Moment::Deletion => {
                process.wait_for(REMOVING);
                times.deletion
            }
        };
        process.run_for(span.mul_f64(random.random()));
        let (end, said) = process.kill();
        let has_said = |what: &str| said.iter().any(|line| line.contains(what));
        match (end, moment) {
            (End::Finished { digest }, _) => return digest,
            (End::Killed, _) if has_said(REMOVING) => {
                tally.deletion += 1;
                let is_half_done = scratch.backup().exists() && scratch.generations().is_empty();
                tally.half_deleted += u64::from(is_half_done);
            }
            (End::Killed, Moment::Quarantine) if has_said(OPEN) && !has_said(RESTORED) => {
                tally.quarantine += 1;
            }
            (End::Killed, _)
                if has_said(OPEN) && !has_said(RESTORED) && !generations.is_empty() =>
            {
                tally.restore += 1;
            }
            (End::Killed, _) => tally.training += 1,
            (End::Interrupted, _) => panic!("nobody gives it notice"),
        }
    }
}

#[test]
fn killed_at_random_moments_every_training_ends_with_the_uninterrupted_digest() {
    let seed = from_environment("KILL_SEED").unwrap_or_else(rand::random);
    let kills = from_environment("KILLS").unwrap_or(DEFAULT_KILLS);
    report(&format!("kill -9: KILL_SEED={seed}"));
    let (expected, times) = uninterrupted();
    let begun = Instant::now();
    let mut random = StdRng::seed_from_u64(seed);
    let mut tally = Tally::default();
    while tally.kills() < kills {
        let digest = train_and_kill(&mut random, &times, &mut tally);
        assert_eq!(digest, expected, "KILL_SEED={seed}, {tally:?}");
        tally.trainings += 1;
    }
    report(&format!(
        "kill -9: {} kills in {} trainings and {:.0?}: {} before or in training, {} in a restore, {} \
         in a restore with a damaged backup, {} in the deletion at the end, which was half done {} \
         times",
        tally.kills(),
        tally.trainings,
        begun.elapsed(),
        tally.training,
        tally.restore,
        tally.quarantine,
        tally.deletion,
        tally.half_deleted,
    ));
    if kills >= DEFAULT_KILLS {
        let Tally {
            restore,
            quarantine,
            training,
            deletion,
            half_deleted,
            ..
        } = tally;
        for kind in [restore, quarantine, training, deletion, half_deleted] {
            assert!(kind > 0, "{tally:?}");
        }
    }
}
