use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use burn::data::dataloader::DataLoader;
use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::nn::LinearLayout;
use burn::optim::{AdamConfig, ModuleOptimizer};
use burn::tensor::Device;
#[cfg(feature = "wgpu")]
use burn::tensor::DeviceKind;
use burn::train::logger::InMemoryMetricLogger;
use burn::train::metric::{AccuracyMetric, LearningRateMetric, LossMetric};
use burn::train::{
    ExecutionStrategy, Interrupter, Interruption, Learner, LearningResult, MultiDeviceOptim,
    SupervisedTraining, TrainingError,
};
use burn_backup_restore::{BackupAndRestore, BackupError, BackupExt as _};

use crate::data::{AtItsEnd, Loaders, Numbers, Poison, Silent};
use crate::model::{Batch, Hooks, Net, Tuning};
use crate::recorder::{Calls, RecordingRenderer};
use crate::records::{EachEpoch, Keeper, Record, Records, model_records};

/// Burn's backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The pure Rust backend.
    Flex,
    /// The previous pure Rust backend.
    #[cfg(feature = "ndarray")]
    NdArray,
    /// The GPU, or the software that stands in for one.
    #[cfg(feature = "wgpu")]
    Wgpu,
    /// An NVIDIA GPU.
    #[cfg(feature = "cuda")]
    Cuda,
}

impl Backend {
    /// The backends on the CPU.
    pub const ALL: &[Self] = &[
        Self::Flex,
        #[cfg(feature = "ndarray")]
        Self::NdArray,
    ];

    /// The backends on a GPU.
    pub const GPU: &[Self] = &[
        #[cfg(feature = "wgpu")]
        Self::Wgpu,
        #[cfg(feature = "cuda")]
        Self::Cuda,
    ];

    /// The backend's device.
    pub fn device(self) -> Device {
        match self {
            Self::Flex => Device::flex(),
            #[cfg(feature = "ndarray")]
            #[expect(deprecated, reason = "as long as Burn has it, backups work on it")]
            Self::NdArray => Device::ndarray(),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Device::wgpu(DeviceKind::DefaultDevice),
            #[cfg(feature = "cuda")]
            Self::Cuda => Device::cuda(0),
        }
    }
}

/// Which devices a training runs on, all of its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// One device, the default.
    One,
    /// This many devices. The first one optimizes.
    Main(usize),
    /// This many devices. Each optimizes its share.
    Sharded(usize),
    /// This many devices under DDP. The gradients are brought together on the host.
    Ddp(usize),
}

impl Spread {
    /// The number of devices.
    pub fn devices(self) -> usize {
        match self {
            Self::One => 1,
            Self::Main(devices) | Self::Sharded(devices) | Self::Ddp(devices) => devices,
        }
    }

    /// The strategy for `devices`, if it is one of Burn's builder.
    pub fn execution(self, devices: Vec<Device>) -> Option<ExecutionStrategy> {
        match self {
            Self::One | Self::Ddp(_) => None,
            Self::Main(_) => Some(ExecutionStrategy::multi(
                devices,
                MultiDeviceOptim::OptimMainDevice,
            )),
            Self::Sharded(_) => Some(ExecutionStrategy::multi(
                devices,
                MultiDeviceOptim::OptimSharded,
            )),
        }
    }
}

/// How a run ends early. Batches are counted from 1 in the current process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halt {
    /// It runs to its end.
    Never,
    /// The user stops it during a training batch.
    Stop(usize),
    /// An error stops it during a training batch.
    Fail(usize),
    /// The user stops it after the last training batch of that epoch, counted from 1 in the current process.
    /// The stop comes when the loader finds no further batch.
    StopAfterLast(usize),
    /// The user stops it during a validation batch.
    StopInValidation(usize),
    /// An error stops it during a validation batch.
    FailInValidation(usize),
    /// The process aborts during a validation batch.
    AbortInValidation(usize),
    /// The training batch panics.
    Panic(usize),
}

/// A training that is the same each time it is run.
#[derive(Debug, Clone)]
pub struct Training {
    /// Where it runs.
    pub backend: Backend,
    /// The devices of the backend to train on, with [`run`](Self::run).
    pub spread: Spread,
    /// Those devices. By default, the backend's device for each of them.
    pub devices: Vec<Device>,
    /// Whether each loss is read in its step, and by a metric.
    pub reads: bool,
    /// How many epochs.
    pub epochs: usize,
    /// How many items are in an epoch. 22, in 6 batches, by default.
    pub items: usize,
    /// How many items are in a batch; the last one has less. 4 by default.
    pub batch_size: usize,
    /// Burn's `grads_accumulation`.
    pub accumulation: Option<usize>,
    /// The network's width.
    pub hidden: usize,
    /// Whether the output layer stores its weights transposed, as Burn's `LinearLayout::Col` does.
    pub column_layout: bool,
    /// The item that can't be read, if any.
    pub broken_item: Option<usize>,
    /// Whether it can't be read in the validation only.
    pub is_broken_in_validation: bool,
    /// The item of the training that is ruined, if any.
    pub poison: Option<Poison>,
    /// Burn's by default.
    pub loaders: Loaders,
    /// Workers of a loader; 0 by default. With several of Burn's, batches come in no fixed order.
    pub workers: usize,
    /// Whether random numbers are drawn in the training: noise in the batcher, and dropout.
    pub draws: bool,
    /// Whether there is a batch normalisation.
    pub norm: bool,
    /// Whether the model computes with a running statistic as it is before each forward pass.
    pub reads_statistics: bool,
    /// Whether the loader does not report its progress.
    pub silent_loader: bool,
    /// The first and the last optimizer step after which a parameter is NaN, counted from 1 in each
    /// process.
    pub poisoned: Option<(usize, usize)>,
    /// Whether metrics are logged to files and summarised at the end.
    pub summary: bool,
    /// Whether Burn writes checkpoints after each epoch.
    pub checkpoints: bool,
    /// Makes the optimizer; Adam by default.
    pub optimizer: fn() -> ModuleOptimizer,
    /// The settings of a fine-tuning, if it is one.
    pub tuning: Option<Tuning>,
    /// The seed of the model's weights at the very first start; 3 by default.
    pub weights_seed: u64,
}

/// What a training reads.
pub struct Data {
    /// The loader of its batches.
    pub train: Arc<dyn DataLoader<Batch>>,
    /// The loader of the validation.
    pub valid: Arc<dyn DataLoader<Batch>>,
}

/// The result of a run.
pub struct Run {
    /// Parameters and running statistics at the end; empty if they can't be read after an error.
    pub weights: Record,
    /// Optimizer steps that the model has seen.
    pub steps: usize,
    /// The records after the last epoch.
    pub records: Records,
    /// The loss of each batch that was trained here, as bytes.
    pub losses: Vec<Vec<u8>>,
    /// The calls of the renderer.
    pub calls: Vec<String>,
    /// As in Burn's result.
    pub interrupted: Option<Interruption>,
    /// As in Burn's result.
    pub error: Option<Arc<TrainingError>>,
}

impl Run {
    /// The error of this crate that ended the run.
    #[track_caller]
    pub fn backup_error(&self) -> &BackupError {
        let error = self.error.as_deref().unwrap();
        BackupError::find(error).unwrap()
    }
}

/// The seeds of the shuffling.
const TRAIN_SEED: u64 = 11;
const VALID_SEED: u64 = 12;

/// The backends' random generators belong to the process, so one training runs at a time.
static EXCLUSIVE: Mutex<()> = Mutex::new(());

impl Training {
    /// Three epochs of six batches.
    pub fn new(backend: Backend) -> Self {
        Self {
            backend,
            spread: Spread::One,
            devices: Vec::new(),
            reads: true,
            epochs: 3,
            items: 22,
            batch_size: 4,
            accumulation: None,
            hidden: 8,
            column_layout: false,
            broken_item: None,
            is_broken_in_validation: false,
            poison: None,
            loaders: Loaders::Burns,
            workers: 0,
            draws: true,
            norm: true,
            reads_statistics: false,
            silent_loader: false,
            poisoned: None,
            summary: false,
            checkpoints: true,
            optimizer: || AdamConfig::new().init(),
            tuning: None,
            weights_seed: 3,
        }
    }

    /// A training on these devices of the CPU, where nothing differs from run to run.
    pub fn spread(spread: Spread) -> Self {
        Self {
            spread,
            // The generators of the CPU belong to the process, and the steps of DDP can't take turns.
            draws: !matches!(spread, Spread::Ddp(2..)),
            // Burn adds up running statistics in no fixed order, which makes a difference with three devices.
            norm: spread.devices() <= 2,
            ..Self::new(Backend::Flex)
        }
    }

    /// Batches in an epoch.
    pub fn batches(&self) -> usize {
        self.items.div_ceil(self.batch_size.max(1))
    }

    /// Runs it with the one line, until it ends or is halted.
    pub fn run(&self, backup: BackupAndRestore, halt: Halt) -> Run {
        self.run_with(halt, |training| {
            training.backup_and_restore(self.spread_over_devices(backup))
        })
    }

    /// The backup with the devices to train on.
    pub fn spread_over_devices(&self, backup: BackupAndRestore) -> BackupAndRestore {
        let devices = match self.devices.is_empty() {
            true => vec![self.backend.device(); self.spread.devices()],
            false => self.devices.clone(),
        };
        match self.spread {
            Spread::Ddp(_) => backup.ddp_on_host(devices),
            spread => match spread.execution(devices) {
                Some(execution) => backup.execution(execution),
                None => backup,
            },
        }
    }

    /// Runs it with what `configure` adds to Burn's builder.
    pub fn run_with(
        &self,
        halt: Halt,
        configure: impl FnOnce(SupervisedTraining<Net>) -> SupervisedTraining<Net>,
    ) -> Run {
        self.run_with_learner(halt, Training::learner, configure)
    }

    /// Runs it with the learner that `make` makes, and with what `configure` adds to Burn's builder.
    pub fn run_with_learner(
        &self,
        halt: Halt,
        make: impl FnOnce(&Self, Hooks) -> Learner<Net>,
        configure: impl FnOnce(SupervisedTraining<Net>) -> SupervisedTraining<Net>,
    ) -> Run {
        self.run_on(self.data(), halt, make, configure)
    }

    /// The same on other `data`.
    pub fn run_on(
        &self,
        data: Data,
        halt: Halt,
        make: impl FnOnce(&Self, Hooks) -> Learner<Net>,
        configure: impl FnOnce(SupervisedTraining<Net>) -> SupervisedTraining<Net>,
    ) -> Run {
        let _exclusive = Self::exclusive();
        let interrupter = Interrupter::new();
        let mut hooks = halting(halt, interrupter.clone());
        if let Some((first, last)) = self.poisoned {
            hooks = hooks.poisoned(first..=last);
        }
        let artifacts = tempfile::tempdir().unwrap();
        let calls = Calls::default();
        let keeper = Keeper::default();
        let mut training = self
            .builder_on(data, artifacts.path(), interrupter, halt)
            .renderer(Box::new(RecordingRenderer::new(calls.clone())));
        if self.checkpoints {
            training = training
                .with_checkpointing_strategy(EachEpoch)
                .with_custom_checkpointers(keeper.clone(), keeper.clone(), keeper.clone());
        }
        training = if self.summary {
            training.summary()
        } else {
            training.with_metric_logger(InMemoryMetricLogger::new())
        };
        let learner = make(self, hooks.clone());
        let LearningResult {
            model,
            interrupted,
            error,
            ..
        } = configure(training).launch(learner);
        let read = catch_unwind(AssertUnwindSafe(|| (model_records(&model), model.steps())));
        let (weights, steps) = match read {
            Ok(read) => read,
            // The device may be gone.
            Err(_) if error.is_some() => Default::default(),
            Err(panic) => resume_unwind(panic),
        };
        Run {
            weights,
            steps,
            records: keeper.records(),
            losses: hooks.losses(),
            calls: calls.list(),
            interrupted,
            error,
        }
    }

    /// Burn's builder for it, with its data and its metrics, and Burn's own renderer.
    pub fn builder(
        &self,
        artifacts: &Path,
        interrupter: Interrupter,
        halt: Halt,
    ) -> SupervisedTraining<Net> {
        self.builder_on(self.data(), artifacts, interrupter, halt)
    }

    fn data(&self) -> Data {
        let loader = |seed| {
            let is_broken = seed == VALID_SEED || !self.is_broken_in_validation;
            let data = Numbers {
                items: self.items,
                broken: self.broken_item.filter(|_| is_broken),
                poison: self.poison.filter(|_| seed == TRAIN_SEED),
            };
            let (size, workers) = (self.batch_size, self.workers);
            let loader = self.loaders.build(data, size, seed, workers, self.draws);
            match self.silent_loader {
                true => Arc::new(Silent(loader)),
                false => loader,
            }
        };
        Data {
            train: loader(TRAIN_SEED),
            valid: loader(VALID_SEED),
        }
    }

    fn builder_on(
        &self,
        data: Data,
        artifacts: &Path,
        interrupter: Interrupter,
        halt: Halt,
    ) -> SupervisedTraining<Net> {
        let train = match halt {
            Halt::StopAfterLast(epoch) => {
                let interrupter = interrupter.clone();
                AtItsEnd::of(data.train, epoch, move || {
                    interrupter.stop(Some("the test stops it after the last batch"));
                })
            }
            _ => data.train,
        };
        let mut training = SupervisedTraining::new(artifacts, train, data.valid)
            .num_epochs(self.epochs)
            .with_interrupter(interrupter)
            .with_application_logger(None);
        if self.reads {
            training = training.metrics((
                AccuracyMetric::new(),
                LossMetric::new(),
                LearningRateMetric::new(),
            ));
        }
        match self.accumulation {
            Some(accumulation) => training.grads_accumulation(accumulation),
            None => training,
        }
    }

    /// Lets no training run at the same time. It is for code that draws random numbers outside of a training,
    /// such as the weights of a new model.
    pub fn exclusive() -> MutexGuard<'static, ()> {
        EXCLUSIVE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The learner at the very first start.
    pub fn learner(&self, hooks: Hooks) -> Learner<Net> {
        let model = self.model(hooks);
        Learner::new(model, (self.optimizer)(), self.schedule())
    }

    /// The model at the very first start.
    pub fn model(&self, hooks: Hooks) -> Net {
        let first = self.devices.first().cloned();
        let device = first.unwrap_or_else(|| self.backend.device());
        device.seed(self.weights_seed);
        let layout = if self.column_layout {
            LinearLayout::Col
        } else {
            LinearLayout::Row
        };
        let net = Net::new(self.hidden, layout, self.tuning, &device.autodiff(), hooks);
        let net = match self.draws {
            true => net,
            false => net.without_dropout(),
        };
        let net = match self.norm {
            true => net,
            false => net.without_norm(),
        };
        let net = match self.reads_statistics {
            true => net.reading_statistics(),
            false => net,
        };
        match self.reads {
            true => net,
            false => net.without_reading(),
        }
    }

    /// The learning-rate schedule, over three epochs of the default number of batches.
    pub fn schedule(&self) -> burn::optim::lr_scheduler::module_lr_scheduler::ModuleLrScheduler {
        CosineAnnealingLrSchedulerConfig::new(1e-2, 18)
            .init()
            .unwrap()
    }

    /// A backup into `dir`. Its run seed makes the training the same each time. It has no metric that shows
    /// the age of backups. The next due backup follows a failed one, because these trainings end within a
    /// second.
    pub fn backup(dir: impl AsRef<Path>) -> BackupAndRestore {
        let backup = BackupAndRestore::new(dir.as_ref()).seed(5);
        backup.dashboard(false).retry_after(Duration::ZERO)
    }
}

fn halting(halt: Halt, interrupter: Interrupter) -> Hooks {
    let hooks = Hooks::default();
    match halt {
        Halt::Never | Halt::StopAfterLast(_) => hooks,
        Halt::Stop(at) => hooks.on_train(move |batch| {
            if batch == at {
                interrupter.stop(Some("the test stops it"));
            }
        }),
        Halt::Fail(at) => hooks.on_train(move |batch| {
            if batch == at {
                interrupter.fail(TrainingError::Workers(Vec::new()));
            }
        }),
        Halt::StopInValidation(at) => hooks.on_valid(move |batch| {
            if batch == at {
                interrupter.stop(Some("the test stops it in its validation"));
            }
        }),
        Halt::FailInValidation(at) => hooks.on_valid(move |batch| {
            if batch == at {
                interrupter.fail(TrainingError::Workers(Vec::new()));
            }
        }),
        Halt::AbortInValidation(at) => hooks.on_valid(move |batch| {
            if batch == at {
                std::process::abort();
            }
        }),
        Halt::Panic(at) => hooks.on_train(move |batch| {
            assert!(batch != at, "the test has batch {at} panic");
        }),
    }
}
