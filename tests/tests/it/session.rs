//! The behaviour of a session besides exactness: refusals, stops, notices, failures, and the files that it
//! leaves.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::lr_scheduler::LrSchedulerConfig;
use burn::lr_scheduler::composed::ComposedLrSchedulerConfig;
use burn::lr_scheduler::constant::ConstantLr;
use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::lr_scheduler::exponential::ExponentialLrSchedulerConfig;
use burn::lr_scheduler::linear::LinearLrSchedulerConfig;
use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::lr_scheduler::noam::NoamLrSchedulerConfig;
use burn::lr_scheduler::sequential::SequentialLrSchedulerConfig;
use burn::lr_scheduler::step::StepLrSchedulerConfig;
use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{
    AdamConfig, GradientsParams, LBFGS, LBFGSConfig, LearningRate, ModuleOptimizer, SgdConfig,
};
use burn::tensor::{Device, Distribution, Tensor};
use burn::train::checkpoint::KeepLastNCheckpoints;
use burn::train::{ExecutionStrategy, Interrupter};
use burn_backup_restore::{
    BackupAndRestore, BackupError, FastForward, Flow, OnBackupError, Outcome, Preemption, SaveFreq,
    Session, State, Trainee, TraineeOptimizer, TraineeScheduler, Value, Weights,
};
use burn_backup_store::testing::{FaultyFilesystem, Operation};
use burn_backup_tests::{Record, model_records};
use signal_hook::consts::SIGTERM;
use signal_hook::low_level::raise;
use test_fork::test;

use crate::support::{generations, part};

type Small = Trainee<Linear, ModuleOptimizer>;

fn device() -> Device {
    Device::flex().autodiff()
}

fn trainee_with<O: TraineeOptimizer, S: TraineeScheduler>(
    optim: O,
    lr: S,
) -> Trainee<Linear, O, S> {
    device().seed(1);
    Trainee {
        model: LinearConfig::new(2, 1).init(&device()),
        optim,
        lr,
    }
}

fn trainee() -> Small {
    trainee_with(AdamConfig::new().init(), 0.01)
}

fn loss(model: &Linear) -> Tensor<1> {
    let points = Tensor::<2>::random([4, 2], Distribution::Default, &device());
    let outputs = model.forward(points.clone());
    (outputs - points.sum_dim(1)).powi_scalar(2).mean()
}

fn optimize(t: &mut Small) {
    let grads = GradientsParams::from_grads(loss(&t.model).backward(), &t.model);
    t.model = t.optim.step(t.lr, t.model.clone(), grads);
}

/// Trains up to step `until` of 6, or until the batches end. Returns the current step.
fn train<S: State>(
    session: &mut Session<S>,
    state: &mut S,
    until: u64,
    mut optimize: impl FnMut(&mut S),
) -> u64 {
    let mut steps = session.steps(6).unwrap();
    while session.position().global_step < until
        && session.next(&mut steps, state).unwrap().is_some()
    {
        optimize(state);
        session.stepped(state);
    }
    session.position().global_step
}

fn opened(
    dir: &Path,
    configure: impl Fn(BackupAndRestore) -> BackupAndRestore,
) -> (Session<Small>, Small) {
    let mut t = trainee();
    let backup = configure(BackupAndRestore::new(dir).save_freq(1));
    let session = backup.resume(&mut t, &device()).unwrap();
    (session, t)
}

/// All files of a directory, with their contents.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let newest = generations(dir).pop().unwrap();
    let files = std::fs::read_dir(dir.join("generations").join(newest)).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let named = files.map(|path| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read(path).unwrap())
    });
    named.collect()
}

#[test]
fn states_that_are_missing_or_surplus_are_refused_with_the_names_of_both() {
    let scratch = tempfile::tempdir().unwrap();
    let mut before = (trainee(), Value(1_u32));
    let backup = || BackupAndRestore::new(scratch.path()).save_freq(1);
    let mut session = backup()
        .state("seen", Value(3_u8))
        .resume(&mut before, &device())
        .unwrap();
    train(&mut session, &mut before, 2, |(t, _)| optimize(t));
    drop(session);
    let saved = contents(scratch.path());
    let mut now = (trainee(), Weights(trainee().model), Value(0_u32));
    let refused = backup().resume(&mut now, &device()).unwrap_err();
    let message = refused.to_string();
    assert!(
        message.contains("the program lacks 'seen', and the backup lacks '2'"),
        "{message}"
    );
    assert_eq!(contents(scratch.path()), saved);
    let names = ["a-b", "A", "", "a.b"];
    for name in names {
        let backup = backup().state(name, Value(0_u8));
        let refused = backup.resume(&mut before, &device()).unwrap_err();
        assert!(
            matches!(refused, BackupError::StateName { .. }),
            "{name}: {refused}"
        );
    }
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_changed() {
    let scratch = tempfile::tempdir().unwrap();
    let (mut session, mut t) = opened(scratch.path(), |b| b);
    train(&mut session, &mut t, 2, optimize);
    drop(session);
    let saved = contents(scratch.path());
    let refused = |state: &mut dyn FnMut() -> BackupError| state().to_string();
    let mut wider = Trainee {
        model: LinearConfig::new(3, 1).init(&device()),
        ..trainee()
    };
    let before = model_records(&wider.model);
    let backup = || BackupAndRestore::new(scratch.path());
    let message = refused(&mut || backup().resume(&mut wider, &device()).unwrap_err());
    assert!(message.contains("weight"), "{message}");
    assert_eq!(model_records(&wider.model), before);
    let mut sgd = trainee_with(SgdConfig::new().init(), 0.01);
    let message = refused(&mut || backup().resume(&mut sgd, &device()).unwrap_err());
    assert!(message.contains("optimizer"), "{message}");
    let mut faster = trainee_with(AdamConfig::new().init(), 0.02);
    let message = refused(&mut || backup().resume(&mut faster, &device()).unwrap_err());
    assert!(message.contains("learning rate"), "{message}");
    let label = || backup().label("fold 2").resume(&mut trainee(), &device());
    assert!(matches!(
        label().unwrap_err(),
        BackupError::ConfigurationMismatch { .. }
    ));
    assert_eq!(contents(scratch.path()), saved);
    let (session, _) = opened(scratch.path(), |b| b);
    assert!(session.is_restored());
    assert_eq!(session.position().global_step, 2);
}

#[test]
fn a_session_that_is_dropped_commits_what_is_in_flight_and_keeps_it() {
    for panics in [false, true] {
        let scratch = tempfile::tempdir().unwrap();
        let (mut session, mut t) = opened(scratch.path(), |b| b);
        let handle = session.handle();
        let left = catch_unwind(AssertUnwindSafe(move || {
            train(&mut session, &mut t, 3, optimize);
            assert!(!panics, "a panic of the program's");
        }));
        assert_eq!(left.is_err(), panics);
        assert_eq!(handle.last_backup().unwrap().global_step, 3);
        assert_eq!(handle.outcome(), Some(Outcome::Failed));
        let (session, _) = opened(scratch.path(), |b| b);
        assert_eq!(session.position().global_step, 3);
    }
}

#[test]
fn a_stop_keeps_the_backup_and_the_end_deletes_it() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let (mut session, mut t) = opened(&dir, |b| b.save_freq(SaveFreq::Never));
    let handle = session.handle();
    let interrupter: Interrupter = session.interrupter();
    let mut made = 0;
    let at = train(&mut session, &mut t, 6, |t| {
        made += 1;
        optimize(t);
        if made == 4 {
            interrupter.stop(Some("enough for today"));
        }
    });
    assert_eq!(at, 4);
    let outcome = session.finish(&t).unwrap();
    let Outcome::Stopped {
        saved: Some(saved), ..
    } = outcome
    else {
        panic!("{outcome:?}");
    };
    assert_eq!(saved.global_step, 4);
    assert_eq!(handle.stopped_at(), Some(saved));
    let (mut session, mut t) = opened(&dir, |b| b.save_freq(SaveFreq::Never));
    assert_eq!(session.position(), saved);
    assert_eq!(train(&mut session, &mut t, 6, optimize), 6);
    assert_eq!(session.finish(&t).unwrap(), Outcome::Finished);
    assert!(!dir.exists());
}

#[test]
fn a_second_session_on_the_same_directory_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let (session, _) = opened(scratch.path(), |b| b);
    let mut t = trainee();
    let refused = BackupAndRestore::new(scratch.path()).resume(&mut t, &device());
    let message = refused.unwrap_err().to_string();
    let process = std::process::id().to_string();
    assert!(message.contains(&process), "{message}");
    drop(session);
}

#[test]
fn nan_is_refused_and_the_last_good_backup_stays() {
    let scratch = tempfile::tempdir().unwrap();
    let (mut session, mut t) = opened(scratch.path(), |b| b);
    let handle = session.handle();
    train(&mut session, &mut t, 6, |t| {
        optimize(t);
        if handle.stats().committed == 2 {
            let Linear { weight, bias } = t.model.clone();
            let nan = |weight: Tensor<2>| Tensor::full(weight.shape(), f32::NAN, &device());
            let weight = weight.map(|weight| nan(weight).require_grad());
            t.model = Linear { weight, bias };
        }
    });
    session.finish(&t).unwrap();
    assert!(handle.stats().failed > 0);
    let last = handle.last_backup().unwrap();
    let (session, _) = opened(scratch.path(), |b| b);
    assert_eq!(session.position(), last, "the last good one stays");
}

#[test]
fn a_failed_backup_ends_the_loop_if_it_is_to() {
    let scratch = tempfile::tempdir().unwrap();
    let saves = AtomicUsize::new(0);
    let filesystem = Arc::new(FaultyFilesystem::new(move |operation, path| {
        if operation == Operation::SyncFile && path.ends_with("optimizer.bpk") {
            let save = saves.fetch_add(1, Ordering::Relaxed) + 1;
            if save > 2 {
                return Err(std::io::Error::from(std::io::ErrorKind::StorageFull).into());
            }
        }
        Ok(())
    }));
    let (mut session, mut t) = opened(scratch.path(), |b| {
        b.on_backup_error(OnBackupError::Stop)
            .filesystem(filesystem.clone())
    });
    let at = train(&mut session, &mut t, 6, optimize);
    assert!((3..6).contains(&at), "{at}");
    let error = session.finish(&t).unwrap_err();
    assert!(error.to_string().contains("cannot"), "{error}");
    let (session, _) = opened(scratch.path(), |b| b);
    assert_eq!(session.position().global_step, 2);
}

#[test]
fn a_notice_is_followed_between_two_steps() {
    let scratch = tempfile::tempdir().unwrap();
    let configure = |backup: BackupAndRestore| {
        let backup = backup.save_freq(SaveFreq::Never);
        backup.save_before_preemption(Preemption::signals())
    };
    let (mut session, mut t) = opened(scratch.path(), configure);
    let mut made = 0;
    let at = train(&mut session, &mut t, 6, |t| {
        optimize(t);
        made += 1;
        if made == 3 {
            raise(SIGTERM).unwrap();
        }
    });
    assert_eq!(at, 3);
    let handle = session.handle();
    let outcome = session.finish(&t).unwrap();
    assert!(
        matches!(outcome, Outcome::Stopped { saved: Some(saved), .. } if saved.global_step == 3),
        "{outcome:?}"
    );
    assert!(handle.notice().unwrap().to_string().contains("SIGTERM"));
    let (session, _) = opened(scratch.path(), |b| b);
    assert_eq!(session.position().global_step, 3);
}

#[test]
fn a_notice_in_a_validation_saves_at_once_and_lets_it_end() {
    let scratch = tempfile::tempdir().unwrap();
    let configure = |backup: BackupAndRestore| {
        let backup = backup.save_freq(SaveFreq::Never);
        backup.save_before_preemption(Preemption::signals())
    };
    let (mut session, mut t) = opened(scratch.path(), configure);
    let handle = session.handle();
    let mut validated = 0;
    for _epoch in session.epochs(3) {
        let mut batches = session.batches_of(0..2).unwrap();
        while session.next(&mut batches, &t).unwrap().is_some() {
            optimize(&mut t);
            session.stepped(&t);
        }
        assert_eq!(session.trained(&t), Flow::Continue);
        let mut batches = session.batches_of(0..5).unwrap();
        while session.next(&mut batches, &t).unwrap().is_some() {
            validated += 1;
            if validated == 2 {
                raise(SIGTERM).unwrap();
            }
        }
        if session.epoch_done(&t).is_stop() {
            break;
        }
    }
    assert_eq!(validated, 5);
    let outcome = session.finish(&t).unwrap();
    let Outcome::Stopped {
        saved: Some(saved), ..
    } = outcome
    else {
        panic!("{outcome:?}");
    };
    assert_eq!((saved.epoch, saved.step_in_epoch), (2, 0));
    // One from before the validation, and one from now.
    assert_eq!(handle.stats().committed, 2);
}

#[test]
fn what_only_burns_builder_can_use_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let backup = || BackupAndRestore::new(&dir);
    let refused = [
        backup().execution(ExecutionStrategy::single(device())),
        backup().gradient_checkpointing(),
        backup().checkpointing_strategy(KeepLastNCheckpoints::new(1)),
        backup().artifacts(&dir),
        backup().fast_forward(FastForward::Replay),
    ];
    for backup in refused {
        let error = backup.resume(&mut trainee(), &device()).unwrap_err();
        assert!(
            matches!(error, BackupError::OnlyForBuilder { .. }),
            "{error}"
        );
    }
    assert!(!dir.exists());
}

#[test]
fn batches_of_an_earlier_epoch_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let (mut session, mut t) = opened(scratch.path(), |b| b);
    let mut batches = session.batches_of(0..4).unwrap();
    assert!(session.next(&mut batches, &t).unwrap().is_some());
    optimize(&mut t);
    session.stepped(&t);
    assert_eq!(session.epoch_done(&t), Flow::Continue);
    let error = session.next(&mut batches, &t).unwrap_err();
    assert!(matches!(error, BackupError::OutdatedBatches), "{error}");
}

#[test]
fn a_training_beyond_its_end_is_returned_unchanged() {
    let scratch = tempfile::tempdir().unwrap();
    let run = |epochs: usize| {
        let (mut session, mut t) = opened(scratch.path(), |b| b.delete_checkpoint(false));
        let mut trained = 0;
        for _epoch in session.epochs(epochs) {
            let mut batches = session.batches_of(0..2).unwrap();
            while session.next(&mut batches, &t).unwrap().is_some() {
                optimize(&mut t);
                session.stepped(&t);
                trained += 1;
            }
            assert_eq!(session.epoch_done(&t), Flow::Continue);
        }
        (
            trained,
            session.finish(&t).unwrap(),
            model_records(&t.model),
        )
    };
    let (trained, outcome, model) = run(3);
    assert_eq!((trained, outcome), (6, Outcome::Finished));
    let (trained, outcome, same) = run(3);
    assert_eq!((trained, outcome), (0, Outcome::Finished));
    assert_eq!(same, model);
    let (trained, outcome, same) = run(2);
    assert!(matches!(outcome, Outcome::PastLastEpoch { num_epochs: 2, .. }) && trained == 0);
    assert_eq!(same, model);
    let (trained, ..) = run(4);
    assert_eq!(trained, 2);
    let (mut session, _) = opened(scratch.path(), |b| b);
    assert!(session.epochs(9).next().is_some());
}

#[test]
fn fewer_steps_than_were_made_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let (mut session, mut t) = opened(scratch.path(), |b| b);
    train(&mut session, &mut t, 4, optimize);
    drop(session);
    let (mut session, _) = opened(scratch.path(), |b| b);
    let error = session.steps(3).unwrap_err();
    let expected = matches!(
        error,
        BackupError::TooFewSteps {
            steps: 4,
            num_steps: 3,
            ..
        }
    );
    assert!(expected, "{error}");
}

#[test]
fn a_training_is_complete_once_its_loop_is_left() {
    let scratch = tempfile::tempdir().unwrap();
    for run in 1..=2 {
        let (mut session, mut t) = opened(scratch.path(), |b| b.delete_checkpoint(false));
        let mut trained = 0;
        'train: for _epoch in session.epochs(3) {
            let mut batches = session.batches_of(0..4).unwrap();
            while session.next(&mut batches, &t).unwrap().is_some() {
                optimize(&mut t);
                session.stepped(&t);
                trained += 1;
                if session.position().global_step == 6 {
                    // The model is good enough.
                    break 'train;
                }
            }
            assert_eq!(session.epoch_done(&t), Flow::Continue);
        }
        assert_eq!(trained, if run == 1 { 6 } else { 0 });
        assert_eq!(session.finish(&t).unwrap(), Outcome::Finished);
    }
    let scratch = tempfile::tempdir().unwrap();
    for run in 1..=2 {
        let (mut session, mut t) = opened(scratch.path(), |b| b.delete_checkpoint(false));
        let at = train(&mut session, &mut t, 4, optimize);
        assert_eq!((at, session.is_restored()), (4, run == 2));
        assert_eq!(session.finish(&t).unwrap(), Outcome::Finished);
    }
}

#[test]
fn an_iterator_that_has_fewer_batches_than_are_trained_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let (mut session, mut t) = opened(scratch.path(), |b| b);
    let mut batches = session.batches_of(0..4).unwrap();
    for _ in 0..3 {
        assert!(session.next(&mut batches, &t).unwrap().is_some());
        optimize(&mut t);
        session.stepped(&t);
    }
    drop(session);
    let (mut session, _) = opened(scratch.path(), |b| b);
    let message = session.batches_of(0..2).unwrap_err().to_string();
    assert!(message.contains("was 3, and is 2 now"), "{message}");
}

#[test]
fn the_metric_logs_are_those_of_an_uninterrupted_training() {
    let run = |dir: &Path, stop: Option<u64>, in_validation: Option<usize>| {
        let configure = |backup: BackupAndRestore| {
            let backup = backup.delete_checkpoint(false);
            backup.metric_logs(dir.join("logs"))
        };
        let (mut session, mut t) = opened(&dir.join("backup"), configure);
        for epoch in session.epochs(3) {
            let mut batches = session.batches_of(0..4).unwrap();
            while let Some(batch) = session.next(&mut batches, &t).unwrap() {
                optimize(&mut t);
                session.log("My loss", f64::from(batch) / 3.0, 2);
                session.stepped(&t);
                if stop == Some(session.position().global_step) {
                    session.interrupter().stop(None);
                }
            }
            if session.trained(&t).is_stop() {
                break;
            }
            session.log("My loss", 0.25, 1);
            if in_validation == Some(epoch) {
                session.interrupter().stop(None);
                assert!(session.is_stopping());
                break;
            }
            if session.epoch_done(&t).is_stop() {
                break;
            }
        }
        session.finish(&t).unwrap()
    };
    let logs = |dir: &Path| {
        let mut logs = BTreeMap::new();
        for split in ["train", "valid"] {
            for epoch in 1..=3 {
                let path = format!("{split}/epoch-{epoch}/My_loss.log");
                let text = std::fs::read_to_string(dir.join("logs").join(&path)).unwrap();
                logs.insert(path, text);
            }
        }
        logs
    };
    let uninterrupted = tempfile::tempdir().unwrap();
    assert_eq!(run(uninterrupted.path(), None, None), Outcome::Finished);
    let expected = logs(uninterrupted.path());
    assert!(expected["train/epoch-2/My_loss.log"].starts_with("0,2\n0.333"));
    for stop in 1..=12 {
        let scratch = tempfile::tempdir().unwrap();
        run(scratch.path(), Some(stop), None);
        assert_eq!(run(scratch.path(), None, None), Outcome::Finished);
        assert_eq!(logs(scratch.path()), expected, "stopped at {stop}");
    }
    for epoch in 1..=3 {
        let scratch = tempfile::tempdir().unwrap();
        run(scratch.path(), None, Some(epoch));
        assert_eq!(run(scratch.path(), None, None), Outcome::Finished);
        assert_eq!(logs(scratch.path()), expected, "stopped in epoch {epoch}");
    }
}

#[test]
fn a_teacher_that_stays_the_same_is_written_once() {
    let scratch = tempfile::tempdir().unwrap();
    let teacher = LinearConfig::new(600, 600).init(&device());
    let mut state = (trainee(), Weights(teacher.valid()));
    let backup = BackupAndRestore::new(scratch.path())
        .save_freq(1)
        .keep_last(2);
    let mut session = backup.resume(&mut state, &device()).unwrap();
    train(&mut session, &mut state, 5, |(t, _)| optimize(t));
    drop(session);
    let generation = generations(scratch.path()).pop().unwrap();
    let generation = scratch.path().join("generations").join(generation);
    let files = std::fs::read_dir(generation).unwrap();
    let linked: Vec<_> = files
        .map(|file| file.unwrap())
        .filter(|file| file.metadata().unwrap().nlink() > 1)
        .map(|file| file.file_name().into_string().unwrap())
        .collect();
    assert_eq!(linked, ["1-frozen.bpk"]);
}

/// The contents of the last backup of 6 steps, which are interrupted after each of `stops`.
fn after_six_steps<S: State>(
    make: impl Fn() -> S,
    optimize: impl Fn(&mut S),
    stops: &[u64],
) -> Vec<(String, Record)> {
    let scratch = tempfile::tempdir().unwrap();
    for until in stops.iter().copied().chain([6]) {
        let mut state = make();
        let backup = BackupAndRestore::new(scratch.path()).save_freq(1);
        let backup = backup.delete_checkpoint(false);
        let mut session = backup.resume(&mut state, &device()).unwrap();
        assert_eq!(train(&mut session, &mut state, until, &optimize), until);
        if until == 6 {
            session.finish(&state).unwrap();
        }
    }
    let newest: usize = generations(scratch.path()).pop().unwrap().parse().unwrap();
    ["model", "optimizer", "scheduler"]
        .map(|name| (name.to_owned(), part(scratch.path(), newest, name)))
        .into()
}

#[test]
fn with_l_bfgs_a_loop_ends_as_if_uninterrupted() {
    let make = || trainee_with(LBFGSConfig::new().with_max_iter(3).init(), 0.1);
    let optimize = |t: &mut Trainee<Linear, LBFGS, LearningRate>| {
        let points = Tensor::<2>::random([4, 2], Distribution::Default, &device());
        let targets = points.clone().sum_dim(1);
        let (model, _) = t.optim.step(t.lr, t.model.clone(), |model: Linear| {
            let loss = model.forward(points.clone()) - targets.clone();
            let loss = loss.powi_scalar(2).mean();
            let value = f64::from(loss.clone().into_scalar::<f32>());
            let grads = GradientsParams::from_grads(loss.backward(), &model);
            (value, grads)
        });
        t.model = model;
    };
    let expected = after_six_steps(make, optimize, &[]);
    assert!(expected[1].1.len() > 3, "L-BFGS has a state");
    for stops in [&[1][..], &[3], &[2, 4, 5]] {
        assert!(
            after_six_steps(make, optimize, stops) == expected,
            "{stops:?}"
        );
    }
}

#[test]
fn with_each_of_burns_schedulers_a_loop_ends_as_if_uninterrupted() {
    let schedulers: [fn() -> ModuleLrScheduler; 8] = [
        || {
            CosineAnnealingLrSchedulerConfig::new(0.1, 4)
                .init()
                .unwrap()
        },
        || ExponentialLrSchedulerConfig::new(0.1, 0.7).init().unwrap(),
        || LinearLrSchedulerConfig::new(0.1, 0.01, 5).init().unwrap(),
        || {
            NoamLrSchedulerConfig::new(0.1)
                .with_warmup_steps(3)
                .init()
                .unwrap()
        },
        || StepLrSchedulerConfig::new(0.1, 2).init().unwrap(),
        || ModuleLrScheduler::from(ConstantLr::new(0.05)),
        || {
            let first = LrSchedulerConfig::Linear(LinearLrSchedulerConfig::new(0.01, 0.1, 3));
            let second = LrSchedulerConfig::Cosine(CosineAnnealingLrSchedulerConfig::new(0.1, 3));
            let config = SequentialLrSchedulerConfig::new(vec![first, second], vec![3]);
            config.init().unwrap()
        },
        || {
            let config = ComposedLrSchedulerConfig::new();
            let config = config.exponential(ExponentialLrSchedulerConfig::new(0.1, 0.8));
            let linear = LinearLrSchedulerConfig::new(1.0, 0.5, 4);
            config.linear(linear).init().unwrap()
        },
    ];
    for scheduler in schedulers {
        let make = || trainee_with(AdamConfig::new().init(), scheduler());
        let optimize = |t: &mut Trainee<Linear, ModuleOptimizer, ModuleLrScheduler>| {
            let grads = GradientsParams::from_grads(loss(&t.model).backward(), &t.model);
            let rate = t.lr.step();
            t.model = t.optim.step(rate, t.model.clone(), grads);
        };
        let expected = after_six_steps(make, optimize, &[]);
        for stops in [&[1][..], &[2, 3, 5]] {
            assert!(
                after_six_steps(make, optimize, stops) == expected,
                "{stops:?}"
            );
        }
    }
}

#[test]
fn tensors_on_another_device_are_restored_there() {
    let scratch = tempfile::tempdir().unwrap();
    #[expect(deprecated, reason = "as long as Burn has it, backups work on it")]
    let other = Device::ndarray();
    let make = || {
        let teacher: Linear = LinearConfig::new(2, 2).init(&other);
        (trainee(), Weights(teacher))
    };
    let backup = || BackupAndRestore::new(scratch.path()).save_freq(1);
    let mut state = make();
    let mut session = backup().resume(&mut state, &device()).unwrap();
    session.also_on(&other);
    train(&mut session, &mut state, 3, |(t, teacher)| {
        optimize(t);
        let Linear { weight, bias } = teacher.0.clone();
        let noise = Tensor::random([2, 2], Distribution::Default, &other);
        let weight: Param<Tensor<2>> = weight.map(|weight| weight + noise);
        teacher.0 = Linear { weight, bias };
    });
    drop(session);
    let mut resumed = make();
    backup().resume(&mut resumed, &device()).unwrap();
    assert_eq!(resumed.1.0.weight.val().device(), other);
    assert_eq!(model_records(&resumed.1.0), model_records(&state.1.0));
}
