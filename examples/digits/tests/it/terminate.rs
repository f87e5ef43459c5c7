//! SIGTERM at random moments, again and again, until the training is done.
//!
//! The seed of the moments is printed. To repeat a failure, set it in the environment variable `TERM_SEED`.
//! `TERMS` is the number of interruptions.

use std::time::Instant;

use burn_backup_store::testing::report;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::kill::from_environment;
use crate::trainee::{End, Scratch};

const DEFAULT_TERMS: u64 = 60;

#[test]
fn terminated_at_random_moments_every_training_exits_well_and_ends_as_if_uninterrupted() {
    let seed = from_environment("TERM_SEED").unwrap_or_else(rand::random);
    let terms = from_environment("TERMS").unwrap_or(DEFAULT_TERMS);
    report(&format!("kill -TERM: TERM_SEED={seed}"));

    let whole = Scratch::new();
    let process = whole.start();
    let started = process.started();
    let (End::Finished { digest: expected }, _) = process.end() else {
        panic!("nobody disturbs it");
    };
    let takes = started.elapsed();
    let logs = whole.metric_logs();
    assert!(!logs.is_empty());

    let begun = Instant::now();
    let mut random = StdRng::seed_from_u64(seed);
    let (mut interrupted, mut killed, mut trainings) = (0, 0, 0);
    while interrupted < terms {
        let scratch = Scratch::new();
        let digest = loop {
            let mut process = scratch.start();
            process.run_for(takes.mul_f64(random.random()));
            match process.terminate().0 {
                End::Finished { digest } => break digest,
                End::Interrupted => interrupted += 1,
                // Before the training was launched.
                End::Killed => killed += 1,
            }
        };
        assert_eq!(digest, expected, "TERM_SEED={seed}");
        assert!(scratch.metric_logs() == logs, "TERM_SEED={seed}");
        trainings += 1;
    }
    report(&format!(
        "kill -TERM: {interrupted} interruptions in {trainings} trainings and {:.0?}, and {killed} \
         before the launch or after it",
        begun.elapsed(),
    ));
}
