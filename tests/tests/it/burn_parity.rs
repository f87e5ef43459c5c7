//! Everything that Burn's own single-device strategy does still happens, in the same order.

use burn::train::SupervisedTraining;
use burn_backup_restore::{BackupExt as _, SaveFreq};
use burn_backup_tests::{Backend, Halt, Net, Run, Training};
use test_fork::test;

use crate::support::stop_early;

/// Runs the training without the line and with it, and compares everything that is visible.
#[track_caller]
fn assert_parity(
    training: &Training,
    halt: Halt,
    configure: impl Fn(SupervisedTraining<Net>) -> SupervisedTraining<Net>,
) -> Run {
    let burn = training.run_with(halt, &configure);
    let scratch = tempfile::tempdir().unwrap();
    let ours = training.run_with(halt, |builder| {
        let backup = Training::backup(scratch.path().join("backup"))
            .save_freq(SaveFreq::Steps(1))
            .reseed_steps(false);
        configure(builder).backup_and_restore(backup)
    });

    assert_eq!(comparable(&ours.calls), comparable(&burn.calls));
    assert!(ours.weights == burn.weights, "weights");
    assert!(ours.records == burn.records, "the user's own checkpoints");
    assert_eq!(ours.losses, burn.losses);
    assert_eq!(ours.interrupted, burn.interrupted);
    let error = |run: &Run| run.error.as_ref().map(ToString::to_string);
    assert_eq!(error(&ours), error(&burn));
    ours
}

/// The calls without the figures of the summary. Burn reads these from files that its loggers may still be
/// writing.
fn comparable(calls: &[String]) -> Vec<&str> {
    let without_figures = |call: &'_ String| call.find("Total Epochs").unwrap_or(call.len());
    calls
        .iter()
        .map(|call| &call[..without_figures(call)])
        .collect()
}

#[test]
fn a_whole_training_is_the_same_with_the_line_and_without_it() {
    for &backend in Backend::ALL {
        let run = assert_parity(&Training::new(backend), Halt::Never, |builder| builder);
        assert_eq!(run.losses.len(), 18);
        assert_eq!(run.records.epoch, 3);
    }
}

#[test]
fn labels_and_summaries_are_the_same() {
    let training = Training {
        summary: true,
        ..Training::new(Backend::Flex)
    };
    let run = assert_parity(&training, Halt::Never, |builder| builder.label("a label"));
    assert!(run.calls.iter().any(|call| call.contains("a label")));
    assert!(
        run.calls
            .iter()
            .any(|call| call.contains("Learner Summary"))
    );
}

#[test]
fn accumulated_gradients_are_used_at_the_same_batches() {
    for accumulation in [1, 3, 4] {
        let training = Training {
            accumulation: Some(accumulation),
            ..Training::new(Backend::Flex)
        };
        let run = assert_parity(&training, Halt::Never, |builder| builder);
        assert_eq!(run.steps, 3 * 6_usize.div_ceil(accumulation));
    }
}

#[test]
fn early_stopping_ends_the_training_at_the_same_epoch() {
    let training = Training {
        epochs: 50,
        ..Training::new(Backend::Flex)
    };
    let run = assert_parity(&training, Halt::Never, stop_early);
    assert!(run.records.epoch < 50, "it stopped early");
    assert!(run.error.is_none() && run.interrupted.is_none());
}

#[test]
fn a_stop_ends_the_training_at_the_same_batch() {
    for halt in [
        Halt::Stop(1),
        Halt::Stop(8),
        Halt::Stop(12),
        Halt::StopInValidation(2),
        Halt::StopInValidation(12),
    ] {
        for &backend in Backend::ALL {
            let run = assert_parity(&Training::new(backend), halt, |builder| builder);
            assert!(run.interrupted.is_some(), "{halt:?}");
        }
    }
}

#[test]
fn an_error_ends_the_training_at_the_same_batch() {
    let run = assert_parity(&Training::new(Backend::Flex), Halt::Fail(8), |b| b);
    assert!(run.error.is_some());

    let broken = Training {
        broken_item: Some(13),
        ..Training::new(Backend::Flex)
    };
    let run = assert_parity(&broken, Halt::Never, |builder| builder);
    assert!(run.error.unwrap().to_string().starts_with("Dataset error"));
}

#[test]
fn a_training_without_batches_ends_the_same() {
    let training = Training {
        items: 0,
        ..Training::new(Backend::Flex)
    };
    let run = assert_parity(&training, Halt::Never, |builder| builder);
    assert_eq!(run.losses.len(), 0);
}
