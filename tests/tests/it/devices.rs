//! Several devices: with the optimizer on one of them, with a share of it on each, and under DDP.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use burn::tensor::Device;
use burn::train::{ExecutionStrategy, MultiDeviceOptim, SupervisedTraining, TrainingError};
use burn_backup_restore::{BackupError, BackupExt as _, SaveFreq};
use burn_backup_tests::{Backend, Halt, Hooks, Net, Run, Spread, Training};
use test_fork::test;

use crate::support::{NeedsBatch, assert_exact, contents, stop_early, uninterrupted};

const SPREADS: [Spread; 6] = [
    Spread::Main(2),
    Spread::Main(3),
    Spread::Sharded(2),
    Spread::Ddp(1),
    Spread::Ddp(2),
    Spread::Ddp(3),
];

/// Rounds in an epoch of 22 items, in batches of 4, split among the devices.
fn rounds(spread: Spread) -> usize {
    (22_usize.div_ceil(spread.devices())).div_ceil(4)
}

#[test]
fn a_training_on_several_devices_sees_each_item_once_per_epoch() {
    for devices in SPREADS {
        let run = uninterrupted(&Training::spread(devices));
        assert_eq!(run.steps, 3 * rounds(devices), "{devices:?}");
        let batches = 3 * rounds(devices) * devices.devices();
        assert_eq!(run.losses.len(), batches, "{devices:?}");
    }
}

#[test]
fn interrupted_anywhere_it_ends_as_if_uninterrupted_on_several_devices() {
    for devices in SPREADS {
        let training = Training::spread(devices);
        let expected = uninterrupted(&training);
        for frequency in [SaveFreq::Epoch, SaveFreq::Steps(1), SaveFreq::Steps(2)] {
            for step in 1..=expected.steps {
                // Interruptions in the first and in the last batch of the step.
                let last = step * devices.devices();
                for batch in [last + 1 - devices.devices(), last] {
                    for halt in [Halt::Stop(batch), Halt::Fail(batch)] {
                        let halts = [halt];
                        assert_exact(&training, &expected, |b| b.save_freq(frequency), &halts);
                    }
                }
            }
            for batch in [1, 6, 7, 18] {
                let halts = [Halt::StopInValidation(batch)];
                assert_exact(&training, &expected, |b| b.save_freq(frequency), &halts);
            }
        }
    }
}

#[test]
fn interrupted_again_and_again_it_ends_as_if_uninterrupted_on_several_devices() {
    use Halt::{Fail, Stop, StopInValidation};

    for devices in SPREADS {
        let training = Training::spread(devices);
        let expected = uninterrupted(&training);
        for halts in [
            &[Stop(2), Stop(2), Stop(2)][..],
            &[Fail(4), Stop(1), Fail(3), StopInValidation(1), Stop(3)],
        ] {
            assert_exact(&training, &expected, |b| b.save_freq(1), halts);
        }
    }
}

#[test]
fn with_accumulated_gradients_it_ends_as_if_uninterrupted_on_several_devices() {
    for devices in SPREADS {
        for accumulation in [2, 3] {
            let training = Training {
                accumulation: Some(accumulation),
                ..Training::spread(devices)
            };
            let expected = uninterrupted(&training);
            let rounds = rounds(devices);
            assert_eq!(expected.steps, 3 * rounds.div_ceil(accumulation));
            for step in 1..=3 * rounds {
                let halts = [Halt::Stop(step * devices.devices())];
                assert_exact(&training, &expected, |b| b.save_freq(1), &halts);
            }
        }
    }
}

/// 13 items for the first device and 14 for the second, in batches of 4: the second has one batch more. DDP
/// leaves that batch out.
#[test]
fn with_fewer_batches_on_one_device_it_ends_as_if_uninterrupted() {
    for (devices, items, batches) in [
        (Spread::Main(2), 25, 7),
        (Spread::Sharded(2), 25, 7),
        (Spread::Ddp(2), 25, 6),
    ] {
        let training = Training {
            items,
            ..Training::spread(devices)
        };
        let expected = uninterrupted(&training);
        assert_eq!(expected.losses.len(), 3 * batches, "{devices:?}");
        for stop in 1..=3 * batches {
            let scratch = tempfile::tempdir().unwrap();
            let backup = || Training::backup(scratch.path()).save_freq(1);
            let stopped = training.run(backup(), Halt::Stop(stop));
            assert!(stopped.error.is_none(), "{:?}", stopped.error);
            let run = training.run(backup(), Halt::Never);
            assert!(run.error.is_none(), "{:?}", run.error);
            assert!(run.weights == expected.weights, "{devices:?}, {stop}");
            assert!(run.records == expected.records, "{devices:?}, {stop}");
            let trained = stopped.losses.len() + run.losses.len();
            assert_eq!(trained, expected.losses.len(), "{devices:?}, {stop}");
        }
    }
}

/// An error may end a split before its first batch. Burn still reports the end of that split, and some
/// metrics panic there.
fn without_empty_splits(calls: &[String]) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for call in calls {
        let is_empty = kept
            .last()
            .is_some_and(|last| last.starts_with("start_split"));
        if !(is_empty && call == "end_split") {
            kept.push(call.clone());
        }
    }
    kept
}

/// Runs the training with Burn's own strategy for the devices and with ours, and compares them.
#[track_caller]
fn assert_parity(
    training: &Training,
    halt: Halt,
    configure: impl Fn(SupervisedTraining<Net>) -> SupervisedTraining<Net>,
) -> Run {
    // Burn adds up some values in the order in which the devices finish. Two numbers have the same sum in any
    // order, but more numbers do not.
    let is_error = training.broken_item.is_some() || matches!(halt, Halt::Panic(_));
    let is_certain = training.accumulation.is_none() && !is_error;
    let execution = || {
        let devices = vec![training.backend.device(); training.spread.devices()];
        training.spread.execution(devices).unwrap()
    };
    let burn = training.run_with(halt, |builder| {
        configure(builder).with_training_strategy(execution().into())
    });
    let scratch = tempfile::tempdir().unwrap();
    let ours = training.run_with(halt, |builder| {
        let backup = Training::backup(scratch.path())
            .save_freq(1)
            .reseed_steps(false)
            .execution(execution());
        configure(builder).backup_and_restore(backup)
    });
    if is_certain {
        assert!(ours.weights == burn.weights, "weights");
        assert!(ours.records == burn.records, "the user's own checkpoints");
    }
    assert_eq!(
        (ours.steps, ours.records.epoch),
        (burn.steps, burn.records.epoch)
    );
    assert_eq!(ours.interrupted, burn.interrupted);
    // It is left to chance which device reaches the batch that panics.
    let error = |run: &Run| {
        Some(
            run.error
                .as_ref()?
                .to_string()
                .replace("device 1", "device 0"),
        )
    };
    assert_eq!(error(&ours), error(&burn));
    // Burn passes on the batches of a step in the order in which the devices finish.
    let comparable = |run: &Run| {
        let calls = run.calls.iter();
        let calls = calls.filter(|call| match is_certain {
            true => !call.starts_with("update_train"),
            false => !call.starts_with("update_"),
        });
        let calls: Vec<_> = calls.cloned().collect();
        let calls = without_empty_splits(&calls);
        let mut losses = run.losses.clone();
        losses.sort();
        (calls, is_certain.then_some(losses))
    };
    assert_eq!(comparable(&ours), comparable(&burn));
    ours
}

#[test]
fn what_burns_own_strategies_for_several_devices_do_still_happens() {
    for devices in [Spread::Main(2), Spread::Sharded(2)] {
        let training = Training {
            draws: false,
            ..Training::spread(devices)
        };
        let run = assert_parity(&training, Halt::Never, |builder| builder);
        assert_eq!(run.losses.len(), 18);
        for accumulation in [2, 4] {
            let training = Training {
                accumulation: Some(accumulation),
                ..training.clone()
            };
            assert_parity(&training, Halt::Never, |builder| builder);
        }
        for halt in [
            Halt::Stop(4),
            Halt::Fail(6),
            Halt::StopInValidation(2),
            Halt::Panic(8),
        ] {
            assert_parity(&training, halt, |builder| builder);
        }
        let broken = Training {
            broken_item: Some(13),
            ..training.clone()
        };
        let run = assert_parity(&broken, Halt::Never, |builder| builder);
        assert!(run.error.unwrap().to_string().starts_with("Dataset error"));
        let long = Training {
            epochs: 50,
            ..training
        };
        let run = assert_parity(&long, Halt::Never, stop_early);
        assert!(run.records.epoch < 50, "it stopped early");
    }
}

#[test]
fn early_stopping_ends_all_workers_at_the_same_epoch() {
    for devices in [Spread::Ddp(1), Spread::Ddp(2)] {
        let training = Training {
            epochs: 50,
            ..Training::spread(devices)
        };
        let scratch = tempfile::tempdir().unwrap();
        let run = training.run_with(Halt::Never, |builder| {
            let backup = training.spread_over_devices(Training::backup(scratch.path()));
            stop_early(builder).backup_and_restore(backup)
        });
        assert!(run.records.epoch < 50, "it stopped early");
        assert!(run.error.is_none() && run.interrupted.is_none());
    }
}

#[test]
fn a_worker_that_fails_ends_the_training_with_burns_error_and_the_last_good_backup_stays() {
    for devices in SPREADS {
        let training = Training::spread(devices);
        let expected = uninterrupted(&training);
        let per_step = devices.devices();
        for step in [1, 2, 4] {
            let scratch = tempfile::tempdir().unwrap();
            let backup = || Training::backup(scratch.path()).save_freq(1);
            let first = backup();
            let handle = first.handle();
            let failed = training.run(first, Halt::Panic(step * per_step));
            let error = failed.error.as_deref().unwrap();
            let TrainingError::Workers(failures) = error else {
                panic!("{error}");
            };
            assert_eq!(failures.len(), 1, "{devices:?}: {error}");
            assert!(
                failures[0].message.contains("the test has batch"),
                "{error}"
            );
            let trained = handle.last_backup().map_or(0, |at| at.global_step);
            assert_eq!(trained, step as u64 - 1, "{devices:?}");

            let run = training.run(backup(), Halt::Never);
            assert!(run.error.is_none(), "{:?}", run.error);
            assert!(run.weights == expected.weights, "{devices:?}");
            assert!(run.records == expected.records, "{devices:?}");
        }
    }
}

#[test]
fn a_worker_that_hangs_does_not_keep_a_training_from_ending_when_another_one_fails() {
    let training = Training::spread(Spread::Ddp(2));
    let scratch = tempfile::tempdir().unwrap();
    let backup = || Training::backup(scratch.path()).save_freq(1);
    // In the second step, the device that comes first hangs, and the other one fails.
    let (released, gate) = channel::<()>();
    let (gate, steps) = (Mutex::new(gate), AtomicUsize::new(0));
    let hang_and_fail = move |_: &Device| match steps.fetch_add(1, Ordering::Relaxed) {
        2 => drop(gate.lock().unwrap().recv()),
        3 => panic!("the test has it fail"),
        _ => {}
    };
    let first = backup();
    let handle = first.handle();
    let failed = training.run_with_learner(
        Halt::Never,
        |training, hooks: Hooks| training.learner(hooks.on_device(hang_and_fail)),
        |builder| builder.backup_and_restore(training.spread_over_devices(first)),
    );
    let error = failed.error.unwrap().to_string();
    assert!(error.contains("the test has it fail"), "{error}");
    assert_eq!(handle.last_backup().unwrap().global_step, 1);
    drop(released);

    let run = training.run(backup(), Halt::Never);
    assert!(run.error.is_none(), "{:?}", run.error);
    assert!(run.weights == uninterrupted(&training).weights);
}

#[test]
fn where_a_device_can_have_no_thread_nothing_is_trained_and_the_backup_stays() {
    for spread in [
        Spread::Main(2),
        Spread::Sharded(2),
        Spread::Ddp(2),
        Spread::Ddp(3),
    ] {
        let training = Training::spread(spread);
        let scratch = tempfile::tempdir().unwrap();
        let backup = || Training::backup(scratch.path()).save_freq(1);
        for threads in 0..spread.devices() {
            let run = training.run(backup().limit_threads(threads), Halt::Never);
            let error = run.backup_error();
            assert!(matches!(error, BackupError::DeviceThread(_)), "{error}");
            assert!(run.losses.is_empty(), "{spread:?}, {threads}");
        }
        let stopped = training.run(backup(), Halt::Stop(2));
        assert!(stopped.interrupted.is_some());
        let before = contents(scratch.path());
        let run = training.run(backup().limit_threads(1), Halt::Never);
        assert!(matches!(run.backup_error(), BackupError::DeviceThread(_)));
        assert_eq!(contents(scratch.path()), before, "{spread:?}");
        // The directory is free again.
        let run = training.run(backup(), Halt::Never);
        assert!(run.error.is_none(), "{:?}", run.error);
        assert!(
            run.weights == uninterrupted(&training).weights,
            "{spread:?}"
        );
    }
}

#[test]
fn an_item_that_cannot_be_read_ends_the_training_with_burns_error_on_several_devices() {
    for devices in SPREADS {
        let broken = Training {
            broken_item: Some(13),
            ..Training::spread(devices)
        };
        let scratch = tempfile::tempdir().unwrap();
        let run = broken.run(Training::backup(scratch.path()).save_freq(1), Halt::Never);
        let error = run.error.unwrap().to_string();
        assert!(error.starts_with("Dataset error"), "{devices:?}: {error}");

        let whole = Training::spread(devices);
        let run = whole.run(Training::backup(scratch.path()), Halt::Never);
        assert!(run.weights == uninterrupted(&whole).weights, "{devices:?}");
    }
}

#[test]
fn wherever_an_item_cannot_be_read_no_metric_is_read_without_a_batch() {
    for spread in [Spread::One].into_iter().chain(SPREADS) {
        for is_broken_in_validation in [false, true] {
            // Each item is in the first batch of one of the devices, or in a later one.
            for item in 0..22 {
                let training = Training {
                    broken_item: Some(item),
                    is_broken_in_validation,
                    ..Training::spread(spread)
                };
                let scratch = tempfile::tempdir().unwrap();
                let backup = training.spread_over_devices(Training::backup(scratch.path()));
                let run = training.run_with(Halt::Never, |builder| {
                    let builder = builder
                        .metric_train_numeric(NeedsBatch::default())
                        .metric_valid_numeric(NeedsBatch::default());
                    builder.backup_and_restore(backup)
                });
                let error = run.error.unwrap().to_string();
                assert!(
                    error.starts_with("Dataset error"),
                    "{spread:?}, {item}: {error}"
                );
            }
        }
    }
}

#[test]
fn at_an_epochs_start_another_number_of_devices_takes_over() {
    let spreads = [
        Spread::One,
        Spread::Main(2),
        Spread::Sharded(3),
        Spread::Ddp(2),
    ];
    for before in spreads {
        for after in spreads {
            let first = Training {
                epochs: 2,
                ..Training::spread(before)
            };
            let second = Training::spread(after);
            let scratch = tempfile::tempdir().unwrap();
            let keep = Training::backup(scratch.path()).delete_checkpoint(false);
            let run = first.run(keep, Halt::Never);
            assert!(run.error.is_none(), "{:?}", run.error);
            let steps = run.steps;

            // The second training stops in its first step, and the next run resumes from there.
            let backup = || Training::backup(scratch.path()).save_freq(1);
            let stopped = second.run(backup(), Halt::Stop(1));
            assert!(stopped.error.is_none(), "{:?}", stopped.error);
            let run = second.run(backup(), Halt::Never);
            assert!(
                run.error.is_none(),
                "{before:?}, {after:?}: {:?}",
                run.error
            );
            assert_eq!(run.steps, steps + rounds(after), "{before:?}, {after:?}");
            assert!(!scratch.path().join("generations").exists());
        }
    }
}

#[test]
fn after_all_batches_another_number_of_devices_validates() {
    for (before, after) in [
        (Spread::Main(2), Spread::One),
        (Spread::One, Spread::Sharded(3)),
        (Spread::Ddp(2), Spread::Main(3)),
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let backup = || Training::backup(scratch.path()).save_freq(1);
        let stopped = Training::spread(before).run(backup(), Halt::StopInValidation(1));
        assert!(stopped.interrupted.is_some());
        let run = Training::spread(after).run(backup(), Halt::Never);
        assert!(
            run.error.is_none(),
            "{before:?}, {after:?}: {:?}",
            run.error
        );
        assert_eq!(run.steps, rounds(before) + 2 * rounds(after));
    }
}

#[test]
fn in_the_middle_of_an_epoch_another_number_of_devices_is_refused() {
    for (before, after, says) in [
        (
            Spread::One,
            Spread::Main(2),
            ["with 1 device", "this run has 2"],
        ),
        (
            Spread::Main(2),
            Spread::One,
            ["with 2 device", "this run has 1"],
        ),
        (
            Spread::Sharded(2),
            Spread::Ddp(3),
            ["with 2 device", "this run has 3"],
        ),
        (
            Spread::Ddp(3),
            Spread::Main(2),
            ["with 3 device", "this run has 2"],
        ),
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let backup = || Training::backup(scratch.path());
        let stopped = Training::spread(before).run(backup(), Halt::Stop(1));
        assert!(stopped.interrupted.is_some());
        let saved = contents(scratch.path());
        let refused = Training::spread(after).run(backup(), Halt::Never);
        let error = refused.backup_error();
        assert!(
            matches!(error, BackupError::DevicesMismatch { .. }),
            "{error}"
        );
        let message = error.to_string();
        for part in says
            .into_iter()
            .chain(["not touched", "until the end of the epoch"])
        {
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
        assert_eq!(refused.losses.len(), 0);
        assert!(contents(scratch.path()) == saved, "the backup is as it was");

        let run = Training::spread(before).run(backup(), Halt::Never);
        assert!(
            run.weights == uninterrupted(&Training::spread(before)).weights,
            "{before:?}"
        );
    }
}

#[test]
fn the_optimizers_place_may_change_in_the_middle_of_an_epoch() {
    let scratch = tempfile::tempdir().unwrap();
    let backup = || Training::backup(scratch.path());
    let stopped = Training::spread(Spread::Main(2)).run(backup(), Halt::Stop(5));
    assert!(stopped.interrupted.is_some());
    let run = Training::spread(Spread::Sharded(2)).run(backup(), Halt::Never);
    assert!(run.error.is_none(), "{:?}", run.error);
    // On two devices of the same kind, both strategies add up the same two numbers.
    assert!(run.weights == uninterrupted(&Training::spread(Spread::Main(2))).weights);
}

#[test]
fn a_strategy_with_a_single_device_is_a_single_device() {
    let training = Training::new(Backend::Flex);
    let scratch = tempfile::tempdir().unwrap();
    let one = ExecutionStrategy::multi(vec![Device::flex()], MultiDeviceOptim::OptimSharded);
    let run = training.run(Training::backup(scratch.path()).execution(one), Halt::Never);
    assert!(run.weights == uninterrupted(&training).weights);
}
