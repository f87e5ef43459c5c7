//! A training in a process of its own, which a test can have aborted.
//!
//! `trainee BACKEND BACKUP_DIR FREQUENCY ABORT_IN AT OUT`: `FREQUENCY` is a number of batches, or 0
//! for each epoch; `ABORT_IN` is `train`, `valid`, `files` or `nothing`, and `AT` the number of the
//! batch, or of the call to the filesystem, to abort in. What the training leaves is written to
//! `OUT`, behind the number of batches that were trained before this process, on a line of its own.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn_backup_restore::SaveFreq;
use burn_backup_store::Filesystem;
use burn_backup_store::testing::FaultyFilesystem;
use burn_backup_tests::{Backend, Halt, Training};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [backend, backup_dir, frequency, abort_in, at, out] = arguments.as_slice() else {
        eprintln!("usage: trainee BACKEND BACKUP_DIR FREQUENCY ABORT_IN AT OUT");
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
    let at = at.parse().unwrap();
    let mut backup = Training::backup(backup_dir).save_freq(frequency);
    let halt = match abort_in.as_str() {
        "train" => Halt::Abort(at),
        "valid" => Halt::AbortInValidation(at),
        "files" => {
            backup = backup.filesystem(aborting(at));
            Halt::Never
        }
        _ => Halt::Never,
    };
    let handle = backup.handle();
    let run = Training::new(*backend).run(backup, halt);
    let before = handle.restored_from().map_or(0, |at| at.global_step);
    std::fs::write(out, format!("{before}\n{}", run.legacy())).unwrap();
}

/// Aborts the process in the call number `at`.
fn aborting(at: usize) -> Arc<dyn Filesystem> {
    let calls = AtomicUsize::new(0);
    Arc::new(FaultyFilesystem::new(move |_, _| {
        if calls.fetch_add(1, Ordering::Relaxed) + 1 == at {
            std::process::abort();
        }
        Ok(())
    }))
}
