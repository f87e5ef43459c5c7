//! Two convolutions with batch normalisation, dropout, and two linear layers.

use std::sync::Arc;

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{
    BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear, LinearConfig, PaddingConfig2d, Relu,
};
use burn::tensor::{Device, Tensor};
use burn::train::{ClassificationOutput, InferenceStep, TrainOutput, TrainStep};

use crate::crash::CrashPoint;
use crate::data::{self, CLASSES, DigitBatch, SIDE};

const CHANNELS: usize = 32;
const HIDDEN: usize = 64;

/// The network.
#[derive(Module, Debug)]
pub struct DigitsModel {
    conv1: Conv2d,
    norm1: BatchNorm,
    conv2: Conv2d,
    norm2: BatchNorm,
    pool: MaxPool2d,
    dropout: Dropout,
    linear1: Linear,
    linear2: Linear,
    activation: Relu,
    #[module(skip)]
    crash: Option<Arc<CrashPoint>>,
}

impl DigitsModel {
    /// A new network on `device`. With `crash`, it crashes in a training batch.
    pub fn new(device: &Device, crash: Option<CrashPoint>) -> Self {
        let convolution = |from, to| {
            Conv2dConfig::new([from, to], [3, 3])
                .with_padding(PaddingConfig2d::Same)
                .init(device)
        };
        let pooled = SIDE / 2;
        Self {
            conv1: convolution(1, CHANNELS / 2),
            norm1: BatchNormConfig::new(CHANNELS / 2).init(device),
            conv2: convolution(CHANNELS / 2, CHANNELS),
            norm2: BatchNormConfig::new(CHANNELS).init(device),
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            dropout: DropoutConfig::new(0.3).init(),
            linear1: LinearConfig::new(CHANNELS * pooled * pooled, HIDDEN).init(device),
            linear2: LinearConfig::new(HIDDEN, CLASSES).init(device),
            activation: Relu::new(),
            crash: crash.map(Arc::new),
        }
    }

    /// Images of shape `[batch, 1, 8, 8]` to logits of shape `[batch, 10]`.
    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.norm1.forward(self.conv1.forward(images));
        let x = self.activation.forward(x);
        let x = self.norm2.forward(self.conv2.forward(x));
        let x = self.pool.forward(self.activation.forward(x));
        let x = self.dropout.forward(x.flatten(1, 3));
        let x = self.activation.forward(self.linear1.forward(x));
        self.linear2.forward(self.dropout.forward(x))
    }

    /// The loss of a training batch, and what it is computed from.
    pub fn classify_to_train(&self, batch: DigitBatch) -> ClassificationOutput {
        let output = self.classify(batch);
        if let Some(crash) = &self.crash {
            crash.pass();
        }
        output
    }

    /// How many images of a batch are recognised.
    ///
    /// # Errors
    ///
    /// When the device can't be read.
    pub fn recognised(&self, batch: DigitBatch) -> anyhow::Result<usize> {
        let hits = self.forward(batch.images).argmax(1).flatten::<1>(0, 1);
        let hits = hits.equal(batch.classes).int().sum();
        let hits = hits.try_into_scalar::<i64>();
        let hits = hits.map_err(|error| {
            anyhow::anyhow!("cannot read the accuracy from the device: {error:?}")
        })?;
        Ok(usize::try_from(hits)?)
    }

    fn classify(&self, batch: DigitBatch) -> ClassificationOutput {
        let logits = self.forward(batch.images);
        let loss = CrossEntropyLossConfig::new()
            .init(&logits.device())
            .forward(logits.clone(), batch.classes.clone());
        ClassificationOutput::new(loss, logits, batch.classes)
    }
}

impl TrainStep for DigitsModel {
    type Input = DigitBatch;
    type Output = ClassificationOutput;

    fn step(&self, batch: DigitBatch) -> TrainOutput<ClassificationOutput> {
        let output = self.classify_to_train(batch);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl InferenceStep for DigitsModel {
    type Input = DigitBatch;
    type Output = ClassificationOutput;

    fn step(&self, batch: DigitBatch) -> ClassificationOutput {
        self.classify(batch)
    }
}

/// The share of the validation set that `model` recognises.
///
/// # Errors
///
/// When the device can't be read.
pub fn accuracy(model: &DigitsModel, device: &Device) -> anyhow::Result<f64> {
    let batch = data::validation_batch(device);
    let [images] = batch.classes.dims();
    Ok(model.recognised(batch)? as f64 / images as f64)
}
