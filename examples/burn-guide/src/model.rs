//! Two convolutions, dropout, and two linear layers.

use std::sync::Arc;

use burn::config::Config;
use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig, PaddingConfig2d, Relu};
use burn::tensor::{Device, Tensor};
use burn::train::{ClassificationOutput, InferenceStep, TrainOutput, TrainStep};
use digits::crash::CrashPoint;

use crate::data::{CLASSES, DigitBatch, SIDE};

#[derive(Config, Debug)]
pub struct ModelConfig {
    #[config(default = 16)]
    channels: usize,
    #[config(default = 64)]
    hidden_size: usize,
    #[config(default = 0.3)]
    dropout: f64,
}

#[derive(Module, Debug)]
pub struct Model {
    conv1: Conv2d,
    conv2: Conv2d,
    pool: MaxPool2d,
    dropout: Dropout,
    linear1: Linear,
    linear2: Linear,
    activation: Relu,
    #[module(skip)]
    crash: Option<Arc<CrashPoint>>,
}

impl ModelConfig {
    pub fn init(&self, device: &Device, crash: Option<CrashPoint>) -> Model {
        let convolution = |from, to| {
            Conv2dConfig::new([from, to], [3, 3])
                .with_padding(PaddingConfig2d::Same)
                .init(device)
        };
        // Each convolution is pooled.
        let side = SIDE / 4;
        let flattened = self.channels * side * side;
        Model {
            conv1: convolution(1, self.channels / 2),
            conv2: convolution(self.channels / 2, self.channels),
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            dropout: DropoutConfig::new(self.dropout).init(),
            linear1: LinearConfig::new(flattened, self.hidden_size).init(device),
            linear2: LinearConfig::new(self.hidden_size, CLASSES).init(device),
            activation: Relu::new(),
            crash: crash.map(Arc::new),
        }
    }
}

impl Model {
    /// Images of shape `[batch, 1, 16, 16]` to logits of shape `[batch, 10]`.
    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.activation.forward(self.conv1.forward(images));
        let x = self.conv2.forward(self.pool.forward(x));
        let x = self.pool.forward(self.activation.forward(x));
        let x = self.dropout.forward(x.flatten(1, 3));
        let x = self.activation.forward(self.linear1.forward(x));
        self.linear2.forward(self.dropout.forward(x))
    }

    fn classify(&self, batch: DigitBatch) -> ClassificationOutput {
        let logits = self.forward(batch.images);
        let loss = CrossEntropyLossConfig::new()
            .init(&logits.device())
            .forward(logits.clone(), batch.classes.clone());
        ClassificationOutput::new(loss, logits, batch.classes)
    }
}

impl TrainStep for Model {
    type Input = DigitBatch;
    type Output = ClassificationOutput;

    fn step(&self, batch: DigitBatch) -> TrainOutput<ClassificationOutput> {
        let output = self.classify(batch);
        if let Some(crash) = &self.crash {
            crash.pass();
        }
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl InferenceStep for Model {
    type Input = DigitBatch;
    type Output = ClassificationOutput;

    fn step(&self, batch: DigitBatch) -> ClassificationOutput {
        self.classify(batch)
    }
}
