//! A training in a process of its own, which a test can have aborted.
//!
//! `trainee BACKEND BACKUP_DIR FREQUENCY ABORT_AT OUT`: `FREQUENCY` is a number of batches, or 0
//! for each epoch; `ABORT_AT` is the batch to abort in, or 0. What the training leaves is written
//! to `OUT`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use burn_backup_restore::SaveFreq;
use burn_backup_tests::{Backend, Halt, Training};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [backend, backup_dir, frequency, abort_at, out] = arguments.as_slice() else {
        eprintln!("usage: trainee BACKEND BACKUP_DIR FREQUENCY ABORT_AT OUT");
        std::process::exit(2);
    };
    let backend = Backend::ALL
        .iter()
        .find(|known| format!("{known:?}") == *backend)
        .unwrap();
    let frequency = match frequency.parse().unwrap() {
        0 => SaveFreq::Epoch,
        steps => SaveFreq::Steps(steps),
    };
    let halt = match abort_at.parse().unwrap() {
        0 => Halt::Never,
        batch => Halt::Abort(batch),
    };
    let backup = Training::backup(backup_dir).save_freq(frequency);
    let run = Training::new(*backend).run(backup, halt);
    std::fs::write(out, run.legacy()).unwrap();
}
