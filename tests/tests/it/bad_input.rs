//! Bad input: a clear error before the first batch, and an unchanged backup.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::lr_scheduler::{LrScheduler, LrSchedulerRecord};
use burn::optim::{AdamConfig, SgdConfig};
use burn::tensor::Device;
use burn::train::{ExecutionStrategy, Learner, MultiDeviceOptim};
use burn_backup_restore::{BackupAndRestore, BackupError, BackupExt as _, SaveFreq, StoreError};
use burn_backup_store::testing::{FaultyFilesystem, Operation};
use burn_backup_tests::{Backend, Halt, Hooks, Run, Training, model_records};
use test_fork::test;

use crate::process::trainee;
use crate::support::{contents, uninterrupted};

/// Asserts that the run was refused, and that the message contains each of `says`.
#[track_caller]
fn assert_refused(run: &Run, says: &[&str]) {
    assert_eq!(run.losses.len(), 0, "nothing is trained");
    assert!(run.interrupted.is_none());
    let message = run.backup_error().to_string();
    for part in says {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
    let shown = run.error.as_deref().unwrap().to_string();
    assert!(shown.contains(&message), "{shown}");
}

/// Leaves a backup in `dir`, taken after `batches` batches.
fn with_backup(training: &Training, dir: &Path, batches: usize) {
    let run = training.run(Training::backup(dir), Halt::Stop(batches));
    assert!(run.error.is_none());
}

/// A program that doesn't fit is refused and leaves the backup as it is. The right program then resumes.
#[track_caller]
fn assert_refused_untouched(
    batches: usize,
    says: &[&str],
    misfit: impl FnOnce(BackupAndRestore) -> Run,
) {
    let scratch = tempfile::tempdir().unwrap();
    let training = Training::new(Backend::Flex);
    with_backup(&training, scratch.path(), batches);
    let before = contents(scratch.path());
    let run = misfit(Training::backup(scratch.path()));
    assert_refused(&run, says);
    assert_refused(&run, &["not touched", "to start over"]);
    assert!(
        contents(scratch.path()) == before,
        "the backup is as it was"
    );

    let run = training.run(Training::backup(scratch.path()), Halt::Never);
    assert!(run.weights == uninterrupted(&training).weights);
}

#[test]
fn settings_that_make_no_sense_are_refused_and_nothing_is_created() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let training = Training::new(Backend::Flex);
    let refused = |backup: BackupAndRestore, says: &[&str]| {
        assert_refused(&training.run(backup, Halt::Never), says);
        assert!(!dir.exists());
    };
    refused(
        Training::backup(&dir).save_freq(0),
        &["SaveFreq::Steps(0)", "use Steps with 1 or more"],
    );
    refused(
        Training::backup(&dir).save_freq(Duration::ZERO),
        &["SaveFreq::Every(0ns)", "a duration above 0"],
    );
    refused(
        Training::backup(&dir).save_freq(SaveFreq::auto(-0.01)),
        &["max_overhead: -0.01", "a finite share above 0"],
    );
    refused(
        Training::backup(&dir).keep_last(0),
        &["keep_last(0)", "give 1 or more"],
    );
    refused(Training::backup(""), &["path is empty", "name a directory"]);
    let none = ExecutionStrategy::multi(Vec::new(), MultiDeviceOptim::OptimSharded);
    refused(
        Training::backup(&dir).execution(none),
        &["ExecutionStrategy::MultiDevice", "no devices"],
    );
}

#[test]
fn a_device_can_be_given() {
    for &backend in Backend::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let training = Training::new(backend);
        let single = ExecutionStrategy::single(backend.device());
        let backup = Training::backup(scratch.path()).execution(single);
        let run = training.run(backup, Halt::Never);
        assert!(run.error.is_none());
        assert!(run.weights == uninterrupted(&training).weights);
    }
}

#[test]
fn a_path_that_is_a_file_is_refused_and_the_file_stays() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("file");
    std::fs::write(&file, b"mine").unwrap();
    let run = Training::new(Backend::Flex).run(Training::backup(&file), Halt::Never);
    assert_refused(&run, &["is not a directory", "choose another path"]);
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
}

#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let filesystem = FaultyFilesystem::new(|operation, _| match operation {
        Operation::Lock => Err(std::io::ErrorKind::PermissionDenied.into()),
        _ => Ok(()),
    });
    let backup = Training::backup(scratch.path()).filesystem(Arc::new(filesystem));
    let run = Training::new(Backend::Flex).run(backup, Halt::Never);
    assert_refused(
        &run,
        &[
            "cannot lock",
            "check that the directory can be read and written",
        ],
    );
    let shown = run.error.as_deref().unwrap().to_string();
    assert!(
        shown.contains("permission denied"),
        "the cause is shown: {shown}"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_directory_that_cannot_be_created_is_refused() {
    // Nobody can create a directory there, not even root.
    let run = Training::new(Backend::Flex).run(Training::backup("/proc/backup"), Halt::Never);
    assert_refused(&run, &["cannot create '/proc/backup'"]);
}

#[test]
fn a_second_training_on_a_directory_in_use_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let options = burn_backup_store::OpenOptions::default();
    let held = burn_backup_store::Store::open(scratch.path(), options).unwrap();
    let run = Training::new(Backend::Flex).run(Training::backup(scratch.path()), Halt::Never);
    let process = format!("in use by process {}", std::process::id());
    assert_refused(&run, &[&process, "a directory of its own"]);
    drop(held);
    let run = Training::new(Backend::Flex).run(Training::backup(scratch.path()), Halt::Never);
    assert!(run.error.is_none());
}

#[test]
fn a_backup_of_another_model_is_refused_with_the_parameters_that_differ() {
    let says = [
        "'input.weight' is [6, 8] f32 in the backup and [6, 9] f32 in the program",
        "'input.bias' is [8] f32 in the backup and [9] f32 in the program",
        "and 4 more",
    ];
    assert_refused_untouched(7, &says, |backup| {
        let other = Training {
            hidden: 9,
            ..Training::new(Backend::Flex)
        };
        let run = other.run(backup, Halt::Never);
        let BackupError::ModelMismatch { differences, .. } = run.backup_error() else {
            panic!("{}", run.backup_error());
        };
        assert_eq!(differences.len(), 7);
        run
    });
}

#[test]
fn a_backup_of_another_optimizer_is_refused() {
    let says = [
        "another optimizer",
        "use the optimizer that made it",
        ": moment",
    ];
    assert_refused_untouched(7, &says, |backup| {
        let training = Training::new(Backend::Flex);
        training.run_with_learner(
            Halt::Never,
            |training, hooks| {
                let sgd = SgdConfig::new().init();
                Learner::new(training.model(hooks), sgd, training.schedule())
            },
            |builder| builder.backup_and_restore(backup),
        )
    });
}

/// A scheduler with the same rates and no state.
#[derive(Clone)]
struct Forgetful(ModuleLrScheduler);

impl LrScheduler for Forgetful {
    fn step(&mut self) -> f64 {
        self.0.step().base()
    }

    fn to_record(&self) -> LrSchedulerRecord {
        LrSchedulerRecord::new()
    }

    fn load_record(&mut self, _record: LrSchedulerRecord) {}
}

#[test]
fn a_backup_of_another_scheduler_is_refused() {
    let says = ["another learning-rate scheduler", "current_iter"];
    assert_refused_untouched(7, &says, |backup| {
        let training = Training::new(Backend::Flex);
        training.run_with_learner(
            Halt::Never,
            |training, hooks| {
                let adam = AdamConfig::new().init();
                let schedule = ModuleLrScheduler::new(Forgetful(training.schedule()));
                Learner::new(training.model(hooks), adam, schedule)
            },
            |builder| builder.backup_and_restore(backup),
        )
    });
}

/// A scheduler that panics when it loads a record, as Burn does with some records.
#[derive(Clone)]
struct Panicking(ModuleLrScheduler);

impl LrScheduler for Panicking {
    fn step(&mut self) -> f64 {
        self.0.step().base()
    }

    fn to_record(&self) -> LrSchedulerRecord {
        LrSchedulerRecord::new()
    }

    fn load_record(&mut self, _record: LrSchedulerRecord) {
        panic!("the test has it panic");
    }
}

#[test]
fn a_panic_while_restoring_is_an_error() {
    assert_refused_untouched(7, &["panicked", "the test has it panic"], |backup| {
        Training::new(Backend::Flex).run_with_learner(
            Halt::Never,
            |training, hooks| {
                let adam = AdamConfig::new().init();
                let schedule = ModuleLrScheduler::new(Panicking(training.schedule()));
                Learner::new(training.model(hooks), adam, schedule)
            },
            |builder| builder.backup_and_restore(backup),
        )
    });
}

#[test]
fn other_data_is_refused_wherever_the_training_was_interrupted() {
    // Within an epoch, with only its validation left, and between two epochs.
    for batches in [1, 7, 6, 12] {
        let more = Training {
            items: 23,
            ..Training::new(Backend::Flex)
        };
        let says = ["the number of items in an epoch was 22, and is 23 now"];
        assert_refused_untouched(batches, &says, |backup| more.run(backup, Halt::Never));

        let fewer = Training {
            items: 3,
            ..Training::new(Backend::Flex)
        };
        let says = ["the number of items in an epoch was 22, and is 3 now"];
        assert_refused_untouched(batches, &says, |backup| fewer.run(backup, Halt::Never));
    }
}

#[test]
fn another_batch_size_is_refused_wherever_the_training_was_interrupted() {
    let larger = Training {
        batch_size: 5,
        ..Training::new(Backend::Flex)
    };
    let run = |backup| larger.run(backup, Halt::Never);
    let says = ["the number of items in the first batch of an epoch was 4, and is 5 now"];
    for batches in [1, 7, 6, 12] {
        assert_refused_untouched(batches, &says, run);
    }
}

#[test]
fn another_batch_size_is_refused_between_epochs() {
    let scratch = tempfile::tempdir().unwrap();
    let training = Training::new(Backend::Flex);
    // The error loses the first batch of the third epoch. The backup is from the start of that epoch.
    training.run(Training::backup(scratch.path()), Halt::Fail(13));
    let before = contents(scratch.path());
    let larger = Training {
        batch_size: 5,
        ..training
    };
    let run = larger.run(Training::backup(scratch.path()), Halt::Never);
    assert_refused(
        &run,
        &["the number of items in the first batch of an epoch was 4, and is 5 now"],
    );
    assert!(contents(scratch.path()) == before);
}

#[test]
fn a_backup_made_with_another_seed_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let training = Training::new(Backend::Flex);
    with_backup(&training, scratch.path(), 7);
    let before = contents(scratch.path());
    let run = training.run(Training::backup(scratch.path()).seed(6), Halt::Never);
    assert_refused(&run, &["run seed was 5", "is 6 now", "to start over"]);
    assert!(contents(scratch.path()) == before);
}

#[test]
fn a_backup_of_a_newer_format_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let training = Training::new(Backend::Flex);
    with_backup(&training, scratch.path(), 7);
    let manifest = scratch.path().join("generations/00000002/manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let (sealed, _) = text.split_once(",\n  \"checksum\"").unwrap();
    let newer = sealed.replacen("\"format\": 2", "\"format\": 3", 1);
    let checksum = xxhash_rust::xxh3::xxh3_128(newer.as_bytes());
    let newer = format!("{newer},\n  \"checksum\": \"{checksum:032x}\"\n}}\n");
    std::fs::write(&manifest, newer).unwrap();
    let before = contents(scratch.path());
    let run = training.run(Training::backup(scratch.path()), Halt::Never);
    assert_refused(&run, &["format version 3", "update burn-backup-restore"]);
    assert!(matches!(
        run.backup_error(),
        BackupError::Store(StoreError::NewerFormat { .. })
    ));
    assert!(contents(scratch.path()) == before);
}

#[test]
fn somebody_elses_generations_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let store = burn_backup_store::Store::open(scratch.path(), Default::default()).unwrap();
    let _ = store.stage().unwrap().commit("not a training").unwrap();
    drop(store);
    let before = contents(scratch.path());
    let backup = BackupAndRestore::new(scratch.path());
    let run = Training::new(Backend::Flex).run(backup, Halt::Never);
    assert_refused(
        &run,
        &["was not made by burn-backup-restore", "not touched"],
    );
    assert!(contents(scratch.path()) == before);
}

#[test]
fn with_every_backup_damaged_the_training_is_refused_again_and_again() {
    let scratch = tempfile::tempdir().unwrap();
    let training = Training::new(Backend::Flex);
    with_backup(&training, scratch.path(), 7);
    let part = scratch.path().join("generations/00000002/model.bpk");
    std::fs::write(part, b"").unwrap();
    for _ in 0..2 {
        let run = training.run(Training::backup(scratch.path()), Halt::Never);
        assert_refused(
            &run,
            &["no undamaged backup is left", "delete the backup directory"],
        );
    }
}

#[test]
fn a_refused_training_ends_for_the_renderer_and_returns_the_model() {
    let training = Training::new(Backend::Flex);
    let run = training.run(Training::backup("").save_freq(SaveFreq::Epoch), Halt::Never);
    assert_eq!(run.calls, ["end", "on_train_end"]);
    let _exclusive = Training::exclusive();
    let untrained = training.model(Hooks::default());
    assert!(run.weights == model_records(&untrained));
}

#[test]
fn a_training_strategy_set_after_the_line_reports_that_it_runs_without_backups() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    for (told, is_warned) in [(&["replaced@1"][..], true), (&[], false)] {
        let output = trainee(Backend::Flex, &dir, 1, told).output().unwrap();
        assert!(output.status.success());
        let stderr = String::from_utf8(output.stderr).unwrap();
        let says =
            stderr.contains("WITHOUT BACKUPS") && stderr.contains("the last line before launch");
        assert_eq!(says, is_warned, "{stderr}");
        assert!(!dir.exists());
    }
}

#[test]
fn gradient_checkpointing_is_passed_on_by_the_backups_builder() {
    let plain = Training::new(Backend::Flex);
    let training = Training {
        devices: vec![Device::flex().autodiff().gradient_checkpointing()],
        ..plain.clone()
    };
    let expected = uninterrupted(&plain);
    let scratch = tempfile::tempdir().unwrap();
    let backup = || Training::backup(scratch.path()).gradient_checkpointing();
    // Gradient checkpointing shows only on the device of the batches.
    let seen = Arc::new(Mutex::new(Vec::new()));
    for halt in [Halt::Stop(8), Halt::Never] {
        let run = training.run_with_learner(
            halt,
            |training, hooks: Hooks| {
                let seen = seen.clone();
                training.learner(hooks.on_device(move |device| {
                    let strategy = device.gradient_checkpointing_strategy();
                    seen.lock().unwrap().push(format!("{strategy:?}"));
                }))
            },
            |builder| builder.backup_and_restore(backup()),
        );
        assert!(run.error.is_none());
        if halt == Halt::Never {
            assert!(run.weights == expected.weights);
        }
    }
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 18);
    assert!(
        seen.iter().all(|strategy| strategy == "Some(Balanced)"),
        "{seen:?}"
    );
}

/// Burn panics in the first operation on both a batch and a parameter.
#[test]
fn gradient_checkpointing_on_a_model_made_without_it_is_refused() {
    let training = Training::new(Backend::Flex);
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let run = training.run(Training::backup(&dir).gradient_checkpointing(), Halt::Never);
    assert_refused(
        &run,
        &[
            "Balanced",
            "Disabled",
            "device.autodiff().gradient_checkpointing()",
        ],
    );
    assert!(!dir.exists());
}

/// A loader that does not report its progress can be compared by its batches only.
#[test]
fn fewer_batches_are_refused_also_from_a_loader_without_progress() {
    let training = Training {
        silent_loader: true,
        ..Training::new(Backend::Flex)
    };
    let scratch = tempfile::tempdir().unwrap();
    with_backup(&training, scratch.path(), 5);
    let shorter = Training {
        items: 12,
        ..training
    };
    let run = shorter.run(Training::backup(scratch.path()), Halt::Never);
    assert_refused(
        &run,
        &["the number of batches in an epoch", "was 5", "is 3 now"],
    );
}
