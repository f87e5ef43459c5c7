use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::module::{Module, Param, ParamId};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{
    BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear, LinearConfig, LinearLayout, Relu,
};
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::optim::{GradientsParams, ModuleOptimizer, MultiGradientsParams};
use burn::tensor::{Device, Int, Tensor};
use burn::train::{ClassificationOutput, InferenceStep, TrainOutput, TrainStep};

pub const FEATURES: usize = 6;
pub const CLASSES: usize = 3;

/// Inputs of shape `[batch, 6]` and classes of shape `[batch]`.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The inputs of the network.
    pub inputs: Tensor<2>,
    /// The expected classes.
    pub classes: Tensor<1, Int>,
}

/// The settings of a fine-tuning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// Units of the backbone: 512 of them have a megabyte of weights.
    pub width: usize,
    /// Whether the backbone is frozen.
    pub is_frozen: bool,
    /// Whether everything without a gradient stays as it is: running statistics and counters.
    pub is_still: bool,
}

impl Tuning {
    /// 311 thousand frozen parameters, and 5 thousand that are trained.
    pub const DEFAULT: Self = Self {
        width: 600,
        is_frozen: true,
        is_still: false,
    };
}

/// When a training starts, or stops, training a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// After so many optimizer steps.
    pub after: usize,
    /// Whether the layer is trained from then on.
    pub trains: bool,
}

/// The part that a fine-tuning does not train.
#[derive(Module, Debug)]
struct Backbone {
    widen: Linear,
    mix: Linear,
    /// How many times four optimizer steps this model has seen: shape `[1]`.
    milestones: Param<Tensor<1>>,
}

const BACKBONE_INPUTS: usize = 512;
const STEPS_PER_MILESTONE: usize = 4;

impl Backbone {
    fn new(tuning: Tuning, device: &Device) -> Self {
        let backbone = Self {
            widen: LinearConfig::new(FEATURES, BACKBONE_INPUTS).init(device),
            mix: LinearConfig::new(BACKBONE_INPUTS, tuning.width).init(device),
            milestones: counter(device),
        };
        match tuning.is_frozen {
            true => backbone.freeze(),
            false => backbone,
        }
    }

    fn forward(&self, inputs: Tensor<2>) -> Tensor<2> {
        let relu = Relu::new();
        relu.forward(self.mix.forward(relu.forward(self.widen.forward(inputs))))
    }
}

fn counter(device: &Device) -> Param<Tensor<1>> {
    Param::initialized(ParamId::new(), Tensor::zeros([1], device)).set_require_grad(false)
}

/// The network.
#[derive(Module, Debug)]
pub struct Net {
    backbone: Option<Backbone>,
    input: Linear,
    norm: BatchNorm,
    dropout: Dropout,
    output: Linear,
    /// No forward pass uses it: nothing but the training's start initialises it.
    unused: Linear,
    /// How many optimizer steps this model has seen: shape `[1]`.
    steps: Param<Tensor<1>>,
    #[module(skip)]
    skips_norm: bool,
    #[module(skip)]
    skips_reading: bool,
    #[module(skip)]
    reads_statistics: bool,
    #[module(skip)]
    tuning: Option<Tuning>,
    #[module(skip)]
    turn: Option<Turn>,
    #[module(skip)]
    hooks: Hooks,
}

impl Net {
    /// A network with `hidden` units, whose output layer has the given layout.
    pub fn new(
        hidden: usize,
        layout: LinearLayout,
        tuning: Option<Tuning>,
        device: &Device,
        hooks: Hooks,
    ) -> Self {
        let features = tuning.map_or(FEATURES, |tuning| tuning.width);
        let norm = BatchNormConfig::new(hidden).init(device);
        Self {
            backbone: tuning.map(|tuning| Backbone::new(tuning, device)),
            input: LinearConfig::new(features, hidden).init(device),
            norm: match tuning {
                Some(Tuning { is_still: true, .. }) => norm.freeze(),
                _ => norm,
            },
            dropout: DropoutConfig::new(0.3).init(),
            output: LinearConfig::new(hidden, CLASSES)
                .with_layout(layout)
                .init(device),
            unused: LinearConfig::new(FEATURES, CLASSES).init(device),
            steps: counter(device),
            skips_norm: false,
            skips_reading: false,
            reads_statistics: false,
            tuning,
            turn: None,
            hooks,
        }
    }

    /// The same network, whose input layer starts or stops being trained at `turn`. Until then it is the
    /// other way round.
    pub fn turning(mut self, turn: Turn) -> Self {
        self.train_input(!turn.trains);
        Self {
            turn: Some(turn),
            ..self
        }
    }

    fn train_input(&mut self, is_trained: bool) {
        let input = self.input.clone();
        self.input = Linear {
            weight: input.weight.set_require_grad(is_trained),
            bias: input.bias.map(|bias| bias.set_require_grad(is_trained)),
        };
    }

    /// The same network, without the batch normalisation in its steps.
    pub fn without_norm(self) -> Self {
        Self {
            skips_norm: true,
            ..self
        }
    }

    /// The same network, which reads nothing from its device in its steps.
    pub fn without_reading(self) -> Self {
        Self {
            skips_reading: true,
            ..self
        }
    }

    /// The same network, which computes with the running mean as it is before each forward pass.
    pub fn reading_statistics(self) -> Self {
        Self {
            reads_statistics: true,
            ..self
        }
    }

    /// The same network, which draws nothing in its steps.
    pub fn without_dropout(self) -> Self {
        Self {
            dropout: DropoutConfig::new(0.0).init(),
            ..self
        }
    }

    /// How many optimizer steps this model has seen.
    pub fn steps(&self) -> usize {
        self.steps.val().try_into_scalar::<f32>().unwrap() as usize
    }

    /// The hooks that watch it.
    pub fn hooks(&self) -> Hooks {
        self.hooks.clone()
    }

    /// The network after one more optimizer step.
    fn counted(mut self) -> Self {
        if self.tuning.is_some_and(|tuning| tuning.is_still) {
            return self;
        }
        let poison = self.hooks.poison();
        self.steps = self.steps.map(|steps| match poison {
            None => steps.add_scalar(1),
            Some(value) => steps.zeros_like().add_scalar(value),
        });
        if let Some(turn) = self.turn
            && self.steps() == turn.after
        {
            self.train_input(turn.trains);
        }
        if self.backbone.is_some()
            && self.steps().is_multiple_of(STEPS_PER_MILESTONE)
            && let Some(backbone) = &mut self.backbone
        {
            let milestones = backbone.milestones.clone();
            backbone.milestones = milestones.map(|milestones| milestones.add_scalar(1));
        }
        self
    }

    fn classify(&self, batch: Batch) -> ClassificationOutput {
        let features = match &self.backbone {
            Some(backbone) => backbone.forward(batch.inputs),
            None => batch.inputs,
        };
        let features = match self.reads_statistics {
            true => features + self.norm.running_mean.value().mean().unsqueeze(),
            false => features,
        };
        let x = self.input.forward(features);
        let x = match self.skips_norm {
            true => x,
            false => self.norm.forward(x),
        };
        let x = self.dropout.forward(Relu::new().forward(x));
        let logits = self.output.forward(x);
        let loss = CrossEntropyLossConfig::new()
            .init(&logits.device())
            .forward(logits.clone(), batch.classes.clone());
        ClassificationOutput::new(loss, logits, batch.classes)
    }
}

impl TrainStep for Net {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> TrainOutput<ClassificationOutput> {
        self.hooks.computes_on(&batch.inputs.device());
        self.hooks.takes(&batch);
        let output = self.classify(batch);
        self.hooks.trained(match self.skips_reading {
            true => Vec::new(),
            false => output.loss.clone().into_data().as_bytes().to_vec(),
        });
        TrainOutput::new(self, output.loss.backward(), output)
    }

    fn optimize(
        self,
        optim: &mut ModuleOptimizer,
        lr: ModuleLearningRate,
        grads: GradientsParams,
    ) -> Self {
        optim.step(lr, self, grads).counted()
    }

    fn optimize_multi(
        self,
        optim: &mut ModuleOptimizer,
        lr: ModuleLearningRate,
        grads: MultiGradientsParams,
    ) -> Self {
        optim.step_multi(lr, self, grads).counted()
    }
}

impl InferenceStep for Net {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> ClassificationOutput {
        self.hooks.validated();
        self.classify(batch)
    }
}

type OnBatch = Box<dyn FnMut(usize) + Send>;
type OnDevice = Arc<dyn Fn(&Device) + Send + Sync>;
type OnInput = Arc<dyn Fn(&Batch) + Send + Sync>;

/// How many steps the optimizer has made here, and in which of them the counter is NaN.
struct Poison {
    steps: usize,
    poisoned: RangeInclusive<usize>,
}

#[derive(Default)]
struct Seen {
    poison: Option<Poison>,
    /// The loss of each batch trained with these hooks, as bytes.
    losses: Vec<Vec<u8>>,
    validated: usize,
    on_train: Option<OnBatch>,
    on_valid: Option<OnBatch>,
    on_device: Option<OnDevice>,
    on_input: Option<OnInput>,
}

/// Watches a training from inside its steps, on the training thread.
#[derive(Clone, Default)]
pub struct Hooks {
    seen: Arc<Mutex<Seen>>,
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooks")
    }
}

impl Hooks {
    /// Calls `on_train` in the middle of each training step, with the number of the batch, counted
    /// from 1 in this process.
    pub fn on_train(self, on_train: impl FnMut(usize) + Send + 'static) -> Self {
        self.seen().on_train = Some(Box::new(on_train));
        self
    }

    /// Calls `on_valid` in the middle of each validation step, with the number of the batch,
    /// counted from 1 in this process.
    pub fn on_valid(self, on_valid: impl FnMut(usize) + Send + 'static) -> Self {
        self.seen().on_valid = Some(Box::new(on_valid));
        self
    }

    /// Calls `on_device` in each training step, with the device of its batch. Several devices may call it at
    /// the same time.
    pub fn on_device(self, on_device: impl Fn(&Device) + Send + Sync + 'static) -> Self {
        self.seen().on_device = Some(Arc::new(on_device));
        self
    }

    /// Calls `on_input` in each training step, with its batch. Several devices may call it at the same time.
    pub fn on_input(self, on_input: impl Fn(&Batch) + Send + Sync + 'static) -> Self {
        self.seen().on_input = Some(Arc::new(on_input));
        self
    }

    /// Sets the model's counter to NaN after the optimizer steps in `poisoned`, counted from 1 in this
    /// process. Later steps set it right again if the training began here.
    pub fn poisoned(self, poisoned: RangeInclusive<usize>) -> Self {
        self.seen().poison = Some(Poison { steps: 0, poisoned });
        self
    }

    /// The value of the counter after the current optimizer step, if it is poisoned.
    fn poison(&self) -> Option<f32> {
        let mut seen = self.seen();
        let poison = seen.poison.as_mut()?;
        poison.steps += 1;
        match poison.poisoned.contains(&poison.steps) {
            true => Some(f32::NAN),
            false => Some(poison.steps as f32),
        }
    }

    /// The loss of each batch trained with these hooks, as bytes.
    pub fn losses(&self) -> Vec<Vec<u8>> {
        self.seen().losses.clone()
    }

    /// A test may panic while this is locked, and the other devices continue.
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn computes_on(&self, device: &Device) {
        let on_device = self.seen().on_device.clone();
        if let Some(on_device) = on_device {
            on_device(device);
        }
    }

    fn takes(&self, batch: &Batch) {
        let on_input = self.seen().on_input.clone();
        if let Some(on_input) = on_input {
            on_input(batch);
        }
    }

    fn trained(&self, loss: Vec<u8>) {
        let mut seen = self.seen();
        seen.losses.push(loss);
        let count = seen.losses.len();
        if let Some(on_train) = &mut seen.on_train {
            on_train(count);
        }
    }

    fn validated(&self) {
        let mut seen = self.seen();
        seen.validated += 1;
        let count = seen.validated;
        if let Some(on_valid) = &mut seen.on_valid {
            on_valid(count);
        }
    }
}
