//! The GPU, or the software that stands in for one; with Burn's fusion and autotune, and without them.

use std::sync::Mutex;
use std::thread::ThreadId;

use burn::nn::LinearConfig;
use burn::optim::{
    GradientsParams, LearningRate, ModuleOptimizer, Optimizer, RecordState, StateSink, StateSource,
};
use burn::tensor::{Device, Tensor};
use burn::train::Learner;
use burn_backup_restore::{BackupAndRestore, BackupExt as _, Flow, SaveFreq, Snapshot, Trainee};
use burn_backup_tests::{
    Backend, BatchSource, Halt, Hooks, Loop, LoopHalt, Net, Spread, Training, report,
};
use test_fork::test;

use crate::by_hand;
use crate::process::{run, run_well, trainee};
use crate::support::{assert_exact, generations, part, uninterrupted};

/// An uninterrupted training, after Burn has chosen each kernel for good. With another kernel, sums would
/// differ in their last digits.
fn warm(training: &Training) -> burn_backup_tests::Run {
    let mut before = uninterrupted(training);
    for _ in 0..5 {
        let run = uninterrupted(training);
        if run.weights == before.weights {
            return run;
        }
        before = run;
    }
    panic!("{:?} differs from run to run", training.backend);
}

#[test]
fn interrupted_on_a_gpu_it_ends_as_if_uninterrupted() {
    for &backend in Backend::GPU {
        let training = Training::new(backend);
        let expected = warm(&training);
        for (frequency, halt) in [
            (SaveFreq::Steps(1), Halt::Stop(8)),
            (SaveFreq::Steps(4), Halt::Fail(9)),
            (SaveFreq::Epoch, Halt::Stop(12)),
            (SaveFreq::Epoch, Halt::StopInValidation(8)),
        ] {
            assert_exact(&training, &expected, |b| b.save_freq(frequency), &[halt]);
        }
        let halts = [Halt::Stop(7), Halt::Fail(3), Halt::Stop(2)];
        assert_exact(&training, &expected, |b| b.save_freq(1), &halts);
    }
}

#[test]
fn a_loop_by_hand_on_a_gpu_ends_as_if_uninterrupted() {
    use LoopHalt::{Return, Stop, StopInValidation};
    for &backend in Backend::GPU {
        for source in [BatchSource::Two, BatchSource::Steps] {
            let program = Loop {
                source,
                ..Loop::new(backend)
            };
            // Chooses the kernels.
            for _ in 0..3 {
                by_hand::uninterrupted(&program);
            }
            let expected = by_hand::uninterrupted(&program);
            for halts in [
                vec![Stop(4)],
                vec![Return(9), Stop(2)],
                vec![StopInValidation(1)],
            ] {
                by_hand::assert_exact(&program, &expected, |b| b.save_freq(3), &halts);
            }
        }
    }
}

#[test]
fn on_several_devices_of_a_gpu_it_ends_as_if_uninterrupted() {
    for &backend in Backend::GPU {
        for spread in [Spread::Main(2), Spread::Sharded(2)] {
            let training = Training {
                spread,
                ..Training::new(backend)
            };
            let expected = warm(&training);
            for halt in [Halt::Stop(4), Halt::Fail(8)] {
                assert_exact(&training, &expected, |b| b.save_freq(1), &[halt]);
            }
        }
    }
}

/// Records are read on another thread while the training continues. With fusion, tensor handles used to get
/// lost there. The reference is read while the training waits.
#[test]
fn hundreds_of_backups_in_a_row_are_exact_and_leave_the_training_as_it_is() {
    for &backend in Backend::GPU {
        for (spread, epochs, made) in [
            (Spread::One, 34, Made::Here),
            (Spread::One, 7, Made::Elsewhere),
            (Spread::Main(2), 34, Made::Here),
            (Spread::Sharded(2), 7, Made::Here),
        ] {
            let training = Training {
                spread,
                epochs,
                ..Training::new(backend)
            };
            let run = |snapshot| {
                let scratch = tempfile::tempdir().unwrap();
                let backup = Training::backup(scratch.path())
                    .save_freq(1)
                    .snapshot(snapshot)
                    .keep_last(usize::MAX)
                    .delete_checkpoint(false);
                let handle = backup.handle();
                let backup = training.spread_over_devices(backup);
                let run = training.run_with_learner(
                    Halt::Never,
                    |training, hooks| made.learner(training, hooks),
                    |builder| builder.backup_and_restore(backup),
                );
                assert!(run.error.is_none(), "{:?}", run.error);
                assert_eq!(handle.stats().failed, 0, "{spread:?}");
                (scratch, run)
            };
            let (blocking, expected) = run(Snapshot::Blocking);
            let (shared, run) = run(Snapshot::Shared);
            assert!(run.weights == expected.weights, "{spread:?}");
            assert!(run.records == expected.records, "{spread:?}");

            let names = generations(shared.path());
            assert_eq!(names, generations(blocking.path()));
            assert!(names.len() >= 3 * epochs, "{}", names.len());
            let wrong = names.iter().filter(|name| {
                let number = name.parse().unwrap();
                ["model", "optimizer", "scheduler"].iter().any(|name| {
                    part(shared.path(), number, name) != part(blocking.path(), number, name)
                })
            });
            let wrong: Vec<_> = wrong.collect();
            assert!(
                wrong.is_empty(),
                "{spread:?}, {made:?}: {wrong:?} of {}",
                names.len()
            );
            report(&format!(
                "{backend:?}, {spread:?}, made {made:?}: {} backups in a row",
                names.len()
            ));
        }
    }
}

/// SGD whose state is the last gradient, and which records the threads that read the state.
#[derive(Clone)]
struct Observed;

static READ_ON: Mutex<Vec<ThreadId>> = Mutex::new(Vec::new());

#[derive(Clone)]
struct LastGradient<const D: usize>(Tensor<D>);

impl<const D: usize> RecordState for LastGradient<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        READ_ON.lock().unwrap().push(std::thread::current().id());
        out.push_tensor(prefix, "gradient", self.0.to_data());
    }

    fn state_unflatten(prefix: &str, from: &mut StateSource, device: &Device) -> Option<Self> {
        let gradient = from.take_tensor(prefix, "gradient")?;
        Some(Self(Tensor::from_data(gradient, device)))
    }
}

impl Optimizer for Observed {
    type State<const D: usize> = LastGradient<D>;

    fn step<const D: usize>(
        &self,
        learning_rate: LearningRate,
        tensor: Tensor<D>,
        gradient: Tensor<D>,
        _state: Option<LastGradient<D>>,
    ) -> (Tensor<D>, Option<LastGradient<D>>) {
        let tensor = tensor - gradient.clone() * learning_rate;
        (tensor, Some(LastGradient(gradient)))
    }

    fn to_device<const D: usize>(state: LastGradient<D>, device: &Device) -> LastGradient<D> {
        LastGradient(state.0.to_device(device))
    }
}

/// Burn loads the optimizer's state onto its default device, and the next step moves it. On a GPU with fusion, tensors
/// can get lost if another thread reads or drops them at the same time.
#[test]
fn a_state_that_burn_loads_onto_a_gpu_is_read_on_the_thread_of_a_training_on_the_cpu() {
    let device = Device::flex().autodiff();
    let scratch = tempfile::tempdir().unwrap();
    let is_read_elsewhere = || {
        let mut t = Trainee {
            model: LinearConfig::new(2, 1).init(&device),
            optim: ModuleOptimizer::from(Observed),
            lr: 0.1,
        };
        let backup = BackupAndRestore::new(scratch.path()).save_freq(1);
        let mut session = backup.resume(&mut t, &device).unwrap();
        let mut steps = session.steps(10).unwrap();
        for _ in 0..2 {
            assert!(session.next(&mut steps, &t).unwrap().is_some());
            let grads = t.model.weight.val().sum().backward();
            let grads = GradientsParams::from_grads(grads, &t.model);
            t.model = t.optim.step(t.lr, t.model, grads);
            assert_eq!(session.stepped(&t), Flow::Continue);
        }
        let handle = session.handle();
        drop(session);
        assert_eq!(handle.stats().failed, 0);
        assert!(handle.stats().committed > 0);
        let here = std::thread::current().id();
        let read_on: Vec<ThreadId> = READ_ON.lock().unwrap().drain(..).collect();
        (
            handle.restored_from().is_some(),
            read_on.iter().any(|thread| *thread != here),
        )
    };
    assert_eq!(is_read_elsewhere(), (false, true));
    assert_eq!(is_read_elsewhere(), (true, Backend::GPU.is_empty()));
}

/// The thread on which the learner is made.
#[derive(Debug, Clone, Copy)]
enum Made {
    Here,
    /// Its memory belongs to another thread at first.
    Elsewhere,
}

impl Made {
    fn learner(self, training: &Training, hooks: Hooks) -> Learner<Net> {
        match self {
            Self::Here => training.learner(hooks),
            Self::Elsewhere => {
                std::thread::scope(|scope| scope.spawn(|| training.learner(hooks)).join().unwrap())
            }
        }
    }
}

/// Environment variables that leave wgpu without an adapter.
const NO_ADAPTER: [(&str, &str); 4] = [
    ("VK_DRIVER_FILES", "/nonexistent"),
    ("VK_ICD_FILENAMES", "/nonexistent"),
    // OpenGL, which is the next choice, has no adapter either.
    ("__EGL_VENDOR_LIBRARY_FILENAMES", "/nonexistent"),
    ("LIBGL_DRIVERS_PATH", "/nonexistent"),
];

#[test]
fn without_an_adapter_a_training_on_the_cpu_says_what_to_set_and_then_resumes() {
    if !Backend::GPU.iter().any(|gpu| format!("{gpu:?}") == "Wgpu") {
        return;
    }
    let backend = Backend::Flex;
    let expected = uninterrupted(&Training::new(backend));
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let (status, _) = run(trainee(backend, &dir, 1, &["abort@8"]).envs(NO_ADAPTER));
    assert!(!status.success());
    // Burn first puts the optimizer's state on its default device, which would be a GPU here.
    let said = run_well(trainee(backend, &dir, 1, &[]).envs(NO_ADAPTER));
    assert!(said.error.contains("BURN_DEVICE"), "{}", said.error);
    assert!(dir.join("generations").exists());

    let mut right = trainee(backend, &dir, 1, &[]);
    let said = run_well(right.envs(NO_ADAPTER).env("BURN_DEVICE", "flex"));
    assert_eq!(said.error, "");
    assert!(said.restored >= 6, "{}", said.restored);
    assert!(said.weights == format!("{:?}", expected.weights));
    assert!(said.records == format!("{:?}", expected.records));
}
