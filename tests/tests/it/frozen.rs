//! Fine-tunings: parameters that training does not change are written once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::module::{Module as _, ModuleMapper, Param};
use burn::store::ModuleRecord;
use burn::tensor::Tensor;
use burn_backup_restore::{
    BackupAndRestore, BackupError, BackupStats, Change, Position, SaveFreq, Snapshot,
};
use burn_backup_store::testing::{Failure, FaultyFilesystem, Operation};
use burn_backup_tests::{Backend, Halt, Hooks, Run, Training, Tuning, model_records, report};
use test_fork::test;

use crate::support::{
    assert_exact, contents, generations, part, saved_model, stopped_models, uninterrupted,
};

/// Two epochs of three batches, on a frozen backbone of more than a megabyte.
fn tuning(backend: Backend) -> Training {
    Training {
        epochs: 2,
        items: 11,
        tuning: Some(Tuning::DEFAULT),
        ..Training::new(backend)
    }
}

/// A fine-tuning in which nothing changes without a gradient.
fn still() -> Training {
    Training {
        tuning: Some(Tuning {
            is_still: true,
            ..Tuning::DEFAULT
        }),
        ..tuning(Backend::Flex)
    }
}

fn each_batch(dir: &Path) -> BackupAndRestore {
    Training::backup(dir).save_freq(1)
}

/// The number of bytes written for the committed backups.
fn written(stats: &BackupStats) -> u64 {
    stats.bytes - stats.linked
}

/// The file of a generation's frozen part.
fn frozen_file(dir: &Path, generation: usize) -> PathBuf {
    dir.join(format!("generations/{generation:08}/frozen.bpk"))
}

/// Whether two generations share the file of their frozen parts. Where the platform can't show that, returns
/// `presumed`.
fn share(dir: &Path, (a, b): (usize, usize), presumed: bool) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;

        let _ = presumed;
        let [a, b] = [a, b].map(|generation| {
            let metadata = frozen_file(dir, generation).metadata().unwrap();
            (metadata.dev(), metadata.ino())
        });
        a == b
    }
    #[cfg(not(unix))]
    {
        let _ = (dir, a, b);
        presumed
    }
}

#[test]
fn interrupted_at_any_batch_a_fine_tuning_ends_as_if_uninterrupted() {
    for &backend in Backend::ALL {
        let training = tuning(backend);
        let expected = uninterrupted(&training);
        for batch in 1..=6 {
            for halt in [Halt::Stop(batch), Halt::Fail(batch)] {
                assert_exact(&training, &expected, |b| b.save_freq(1), &[halt]);
            }
        }
    }
}

#[test]
fn with_blocking_snapshots_and_fewer_backups_it_ends_as_if_uninterrupted() {
    let training = tuning(Backend::Flex);
    let expected = uninterrupted(&training);
    for (frequency, snapshot) in [
        (SaveFreq::Steps(1), Snapshot::Blocking),
        (SaveFreq::Steps(2), Snapshot::Shared),
    ] {
        let configure = |b: BackupAndRestore| b.save_freq(frequency).snapshot(snapshot);
        for batch in 1..=6 {
            assert_exact(&training, &expected, configure, &[Halt::Fail(batch)]);
        }
        assert_exact(&training, &expected, configure, &[Halt::Stop(5)]);
    }
}

#[test]
fn interrupted_several_times_a_fine_tuning_ends_as_if_uninterrupted() {
    use Halt::{Fail, Stop, StopInValidation};

    for training in [tuning(Backend::Flex), still()] {
        let expected = uninterrupted(&training);
        for halts in [
            &[Stop(1), Stop(1), Stop(1), Stop(1), Stop(1)][..],
            &[Stop(3), StopInValidation(2), Fail(2), Stop(2)],
            &[Fail(5), Fail(2), Stop(1)],
        ] {
            for frequency in [SaveFreq::Epoch, SaveFreq::Steps(1)] {
                let configure = |b: BackupAndRestore| b.save_freq(frequency).keep_last(2);
                assert_exact(&training, &expected, configure, halts);
            }
        }
    }
}

#[test]
fn initial_weights_of_a_restart_make_no_difference() {
    for training in [tuning(Backend::Flex), still()] {
        let expected = uninterrupted(&training);
        let other = Training {
            weights_seed: 4,
            ..training.clone()
        };
        assert!(uninterrupted(&other).weights != expected.weights);
        for batch in [1, 2, 4] {
            let scratch = tempfile::tempdir().unwrap();
            training.run(each_batch(scratch.path()), Halt::Stop(batch));
            other.run(each_batch(scratch.path()), Halt::Stop(1));
            let run = other.run(each_batch(scratch.path()), Halt::Never);
            assert!(run.weights == expected.weights, "after {batch}");
            assert!(run.records == expected.records, "after {batch}");
        }
    }
}

#[test]
fn from_the_second_backup_on_only_what_is_trained_is_written() {
    for snapshot in [Snapshot::Shared, Snapshot::Blocking] {
        let scratch = tempfile::tempdir().unwrap();
        let backup = each_batch(scratch.path()).keep_last(2).snapshot(snapshot);
        let backup = backup.delete_checkpoint(false);
        let handle = backup.handle();
        still().run(backup, Halt::Never);

        let stats = handle.stats();
        // One after each batch, and one after the last validation.
        assert_eq!((stats.committed, stats.failed), (7, 0));
        let whole = stats.bytes / stats.committed;
        let later = written(&stats) - whole;
        assert!(later <= 6 * whole * 15 / 100, "{later} of {whole} each");
        assert_eq!(generations(scratch.path()), ["00000006", "00000007"]);
        assert!(share(scratch.path(), (6, 7), stats.linked > 0));
        // Linked or not, each generation is complete.
        for generation in [6, 7] {
            let model = saved_model(scratch.path(), generation);
            assert_eq!(model.len(), 16, "{:?}", model.keys());
        }
    }
}

#[test]
fn what_changes_without_a_gradient_leaves_the_frozen_part() {
    let scratch = tempfile::tempdir().unwrap();
    let training = tuning(Backend::Flex);
    let backup = each_batch(scratch.path()).keep_last(usize::MAX);
    let handle = backup.handle();
    training.run(backup, Halt::Stop(6));
    let frozen = |generation| -> BTreeSet<String> {
        let part = part(scratch.path(), generation, "frozen");
        part.into_keys().collect()
    };

    let weights = ["widen", "mix"].map(|layer| format!("backbone.{layer}"));
    let weights = weights
        .iter()
        .flat_map(|l| [format!("{l}.weight"), format!("{l}.bias")]);
    let weights: BTreeSet<_> = weights.collect();
    let with = |names: &[&str]| -> BTreeSet<String> {
        let names = names.iter().map(|name| (*name).to_owned());
        weights.iter().cloned().chain(names).collect()
    };
    // At first, nothing is known to change. Then the statistics and the step counter were seen to change.
    let statistics = ["norm.running_mean", "norm.running_var", "steps"];
    let all: Vec<_> = statistics
        .into_iter()
        .chain(["backbone.milestones"])
        .collect();
    assert_eq!(frozen(1), with(&all));
    assert_eq!(frozen(2), with(&["backbone.milestones"]));
    assert_eq!(frozen(3), frozen(2));
    // A milestone was reached in the fourth step, after it had stayed the same for long.
    assert_eq!(frozen(4), with(&[]));
    assert_eq!(frozen(6), with(&[]));

    let is_linked = [(1, 2), (2, 3), (3, 4), (4, 5), (5, 6)].map(|pair| {
        let presumed = matches!(pair, (2, 3) | (4, 5) | (5, 6));
        share(scratch.path(), pair, presumed)
    });
    assert_eq!(is_linked, [false, true, false, true, true]);
    let stats = handle.stats();
    // The stop in the last batch of the epoch saves once more, to record that all its batches are trained.
    let linked: u64 = [3, 5, 6, 7]
        .map(|generation| {
            frozen_file(scratch.path(), generation)
                .metadata()
                .unwrap()
                .len()
        })
        .iter()
        .sum();
    assert_eq!(stats.linked, linked);
}

#[test]
fn each_backup_of_a_fine_tuning_holds_every_value_of_that_very_batch() {
    for &backend in Backend::ALL {
        let training = tuning(backend);
        let stopped = stopped_models(&training, 1..=6);
        for snapshot in [Snapshot::Shared, Snapshot::Blocking] {
            let scratch = tempfile::tempdir().unwrap();
            let backup = each_batch(scratch.path()).keep_last(usize::MAX);
            training.run(backup.snapshot(snapshot), Halt::Stop(6));
            for (expected, generation) in stopped.iter().zip(1..) {
                let saved = saved_model(scratch.path(), generation);
                assert!(saved.keys().eq(expected.keys()), "{:?}", saved.keys());
                for (name, tensor) in expected {
                    assert!(
                        saved[name] == *tensor,
                        "{name} in {generation}, {snapshot:?}"
                    );
                }
            }
        }
        let milestones = |model: usize| &stopped[model - 1]["backbone.milestones"];
        assert!(milestones(1) == milestones(3) && milestones(3) != milestones(4));
    }
}

#[test]
fn after_a_restart_the_first_backup_is_linked_too() {
    let scratch = tempfile::tempdir().unwrap();
    let training = Training {
        epochs: 3,
        ..tuning(Backend::Flex)
    };
    // Trains up to the next milestone, in the eighth step.
    training.run(each_batch(scratch.path()), Halt::Fail(6));
    for _ in 0..2 {
        let backup = each_batch(scratch.path()).keep_last(2);
        let handle = backup.handle();
        training.run(backup, Halt::Fail(2));
        let stats = handle.stats();
        assert_eq!((stats.committed, stats.failed), (1, 0));
        assert!(written(&stats) <= stats.bytes * 15 / 100, "{stats:?}");
    }
    assert_eq!(generations(scratch.path()), ["00000006", "00000007"]);
    assert!(share(scratch.path(), (6, 7), true));
}

#[test]
fn without_hard_links_everything_is_written_and_it_ends_as_if_uninterrupted() {
    let training = tuning(Backend::Flex);
    let expected = uninterrupted(&training);
    let without_links = |backup: BackupAndRestore| {
        backup.filesystem(Arc::new(FaultyFilesystem::new(
            |operation, _| match operation {
                Operation::Link => Err(std::io::ErrorKind::Unsupported.into()),
                _ => Ok(()),
            },
        )))
    };
    let configure = |backup: BackupAndRestore| without_links(backup.save_freq(1));
    for halt in [Halt::Stop(4), Halt::Fail(5)] {
        assert_exact(&training, &expected, configure, &[halt]);
    }

    let scratch = tempfile::tempdir().unwrap();
    let backup = without_links(each_batch(scratch.path()).keep_last(2));
    let handle = backup.handle();
    training.run(backup, Halt::Stop(6));
    let stats = handle.stats();
    // One after each batch, and one that records that all batches of the epoch are trained.
    assert_eq!((stats.committed, stats.failed, stats.linked), (7, 0, 0));
    assert!(!share(scratch.path(), (6, 7), false));
}

#[test]
fn a_frozen_file_that_disappears_while_training_is_written_again() {
    let training = still();
    let expected = uninterrupted(&training);
    let scratch = tempfile::tempdir().unwrap();
    let links = AtomicUsize::new(0);
    let dir = scratch.path().to_owned();
    let filesystem = FaultyFilesystem::new(move |operation, _| {
        // The link from the third backup to the second one.
        if operation == Operation::Link && links.fetch_add(1, Ordering::Relaxed) == 1 {
            std::fs::remove_file(frozen_file(&dir, 2)).unwrap();
        }
        Ok(())
    });
    let backup = each_batch(scratch.path()).filesystem(Arc::new(filesystem));
    let handle = backup.handle();
    training.run(backup, Halt::Fail(5));
    let stats = handle.stats();
    assert_eq!((stats.committed, stats.failed), (4, 0));
    let len = frozen_file(scratch.path(), 4).metadata().unwrap().len();
    assert_eq!(stats.linked, 2 * len, "all except the first and the third");
    let run = training.run(Training::backup(scratch.path()), Halt::Never);
    assert!(run.weights == expected.weights);
}

/// Damages a frozen file.
type Damage = fn(&Path);

const DAMAGES: [Damage; 4] = [
    |file| std::fs::remove_file(file).unwrap(),
    |file| std::fs::write(file, b"").unwrap(),
    |file| {
        let mut bytes = std::fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        *bytes.get_mut(middle).unwrap() ^= 1;
        std::fs::write(file, bytes).unwrap();
    },
    |file| {
        let mut bytes = std::fs::read(file).unwrap();
        bytes.push(0);
        std::fs::write(file, bytes).unwrap();
    },
];

#[test]
fn a_damaged_or_missing_frozen_file_is_found_and_the_previous_backup_is_restored() {
    let training = tuning(Backend::Flex);
    let expected = uninterrupted(&training);
    for damage in DAMAGES {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("backup");
        // The running statistics changed in between, so the two backups share no file.
        training.run(each_batch(&dir).keep_last(2), Halt::Fail(3));
        damage(&frozen_file(&dir, 2));
        let backup = Training::backup(&dir).delete_checkpoint(false);
        let handle = backup.handle();
        let run = training.run(backup, Halt::Never);
        assert!(run.error.is_none(), "{:?}", run.error);
        assert_eq!(handle.restored_from().map(|at| at.global_step), Some(1));
        assert!(run.weights == expected.weights);
        let reason = dir.join("quarantine/00000002/reason.txt");
        let reason = std::fs::read_to_string(reason).unwrap();
        assert!(reason.contains("frozen.bpk"), "{reason}");
    }
}

#[test]
fn damage_to_a_file_that_all_backups_share_is_found_in_each_of_them() {
    let training = still();
    for damage in DAMAGES.into_iter().skip(1) {
        let scratch = tempfile::tempdir().unwrap();
        training.run(each_batch(scratch.path()).keep_last(2), Halt::Fail(3));
        assert!(share(scratch.path(), (1, 2), true));
        damage(&frozen_file(scratch.path(), 2));
        let run = training.run(Training::backup(scratch.path()), Halt::Never);
        assert_eq!(run.losses.len(), 0);
        let error = run.backup_error().to_string();
        assert!(error.contains("no undamaged backup is left"), "{error}");
    }
}

#[test]
fn a_frozen_file_that_one_of_two_backups_has_lost_is_still_in_the_other() {
    let training = still();
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    training.run(each_batch(&dir).keep_last(2), Halt::Fail(4));
    std::fs::remove_file(frozen_file(&dir, 3)).unwrap();
    let backup = each_batch(&dir);
    let handle = backup.handle();
    let run = training.run(backup, Halt::Never);
    assert_eq!(handle.restored_from().map(|at| at.global_step), Some(2));
    assert!(run.weights == uninterrupted(&training).weights);
}

#[test]
fn plain_burn_reads_both_parts() {
    let training = tuning(Backend::Flex);
    let scratch = tempfile::tempdir().unwrap();
    let run = training.run(each_batch(scratch.path()), Halt::Stop(4));
    let generation = scratch.path().join("generations/00000004");
    let _exclusive = Training::exclusive();
    for parts in [["model.bpk", "frozen.bpk"], ["frozen.bpk", "model.bpk"]] {
        let mut model = training.model(Hooks::default()).map(&mut Zeros);
        for part in parts {
            assert!(model_records(&model) != run.weights);
            let record = ModuleRecord::load(generation.join(part)).unwrap();
            model = model.load_record(record.allow_partial(true));
        }
        assert!(model_records(&model) == run.weights);
    }
}

#[test]
fn an_exported_model_is_one_file_that_plain_burn_loads() {
    let scratch = tempfile::tempdir().unwrap();
    let (dir, out) = (scratch.path().join("backup"), scratch.path().join("out"));
    let training = tuning(Backend::Flex);
    let run = training.run(each_batch(&dir), Halt::Stop(2));
    assert!(frozen_file(&dir, 2).exists());
    // A build of the whole workspace puts it beside the programs of these tests.
    let name = format!("burn-backup{}", std::env::consts::EXE_SUFFIX);
    let program = Path::new(env!("CARGO_BIN_EXE_trainee")).with_file_name(name);
    assert!(
        program.exists(),
        "`cargo build -p burn-backup-cli` makes it"
    );
    let export = Command::new(program)
        .arg("export")
        .arg(&dir)
        .arg("--to")
        .arg(&out)
        .output()
        .unwrap();
    assert!(export.status.success(), "{export:?}");

    let record = ModuleRecord::load(out.join("model.bpk")).unwrap();
    let model = training.model(Hooks::default()).map(&mut Zeros);
    assert!(model_records(&model) != run.weights);
    assert!(model_records(&model.load_record(record)) == run.weights);
}

struct Zeros;

impl ModuleMapper for Zeros {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.zeros_like())
    }
}

#[test]
fn a_backup_of_another_frozen_backbone_is_refused_and_not_touched() {
    let training = tuning(Backend::Flex);
    let scratch = tempfile::tempdir().unwrap();
    training.run(each_batch(scratch.path()), Halt::Stop(4));
    let before = contents(scratch.path());
    let wider = Training {
        tuning: Some(Tuning {
            width: 601,
            ..Tuning::DEFAULT
        }),
        ..training.clone()
    };
    let none = Training {
        tuning: None,
        ..training
    };
    for (other, says) in [
        (
            wider,
            "'backbone.mix.weight' is [512, 600] f32 in the backup and [512, 601] f32 in the",
        ),
        (
            none,
            "'input.weight' is [600, 8] f32 in the backup and [6, 8] f32 in the program",
        ),
    ] {
        let run = other.run(Training::backup(scratch.path()), Halt::Never);
        assert_eq!(run.losses.len(), 0);
        let error = run.backup_error();
        assert!(
            matches!(error, BackupError::ModelMismatch { .. }),
            "{error}"
        );
        assert!(error.to_string().contains(says), "{error}");
        assert!(contents(scratch.path()) == before);
    }
}

#[test]
fn layers_unfrozen_or_frozen_between_two_runs_are_saved_if_allowed() {
    let frozen = tuning(Backend::Flex);
    let unfrozen = Training {
        tuning: Some(Tuning {
            is_frozen: false,
            ..Tuning::DEFAULT
        }),
        ..frozen.clone()
    };
    for (first, then) in [(&frozen, &unfrozen), (&unfrozen, &frozen)] {
        let run = |halts: &[Halt]| -> Run {
            let scratch = tempfile::tempdir().unwrap();
            first.run(each_batch(scratch.path()), Halt::Stop(3));
            let refused = then.run(each_batch(scratch.path()), Halt::Never);
            let error = refused.backup_error();
            assert!(
                matches!(error, BackupError::TrainedMismatch { .. }),
                "{error}"
            );
            let allowed = || each_batch(scratch.path()).allow(Change::TrainedParameters);
            for halt in halts {
                then.run(allowed(), *halt);
            }
            then.run(allowed(), Halt::Never)
        };
        let expected = run(&[]);
        assert_eq!((expected.losses.len(), expected.steps), (3, 6));
        for halts in [
            &[Halt::Stop(1)][..],
            &[Halt::Fail(3)],
            &[Halt::Stop(1), Halt::Stop(1)],
        ] {
            let interrupted = run(halts);
            assert!(interrupted.weights == expected.weights, "{halts:?}");
            assert!(interrupted.records == expected.records, "{halts:?}");
        }
    }
}

#[test]
fn nan_in_what_has_no_gradient_is_refused_and_the_last_good_backup_stays() {
    // In the first case, the counter still counts as frozen.
    for (poisoned, committed) in [((1, 2), 3), ((2, 3), 3), ((4, 5), 3)] {
        let scratch = tempfile::tempdir().unwrap();
        let training = Training {
            poisoned: Some(poisoned),
            ..tuning(Backend::Flex)
        };
        let backup = each_batch(scratch.path()).keep_last(usize::MAX);
        let handle = backup.handle();
        training.run(backup, Halt::Fail(6));
        let stats = handle.stats();
        assert_eq!(
            (stats.committed, stats.refused, stats.failed),
            (committed, 2, 2)
        );
        let error = handle.last_error().unwrap();
        assert!(
            matches!(&*error, BackupError::ContainsNan { parameter, .. } if parameter == "steps"),
            "{error}"
        );
        // Whichever backup was refused, the newest one on the disk belongs to its batch.
        let saved = saved_model(scratch.path(), generations(scratch.path()).len());
        let counted = saved["steps"].last_chunk().unwrap();
        let last = handle.last_backup().unwrap().global_step;
        assert_eq!(f32::from_le_bytes(*counted), last as f32);
    }
}

/// The disk fails from one of its calls on, as for a process that is killed in that call.
#[test]
fn killed_in_a_call_to_the_filesystem_a_fine_tuning_ends_as_if_uninterrupted() {
    let training = Training {
        epochs: 1,
        ..tuning(Backend::Flex)
    };
    let expected = uninterrupted(&training);
    let mut links = 0;
    for at in (1..).step_by(2) {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("backup");
        let calls = Arc::new(AtomicUsize::new(0));
        let linked = Arc::new(AtomicUsize::new(0));
        let filesystem = {
            let (calls, linked, fails) = (calls.clone(), linked.clone(), Failure::Dead.at(at));
            FaultyFilesystem::new(move |operation, _| {
                let call = calls.fetch_add(1, Ordering::Relaxed) + 1;
                if call < at && operation == Operation::Link {
                    linked.fetch_add(1, Ordering::Relaxed);
                }
                fails(call, operation)
            })
        };
        let backup = each_batch(&dir).filesystem(Arc::new(filesystem));
        let handle = backup.handle();
        training.run(backup, Halt::Never);
        links += usize::from(linked.load(Ordering::Relaxed) > 0);

        let backup = each_batch(&dir);
        let next = backup.handle();
        let run = training.run(backup, Halt::Never);
        assert!(run.error.is_none(), "at {at}: {:?}", run.error);
        assert!(run.weights == expected.weights, "at {at}");
        let steps = |at: Option<Position>| at.map(|at| at.global_step);
        let is_deleted = next.restored_from().is_none();
        assert!(is_deleted || steps(next.restored_from()) >= steps(handle.last_backup()));
        assert!(!dir.exists(), "at {at}");
        if calls.load(Ordering::Relaxed) < at {
            report(&format!(
                "fine-tuning: killed in every second of {at} calls to the filesystem"
            ));
            assert!(at > 100 && links > 10, "{at} {links}");
            break;
        }
    }
}
