//! States of the program's own, in a training with Burn's builder.

use std::path::Path;

use burn::module::Param;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::Tensor;
use burn_backup_restore::{
    BackupAndRestore, BackupError, BackupExt as _, SaveFreq, SharedState, Value, Weights,
};
use burn_backup_tests::{
    Backend, Batch, Halt, Hooks, Record, Run, Spread, Training, model_records,
};
use test_fork::test;

/// The result of a run with its own states: the number of trained items, and an average of the inputs.
struct Left {
    run: Run,
    items: usize,
    average: Record,
}

fn run(
    training: &Training,
    dir: &Path,
    halt: Halt,
    configure: impl Fn(BackupAndRestore) -> BackupAndRestore,
) -> Left {
    let items = SharedState::new(Value(0));
    let device = training.backend.device();
    device.seed(3);
    let linear: Linear = LinearConfig::new(6, 1).with_bias(false).init(&device);
    let average = SharedState::new(Weights(linear));
    let backup = configure(Training::backup(dir))
        .state("items", items.clone())
        .state("average", average.clone());
    let watched = (items.clone(), average.clone());
    let is_alone = training.spread == Spread::One;
    let watch = move |batch: &Batch| {
        let (items, average) = &watched;
        **items.lock() += batch.classes.dims()[0];
        if !is_alone {
            // Several devices have a different order each time.
            return;
        }
        let inputs = batch.inputs.clone().inner().mean_dim(0).transpose();
        let mut average = average.lock();
        let Linear { weight, bias } = average.0.clone();
        let weight: Param<Tensor<2>> =
            weight.map(|weight| weight * 0.5 + inputs.to_device(&device));
        average.0 = Linear { weight, bias };
    };
    let run = training.run_with_learner(
        halt,
        |training: &Training, hooks: Hooks| training.learner(hooks.on_input(watch)),
        |builder| builder.backup_and_restore(training.spread_over_devices(backup)),
    );
    let items = **items.lock();
    let average = model_records(&average.lock().0);
    Left {
        run,
        items,
        average,
    }
}

#[track_caller]
fn assert_exact(training: &Training, halts: &[Halt]) {
    let scratch = tempfile::tempdir().unwrap();
    let expected = run(
        training,
        &scratch.path().join("uninterrupted"),
        Halt::Never,
        |b| b,
    );
    assert!(expected.run.error.is_none());
    let dir = scratch.path().join("backup");
    for frequency in [SaveFreq::Steps(1), SaveFreq::Steps(4)] {
        for halt in halts {
            run(training, &dir, *halt, |b| b.save_freq(frequency));
        }
        let left = run(training, &dir, Halt::Never, |b| b.save_freq(frequency));
        assert!(left.run.error.is_none(), "{:?}", left.run.error);
        assert_eq!(left.items, expected.items, "{halts:?}, {frequency:?}");
        assert!(left.average == expected.average, "{halts:?}, {frequency:?}");
        assert!(left.run.weights == expected.run.weights);
    }
}

#[test]
fn a_programs_own_states_are_restored_as_they_were_between_two_batches() {
    let training = Training::new(Backend::Flex);
    for batch in 1..=18 {
        assert_exact(&training, &[Halt::Stop(batch)]);
        assert_exact(&training, &[Halt::Fail(batch)]);
    }
    use Halt::{Fail, Stop, StopInValidation};
    assert_exact(&training, &[Stop(8), Fail(2), StopInValidation(1)]);
    let accumulating = Training {
        accumulation: Some(4),
        ..training
    };
    assert_exact(&accumulating, &[Stop(3), Fail(7), Stop(1)]);
}

#[test]
fn on_several_devices_they_are_of_the_same_batch() {
    for spread in [Spread::Main(2), Spread::Sharded(2)] {
        let training = Training::spread(spread);
        for halt in [Halt::Stop(1), Halt::Stop(5), Halt::Fail(4)] {
            assert_exact(&training, &[halt]);
        }
    }
}

#[test]
fn under_ddp_they_are_the_first_workers() {
    let training = Training::spread(Spread::Ddp(2));
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let expected = run(
        &training,
        &scratch.path().join("uninterrupted"),
        Halt::Never,
        |b| b,
    );
    run(&training, &dir, Halt::Stop(3), |b| b.save_freq(1));
    let left = run(&training, &dir, Halt::Never, |b| b.save_freq(1));
    assert!(left.run.error.is_none(), "{:?}", left.run.error);
    // The other worker's batch at that moment may be missing.
    let missing = expected.items - left.items;
    assert!(
        missing <= training.batch_size,
        "{missing} items are missing"
    );
}

#[test]
fn a_training_that_has_lost_a_state_is_refused() {
    let training = Training::new(Backend::Flex);
    let scratch = tempfile::tempdir().unwrap();
    run(&training, scratch.path(), Halt::Stop(3), |b| b);
    let refused = training.run(Training::backup(scratch.path()), Halt::Never);
    let BackupError::StatesMismatch {
        missing, surplus, ..
    } = refused.backup_error()
    else {
        panic!("{:?}", refused.error);
    };
    assert_eq!(missing, &["average", "items"]);
    assert!(surplus.is_empty());
    let left = run(&training, scratch.path(), Halt::Never, |b| b);
    assert!(left.run.error.is_none());
}
