//! Layers whose training starts or ends while the program runs. No record of Burn's says which layers are
//! trained.

use burn::module::Module as _;
use burn::nn::LinearLayout;
use burn::train::Learner;
use burn_backup_restore::{BackupAndRestore, BackupError, BackupExt as _};
use burn_backup_tests::{Backend, Halt, Net, Run, Spread, Training, Tuning, Turn};
use test_fork::test;

use crate::support::{assert_exact, contents, uninterrupted};

const SPREADS: [Spread; 4] = [
    Spread::One,
    Spread::Main(2),
    Spread::Sharded(2),
    Spread::Ddp(2),
];

/// The training of the input layer starts, or ends, after so many steps.
const TURNS: [Turn; 2] = [
    Turn {
        after: 4,
        trains: true,
    },
    Turn {
        after: 4,
        trains: false,
    },
];

const BACKBONE: Tuning = Tuning {
    width: 8,
    is_frozen: true,
    is_still: false,
};

/// Runs the training. `prepare` changes the model before the learner is made.
fn run(
    training: &Training,
    backup: BackupAndRestore,
    halt: Halt,
    prepare: impl FnOnce(Net) -> Net,
) -> Run {
    let backup = training.spread_over_devices(backup);
    training.run_with_learner(
        halt,
        |training, hooks| {
            let net = prepare(training.model(hooks));
            Learner::new(net, (training.optimizer)(), training.schedule())
        },
        |builder| builder.backup_and_restore(backup),
    )
}

/// A stop after `steps` steps.
fn stop_after(spread: Spread, steps: usize) -> Halt {
    Halt::Stop(steps * spread.devices())
}

#[test]
fn a_layer_that_was_turned_on_or_off_is_refused_and_with_its_flags_restored_it_ends_as_if_uninterrupted()
 {
    for spread in SPREADS {
        let training = Training::spread(spread);
        for turn in TURNS {
            let scratch = tempfile::tempdir().unwrap();
            let expected = run(
                &training,
                Training::backup(scratch.path()),
                Halt::Never,
                |net| net.turning(turn),
            );
            assert!(expected.error.is_none(), "{:?}", expected.error);
            for steps in [turn.after, turn.after + 2, expected.steps - 1] {
                let what = format!("{spread:?}, {turn:?}, {steps}");
                let scratch = tempfile::tempdir().unwrap();
                let backup = || Training::backup(scratch.path()).save_freq(1);
                let turning = |net: Net| net.turning(turn);
                let stopped = run(&training, backup(), stop_after(spread, steps), turning);
                assert!(stopped.interrupted.is_some(), "{what}");

                let before = contents(scratch.path());
                let refused = run(&training, backup(), Halt::Never, turning);
                assert_eq!(refused.losses.len(), 0, "{what}");
                let error = refused.backup_error();
                assert!(
                    matches!(error, BackupError::TrainedMismatch { .. }),
                    "{what}: {error}"
                );
                let says = match turn.trains {
                    true => "'input.bias', 'input.weight' were trained and are frozen now",
                    false => "'input.bias', 'input.weight' were frozen and are trained now",
                };
                let message = error.to_string();
                assert!(message.contains(says), "{what}: {message}");
                assert!(message.contains("restore_trained"), "{what}: {message}");
                assert!(contents(scratch.path()) == before, "{what}");

                let run = run(&training, backup(), Halt::Never, |net| {
                    backup().restore_trained(net.turning(turn)).unwrap()
                });
                assert!(run.error.is_none(), "{what}: {:?}", run.error);
                assert!(run.weights == expected.weights, "weights, {what}");
                assert!(run.records == expected.records, "records, {what}");
            }
        }
    }
}

#[test]
fn before_the_turn_nothing_is_refused_and_flags_that_are_restored_change_nothing() {
    for spread in SPREADS {
        let training = Training::spread(spread);
        for turn in TURNS {
            let scratch = tempfile::tempdir().unwrap();
            let expected = run(
                &training,
                Training::backup(scratch.path()),
                Halt::Never,
                |net| net.turning(turn),
            );
            for restores in [false, true] {
                let what = format!("{spread:?}, {turn:?}, {restores}");
                let scratch = tempfile::tempdir().unwrap();
                let backup = || Training::backup(scratch.path()).save_freq(1);
                // The first start does this too.
                let turning = |net: Net| match restores {
                    true => backup().restore_trained(net.turning(turn)).unwrap(),
                    false => net.turning(turn),
                };
                let halt = stop_after(spread, turn.after - 1);
                let stopped = run(&training, backup(), halt, turning);
                assert!(stopped.interrupted.is_some(), "{what}");
                let run = run(&training, backup(), Halt::Never, turning);
                assert!(run.error.is_none(), "{what}: {:?}", run.error);
                assert!(run.weights == expected.weights, "weights, {what}");
                assert!(run.records == expected.records, "records, {what}");
            }
        }
    }
}

#[test]
fn a_layer_makes_a_difference_when_it_is_turned_on_or_off() {
    let training = Training::new(Backend::Flex);
    let plain = uninterrupted(&training);
    for turn in TURNS {
        let scratch = tempfile::tempdir().unwrap();
        let backup = Training::backup(scratch.path());
        let turned = run(&training, backup, Halt::Never, |net| net.turning(turn));
        assert!(turned.weights != plain.weights, "{turn:?}");
    }
}

#[test]
fn a_backbone_that_stays_frozen_is_never_refused() {
    for spread in SPREADS {
        let training = Training {
            tuning: Some(BACKBONE),
            ..Training::spread(spread)
        };
        let expected = uninterrupted(&training);
        for step in [1, 3, expected.steps - 1] {
            let halts = [stop_after(spread, step)];
            assert_exact(&training, &expected, |b| b.save_freq(1), &halts);
        }
        let scratch = tempfile::tempdir().unwrap();
        let backup = || Training::backup(scratch.path());
        let stopped = training.run(backup(), stop_after(spread, 2));
        assert!(stopped.interrupted.is_some());
        let run = run(&training, backup(), Halt::Never, |net| {
            backup().restore_trained(net).unwrap()
        });
        assert!(run.weights == expected.weights, "{spread:?}");
    }
}

#[test]
fn a_model_that_was_made_without_gradients_and_is_trained_after_all_is_not_refused() {
    for spread in SPREADS {
        for tuning in [None, Some(BACKBONE)] {
            for restores in [false, true] {
                let what = format!("{spread:?}, {tuning:?}, {restores}");
                let training = Training {
                    draws: false,
                    ..Training::spread(spread)
                };
                let scratch = tempfile::tempdir().unwrap();
                let start = |dir: &str, halt| {
                    let backup = || Training::backup(scratch.path().join(dir));
                    run(&training, backup(), halt, |net| {
                        // With the hooks of the run, on the plain device.
                        let hooks = net.hooks();
                        let device = Backend::Flex.device();
                        device.seed(training.weights_seed);
                        let net = Net::new(8, LinearLayout::Row, tuning, &device, hooks);
                        let net = net.without_dropout().without_norm().train();
                        match restores {
                            true => backup().restore_trained(net).unwrap(),
                            false => net,
                        }
                    })
                };
                let expected = start("whole", Halt::Never);
                assert!(expected.error.is_none(), "{what}: {:?}", expected.error);
                let stopped = start("stopped", stop_after(spread, 4));
                assert!(stopped.interrupted.is_some(), "{what}");
                let run = start("stopped", Halt::Never);
                assert!(run.error.is_none(), "{what}: {:?}", run.error);
                assert!(run.weights == expected.weights, "weights, {what}");
                assert!(run.records == expected.records, "records, {what}");
            }
        }
    }
}
