//! The oracle for loops written by hand: train uninterrupted, train with interruptions, compare byte for
//! byte.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use burn::grad_clipping::GradientClipping;
use burn::module::ParamGroup;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamWConfig, MuonConfig, SgdConfig};
use burn_backup_restore::{BackupAndRestore, Outcome, SaveFreq, Snapshot};
use burn_backup_tests::{Backend, BatchSource, Loaders, Loop, LoopHalt, LoopRun, Record, named};
use test_fork::test;

use crate::support::generations;

/// The contents of a run's last backup: records by name, and values as raw bytes.
fn last_backup(dir: &Path) -> BTreeMap<String, Record> {
    let newest = generations(dir).pop().unwrap();
    let files = std::fs::read_dir(dir.join("generations").join(newest)).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let parts = files.filter(|path| !path.ends_with("manifest.json"));
    let parts = parts.map(|path| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let bytes = std::fs::read(path).unwrap();
        let record = match name.ends_with("value.bpk") {
            true => Record::from([("value".to_owned(), bytes)]),
            false => named(burn::tensor::Bytes::from_bytes_vec(bytes)),
        };
        (name, record)
    });
    parts.collect()
}

/// The result of an uninterrupted training.
pub struct Uninterrupted {
    run: LoopRun,
    last_backup: BTreeMap<String, Record>,
}

pub fn uninterrupted(program: &Loop) -> Uninterrupted {
    let scratch = tempfile::tempdir().unwrap();
    let backup = BackupAndRestore::new(scratch.path()).delete_checkpoint(false);
    let run = program.run(backup, LoopHalt::Never);
    assert_eq!(run.outcome, Some(Outcome::Finished), "{:?}", run.error);
    Uninterrupted {
        last_backup: last_backup(scratch.path()),
        run,
    }
}

/// Interrupts the training by each of `halts` in turn, then lets it end, and compares everything that it
/// leaves.
#[track_caller]
pub fn assert_exact(
    program: &Loop,
    expected: &Uninterrupted,
    configure: impl Fn(BackupAndRestore) -> BackupAndRestore,
    halts: &[LoopHalt],
) {
    let scratch = tempfile::tempdir().unwrap();
    let mut losses = BTreeMap::new();
    let mut validated = Vec::new();
    let mut note = |run: &LoopRun, halts: &[LoopHalt]| {
        for (step, loss) in &run.losses {
            let before = losses.insert(*step, loss.clone());
            let is_same = before.is_none_or(|before| before == *loss);
            assert!(
                is_same,
                "step {step} differs when it is trained again: {halts:?}"
            );
        }
    };
    for halt in halts {
        let backup = configure(BackupAndRestore::new(scratch.path()));
        let run = program.run(backup.delete_checkpoint(false), *halt);
        assert!(
            run.error.is_none(),
            "{halt:?} in {halts:?}: {:?}",
            run.error
        );
        note(&run, halts);
        for epoch in &run.validated {
            let is_first = !validated.contains(epoch) || program.accumulation > 1;
            assert!(is_first, "epoch {epoch} is validated twice: {halts:?}");
        }
        if let LoopHalt::ReturnAfterValidation(epoch) = halt {
            // The result of a validation is saved at once.
            validated.push(*epoch);
        }
    }
    let backup = configure(BackupAndRestore::new(scratch.path()));
    let run = program.run(backup.delete_checkpoint(false), LoopHalt::Never);
    assert_eq!(
        run.outcome,
        Some(Outcome::Finished),
        "{halts:?}: {:?}",
        run.error
    );
    note(&run, halts);
    for (step, loss) in &expected.run.losses {
        let source = program.source;
        let is_same = losses.get(step) == Some(loss);
        assert!(
            is_same,
            "the loss of step {step} after {halts:?}, {source:?}"
        );
    }
    assert_eq!(losses.len(), expected.run.losses.len());
    let last_backup = last_backup(scratch.path());
    assert_eq!(
        last_backup.keys().collect::<Vec<_>>(),
        expected.last_backup.keys().collect::<Vec<_>>()
    );
    for ((name, record), expected) in last_backup.iter().zip(expected.last_backup.values()) {
        assert!(record == expected, "{name} after {halts:?}");
    }
}

/// Interruptions at each batch, of two kinds in turn, and some sequences of several.
fn each_batch(batches: usize) -> Vec<Vec<LoopHalt>> {
    use LoopHalt::{
        Panic, Return, ReturnAfterValidation, ReturnInValidation, Stop, StopInValidation,
    };
    let one = |batch| {
        vec![if batch % 2 == 0 {
            Stop(batch)
        } else {
            Return(batch)
        }]
    };
    let mut all: Vec<_> = (1..=batches).map(one).collect();
    all.push(vec![Panic(3), Stop(2), Return(4)]);
    all.push(vec![Return(1), Stop(1), Stop(1), Stop(9)]);
    for epoch in [1, 2, 3] {
        all.push(vec![StopInValidation(epoch)]);
        all.push(vec![ReturnInValidation(epoch), Stop(1)]);
        all.push(vec![ReturnAfterValidation(epoch), Return(2)]);
    }
    all
}

fn assert_exact_at_each_batch(program: &Loop, frequencies: &[SaveFreq]) {
    let expected = uninterrupted(program);
    let batches = expected.run.losses.len();
    for &frequency in frequencies {
        for halts in each_batch(batches) {
            assert_exact(program, &expected, |b| b.save_freq(frequency), &halts);
        }
    }
}

const SOME: [SaveFreq; 1] = [SaveFreq::Steps(3)];

#[test]
fn interrupted_at_any_batch_a_loop_ends_as_if_uninterrupted() {
    for &backend in Backend::ALL {
        let program = Loop::new(backend);
        let frequencies = [SaveFreq::Epoch, SaveFreq::Steps(1)];
        assert_exact_at_each_batch(&program, &frequencies);
    }
}

#[test]
fn whatever_its_batches_come_from_a_loop_ends_as_if_uninterrupted() {
    for source in [
        BatchSource::Loader(Loaders::Resumable, 2),
        BatchSource::Iterator,
        BatchSource::Two,
        BatchSource::InTurn,
        BatchSource::Twice,
        BatchSource::Rebuilt,
        BatchSource::Endless,
        BatchSource::Steps,
    ] {
        let program = Loop {
            source,
            ..Loop::new(Backend::Flex)
        };
        assert_exact_at_each_batch(&program, &SOME);
    }
}

#[test]
fn whatever_the_frequency_and_the_snapshot_are_a_loop_ends_as_if_uninterrupted() {
    use LoopHalt::{Return, Stop};
    let program = Loop::new(Backend::Flex);
    let expected = uninterrupted(&program);
    for frequency in [
        SaveFreq::Every(Duration::from_micros(1)),
        SaveFreq::Every(Duration::from_secs(3600)),
        SaveFreq::auto(0.5),
    ] {
        for snapshot in [Snapshot::Shared, Snapshot::Blocking] {
            let configure = |backup: BackupAndRestore| {
                backup.save_freq(frequency).snapshot(snapshot).keep_last(3)
            };
            for halts in [
                vec![Stop(5)],
                vec![Return(9), Stop(3)],
                vec![Stop(7), Return(4)],
            ] {
                assert_exact(&program, &expected, configure, &halts);
            }
        }
    }
}

#[test]
fn with_gradients_accumulated_by_hand_a_loop_ends_as_if_uninterrupted() {
    for (accumulation, carries) in [(7, false), (3, false), (3, true), (4, true)] {
        let program = Loop {
            accumulation,
            carries,
            ..Loop::new(Backend::Flex)
        };
        assert_exact_at_each_batch(&program, &SOME);
    }
}

#[test]
fn with_other_optimizers_a_loop_ends_as_if_uninterrupted() {
    let optimizers: [fn() -> burn::optim::ModuleOptimizer; 3] = [
        || {
            let momentum = Some(MomentumConfig::new());
            SgdConfig::new().with_momentum(momentum).init()
        },
        || {
            let clipping = GradientClipping::Norm(0.5);
            AdamWConfig::new().init().with_grad_clipping(clipping)
        },
        || {
            let matrix = ParamGroup::from_predicate("input.weight");
            let optimizer = SgdConfig::new().init();
            optimizer.with_group(matrix, MuonConfig::new().build(), None)
        },
    ];
    for optimizer in optimizers {
        let program = Loop {
            optimizer,
            ..Loop::new(Backend::Flex)
        };
        let expected = uninterrupted(&program);
        for snapshot in [Snapshot::Shared, Snapshot::Blocking] {
            for halts in [
                vec![LoopHalt::Stop(1)],
                vec![LoopHalt::Return(9)],
                vec![LoopHalt::Stop(8), LoopHalt::Return(2), LoopHalt::Stop(5)],
            ] {
                let configure = |backup: BackupAndRestore| backup.save_freq(1).snapshot(snapshot);
                assert_exact(&program, &expected, configure, &halts);
            }
        }
    }
}
