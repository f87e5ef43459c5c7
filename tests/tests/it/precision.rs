//! Parameters whose types differ from the device's default.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::lr_scheduler::constant::ConstantLr;
use burn::module::{Module, ModuleMapper, Param, ParamGroup};
use burn::nn::{Linear, LinearConfig, Relu};
use burn::optim::momentum::MomentumConfig;
use burn::optim::{
    AdamConfig, AdamWConfig, LearningRate, ModuleOptimizer, Optimizer, RecordState, SgdConfig,
    StateSink, StateSource,
};
use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use burn::train::{
    InferenceStep, Interrupter, Learner, LearningResult, RegressionOutput, SupervisedTraining,
    TrainOutput, TrainStep, TrainingError,
};
use burn_backup_restore::{BackupAndRestore, BackupError, BackupExt as _, BackupHandle};
use burn_backup_tests::{Record, RecordingRenderer, model_records};
use test_fork::test;

use crate::log_lines;

/// Two layers, each with its own type.
#[derive(Module, Debug)]
struct Net {
    first: Linear,
    second: Linear,
    #[module(skip)]
    trained: Trained,
}

/// Counts the batches that were trained, and stops the training at one of them.
#[derive(Clone, Default)]
struct Trained {
    batches: Arc<AtomicUsize>,
    stop: Option<(usize, Interrupter)>,
}

impl std::fmt::Debug for Trained {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Trained")
    }
}

type Batch = Tensor<2>;

struct Cast(DType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.cast(self.0).detach().require_grad())
    }
}

impl Net {
    fn new([first, second]: [DType; 2], device: &Device, trained: Trained) -> Self {
        let layer = |inputs, outputs, dtype| {
            let layer = LinearConfig::new(inputs, outputs).init(device);
            layer.map(&mut Cast(dtype))
        };
        Self {
            first: layer(3, 4, first),
            second: layer(4, 1, second),
            trained,
        }
    }

    fn regress(&self, x: Batch) -> RegressionOutput {
        let target = x.clone().sum_dim(1);
        let hidden = self.first.forward(x.cast(self.first.weight.val().dtype()));
        let hidden = Relu::new()
            .forward(hidden)
            .cast(self.second.weight.val().dtype());
        let output = self.second.forward(hidden);
        let target = target.cast(output.dtype());
        let loss = (output.clone() - target.clone()).square().mean();
        RegressionOutput::new(loss, output, target)
    }
}

impl TrainStep for Net {
    type Input = Batch;
    type Output = RegressionOutput;

    fn step(&self, batch: Batch) -> TrainOutput<RegressionOutput> {
        let trained = self.trained.batches.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some((at, interrupter)) = &self.trained.stop
            && *at == trained
        {
            interrupter.stop(Some("the test stops it"));
        }
        let output = self.regress(batch);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl InferenceStep for Net {
    type Input = Batch;
    type Output = RegressionOutput;

    fn step(&self, batch: Batch) -> RegressionOutput {
        self.regress(batch)
    }
}

#[derive(Clone)]
struct Rows;

impl Batcher<[f32; 3], Batch> for Rows {
    fn batch(&self, items: Vec<[f32; 3]>, device: &Device) -> Batch {
        let rows = items.len();
        let values: Vec<f32> = items.into_iter().flatten().collect();
        Tensor::from_data(TensorData::new(values, [rows, 3]), device)
    }
}

fn loader() -> Arc<dyn DataLoader<Batch>> {
    let item = |n: u8| [0.1, 0.2, 0.3].map(|x: f32| (x * f32::from(n)).sin());
    let items: Vec<_> = (0..12).map(item).collect();
    DataLoaderBuilder::new(Rows)
        .batch_size(4)
        .shuffle(3)
        .build(InMemDataset::new(items))
}

/// The result of a training of two epochs of three batches.
struct Run {
    weights: Record,
    error: Option<Arc<TrainingError>>,
    trained: usize,
    handle: BackupHandle,
}

impl Run {
    fn error(&self) -> &BackupError {
        let error = self.error.as_ref().unwrap();
        BackupError::find(error).unwrap()
    }
}

/// Trains with a backup after each batch, until it is stopped at the batch `stop` of this process.
fn run(
    dir: &Path,
    dtypes: [DType; 2],
    optimizer: impl Fn() -> ModuleOptimizer,
    stop: Option<usize>,
) -> Run {
    let device = Device::flex().autodiff();
    let interrupter = Interrupter::new();
    let trained = Trained {
        stop: stop.map(|at| (at, interrupter.clone())),
        ..Trained::default()
    };
    device.seed(7);
    let model = Net::new(dtypes, &device, trained.clone());
    let learner = Learner::new(model, optimizer(), ConstantLr::new(1e-2));
    let backup = BackupAndRestore::new(dir)
        .save_freq(1)
        .seed(5)
        .retry_after(std::time::Duration::ZERO)
        .dashboard(false);
    let handle = backup.handle();
    let artifacts = tempfile::tempdir().unwrap();
    let LearningResult { model, error, .. } =
        SupervisedTraining::new(artifacts.path(), loader(), loader())
            .num_epochs(2)
            .with_interrupter(interrupter)
            .renderer(Box::new(RecordingRenderer::default()))
            .with_application_logger(None)
            .backup_and_restore(backup)
            .launch(learner);
    Run {
        weights: model_records(&model),
        error,
        trained: trained.batches.load(Ordering::Relaxed),
        handle,
    }
}

/// Asserts that the training ends as if uninterrupted when it is stopped at any batch and run again.
#[track_caller]
fn assert_exact(dtypes: [DType; 2], optimizer: impl Fn() -> ModuleOptimizer + Copy) {
    let scratch = tempfile::tempdir().unwrap();
    let uninterrupted = run(&scratch.path().join("whole"), dtypes, optimizer, None);
    assert!(uninterrupted.error.is_none(), "{:?}", uninterrupted.error);
    assert_eq!(uninterrupted.trained, 6);
    for stop in 1..6 {
        let dir = scratch.path().join(stop.to_string());
        let stopped = run(&dir, dtypes, optimizer, Some(stop));
        assert!(stopped.error.is_none(), "{:?}", stopped.error);
        assert_eq!(
            stopped.handle.stats().failed,
            0,
            "{:?}",
            stopped.handle.last_error()
        );
        let resumed = run(&dir, dtypes, optimizer, None);
        assert!(resumed.error.is_none(), "{:?}", resumed.error);
        assert_eq!(resumed.trained, 6 - stop);
        assert!(
            resumed.weights == uninterrupted.weights,
            "stopped at {stop}"
        );
    }
}

/// Asserts a refusal before the first step, with an error that names the parameter and the types.
#[track_caller]
fn assert_refused(dtypes: [DType; 2], optimizer: impl Fn() -> ModuleOptimizer, names: &str) {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let refused = run(&dir, dtypes, optimizer, None);
    assert_eq!(refused.trained, 0, "{dtypes:?}");
    let error = refused.error();
    assert!(
        matches!(error, BackupError::PrecisionLost { .. }),
        "{dtypes:?}: {error}"
    );
    let text = error.to_string();
    assert!(text.contains(names) && text.contains("configure"), "{text}");
    assert_eq!(refused.handle.stats().committed, 0);
}

fn adam() -> ModuleOptimizer {
    AdamConfig::new().init()
}

#[test]
fn a_state_that_burn_would_load_as_another_type_is_refused_before_the_first_step() {
    for dtype in [DType::F16, DType::BF16, DType::F64] {
        assert_refused([dtype; 2], adam, dtype.name());
        assert_refused([DType::F32, dtype], adam, "second.");
        assert_refused([dtype, DType::F32], || AdamWConfig::new().init(), "first.");
    }
    let momentum = || {
        let momentum = MomentumConfig::new();
        SgdConfig::new().with_momentum(Some(momentum)).init()
    };
    assert_refused([DType::BF16; 2], momentum, "velocity");
}

#[test]
fn without_a_state_every_type_resumes_exactly() {
    for dtype in [DType::F16, DType::BF16, DType::F64] {
        assert_exact([dtype; 2], || SgdConfig::new().init());
        assert_exact([DType::F32, dtype], || SgdConfig::new().init());
    }
}

#[test]
fn only_the_parameters_with_a_state_are_to_have_the_default_type() {
    // The first layer has an optimizer state, and the second one has none.
    assert_exact([DType::F32, DType::BF16], || {
        let second = ParamGroup::from_predicate("second");
        adam().with_group(second, SgdConfig::new().build(), None)
    });
}

fn configured(dtype: FloatDType) {
    Device::flex().configure(dtype).unwrap();
}

#[test]
fn in_16_bits_on_a_device_with_that_default_it_resumes_exactly() {
    configured(FloatDType::F16);
    assert_exact([DType::F16; 2], adam);
    assert_refused([DType::F16, DType::F32], adam, "second.");
}

#[test]
fn in_bfloat16_on_a_device_with_that_default_it_resumes_exactly() {
    configured(FloatDType::BF16);
    assert_exact([DType::BF16; 2], adam);
}

#[test]
fn in_64_bits_on_a_device_with_that_default_it_resumes_exactly() {
    configured(FloatDType::F64);
    assert_exact([DType::F64; 2], adam);
}

/// A state with a number that it does not load again. The number is lost, or loading panics.
#[derive(Clone)]
struct Forgetful<const PANICS: bool>;

#[derive(Clone)]
struct Forgotten<const PANICS: bool>(i64);

impl<const PANICS: bool> RecordState for Forgotten<PANICS> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        out.push_scalar(prefix, "steps", self.0.into());
    }

    fn state_unflatten(_prefix: &str, _src: &mut StateSource, _device: &Device) -> Option<Self> {
        assert!(!PANICS, "the test has it panic");
        None
    }
}

impl<const PANICS: bool> Optimizer for Forgetful<PANICS> {
    type State<const D: usize> = Forgotten<PANICS>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Forgotten<PANICS>>,
    ) -> (Tensor<D>, Option<Forgotten<PANICS>>) {
        let steps = state.map_or(0, |state| state.0) + 1;
        (tensor - grad.mul_scalar(lr), Some(Forgotten(steps)))
    }

    fn to_device<const D: usize>(state: Forgotten<PANICS>, _device: &Device) -> Forgotten<PANICS> {
        state
    }
}

fn with_forgetful<const PANICS: bool>() -> ModuleOptimizer {
    let bias = ParamGroup::from_predicate("second.bias");
    adam().with_group(bias, Forgetful::<PANICS>, None)
}

#[test]
fn a_state_that_an_optimizer_does_not_load_again_is_refused_at_the_first_backup() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let run = run(&dir, [DType::F32; 2], with_forgetful::<false>, Some(3));
    let stats = run.handle.stats();
    assert_eq!((stats.committed, stats.failed >= 3), (0, true), "{stats:?}");
    let error = run.handle.last_error().unwrap();
    assert!(
        matches!(&*error, BackupError::NotLoadable { entry, .. } if entry.contains("second.bias")),
        "{error}"
    );
}

#[test]
fn where_loading_the_state_panics_backups_are_taken_and_one_line_says_that_a_restart_would_be_refused()
 {
    log_lines::listen();
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let stopped = run(&dir, [DType::F32; 2], with_forgetful::<true>, Some(3));
    let stats = stopped.handle.stats();
    assert_eq!((stats.committed, stats.failed), (4, 0), "{stats:?}");
    let errors = log_lines::logged(log::Level::Error);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("a restart would be refused") && errors[0].contains("BURN_DEVICE"));
    let refused = run(&dir, [DType::F32; 2], with_forgetful::<true>, None);
    assert!(matches!(
        refused.error(),
        BackupError::RestorePanicked { .. }
    ));
}
