//! A training as a user's program runs it, with Burn's own renderer. This is its dashboard if the standard
//! output is a terminal.
//!
//! `dashboard BACKUP_DIR EPOCHS [WHAT@AT]..`: each instruction says what to do, and in which training batch,
//! counted from 1:
//!
//! - `stop`: its user stops it. `fail`: an error ends it. `panic`: it panics.
//! - `signals`: it takes SIGTERM as a preemption notice. `term`: it sends itself that signal. `exit`: it then
//!   exits with that code.
//! - `never`: it takes no backups on its own.
//! - `keep`: it keeps the backup at its end.
//! - `workers`: it loads with so many workers of Burn's.
//! - `drop`: it drops the renderer before it prints.
//! - `hold`: it continues to use the renderer after the training, and waits until it is killed.
//! - `slow`: it reads from its backups only once the file `go` is beside them.
//! - `mirror`: it mirrors to the directory `mirror` beside its backups, a thousand bytes per second.
//! - `silent`: it uses a renderer of its own, which leaves the terminal alone.
//! - `by-hand`: it trains in a loop written by hand, which has no dashboard, and is stopped there.
//!
//! After the training it prints `the program goes on`. It keeps the result until it ends.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![expect(clippy::print_stdout, reason = "as programs of users do")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use burn::train::logger::InMemoryMetricLogger;
use burn::train::{Interrupter, TrainingError};
use burn_backup_restore::{
    AfterPreemption, BackupAndRestore, BackupExt as _, Mirror, Preemption, SaveFreq,
};
use burn_backup_store::testing::{FaultyFilesystem, Operation};
use burn_backup_tests::{Backend, Halt, Hooks, Loop, LoopHalt, RecordingRenderer, Training};
use signal_hook::consts::SIGTERM;
use signal_hook::low_level::raise;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [backup_dir, epochs, told @ ..] = arguments.as_slice() else {
        panic!("usage: dashboard BACKUP_DIR EPOCHS [WHAT@AT]..");
    };
    let told: Vec<(String, usize)> = told
        .iter()
        .map(|told| told.split_once('@').unwrap())
        .map(|(what, at)| (what.to_owned(), at.parse().unwrap()))
        .collect();
    let told_of = |which: &str| {
        let mut told = told.iter();
        told.find(|(what, _)| what == which).map(|(_, at)| *at)
    };

    let mut backup = BackupAndRestore::new(backup_dir)
        .seed(5)
        .delete_checkpoint(told_of("keep").is_none());
    if told_of("never").is_some() {
        backup = backup.save_freq(SaveFreq::Never);
    }
    if told_of("signals").is_some() {
        let preemption = match told_of("exit") {
            Some(code) => {
                Preemption::signals().after(AfterPreemption::Exit(code.try_into().unwrap()))
            }
            None => Preemption::signals(),
        };
        backup = backup.save_before_preemption(preemption);
    }
    if told_of("slow").is_some() {
        backup = backup.filesystem(Arc::new(slow(Path::new(backup_dir))));
    }
    if told_of("mirror").is_some() {
        let place = Path::new(backup_dir).with_file_name("mirror");
        std::fs::create_dir_all(&place).unwrap();
        let url = format!("file://{}", place.display());
        backup = backup.mirror(Mirror::new(url).max_bytes_per_second(1000));
    }
    if let Some(batch) = told_of("by-hand") {
        let program = Loop::new(Backend::Flex);
        let run = program.run(backup.save_freq(1), LoopHalt::Stop(batch));
        println!("{:?}", run.outcome);
        return;
    }
    let workers = told_of("workers").unwrap_or(0);
    let drops = told_of("drop").is_some();
    let holds = told_of("hold").is_some();
    let is_silent = told_of("silent").is_some();
    let interrupter = Interrupter::new();
    let stopped = interrupter.clone();
    let hooks = Hooks::default().on_train(move |at| {
        for (what, when) in &told {
            if *when == at {
                obey(what, &stopped);
            }
        }
    });
    let training = Training {
        epochs: epochs.parse().unwrap(),
        workers,
        ..Training::new(Backend::Flex)
    };
    let artifacts = Path::new(backup_dir).with_file_name("artifacts");
    let learner = training.learner(hooks);
    let mut builder = training
        .builder(&artifacts, interrupter, Halt::Never)
        .with_metric_logger(InMemoryMetricLogger::new());
    if is_silent {
        builder = builder.renderer(Box::<RecordingRenderer>::default());
    }
    let mut result = builder.backup_and_restore(backup).launch(learner);
    if holds {
        let event = "Evaluated".to_owned();
        result.renderer.log_event_evaluation(event);
        loop {
            std::thread::park();
        }
    }
    // A program that never looks at the renderer keeps it to its end.
    let held = (!drops).then_some(result.renderer);
    println!("the program goes on");
    drop(held);
}

/// A disk that reads nothing of a part before the file `go` exists.
fn slow(backup_dir: &Path) -> FaultyFilesystem {
    let go = backup_dir.with_file_name("go");
    FaultyFilesystem::new(move |operation, path| {
        let is_part = path.extension().is_some_and(|extension| extension == "bpk");
        while operation == Operation::Read && is_part && !go.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    })
}

fn obey(what: &str, interrupter: &Interrupter) {
    match what {
        "stop" => interrupter.stop(Some("its user stops it")),
        "fail" => interrupter.fail(TrainingError::Workers(Vec::new())),
        "panic" => panic!("the model panics"),
        "term" => raise(SIGTERM).unwrap(),
        _ => {}
    }
}
