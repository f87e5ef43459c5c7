//! Two linear layers, with dropout.

use std::sync::Arc;

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig, Relu};
use burn::tensor::{Device, Tensor};
use burn::train::{ClassificationOutput, InferenceStep, TrainOutput, TrainStep};

use crate::crash::CrashPoint;
use crate::data::{self, CLASSES, DigitBatch, PIXELS};

const HIDDEN: usize = 64;

#[derive(Module, Debug)]
pub struct DigitsModel {
    linear1: Linear,
    linear2: Linear,
    dropout: Dropout,
    activation: Relu,
    #[module(skip)]
    crash: Option<Arc<CrashPoint>>,
}

impl DigitsModel {
    pub fn new(device: &Device, crash: Option<CrashPoint>) -> Self {
        Self {
            linear1: LinearConfig::new(PIXELS, HIDDEN).init(device),
            linear2: LinearConfig::new(HIDDEN, CLASSES).init(device),
            dropout: DropoutConfig::new(0.3).init(),
            activation: Relu::new(),
            crash: crash.map(Arc::new),
        }
    }

    /// Images of shape `[batch, 64]` to logits of shape `[batch, 10]`.
    fn forward(&self, images: Tensor<2>) -> Tensor<2> {
        let x = self.activation.forward(self.linear1.forward(images));
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

impl TrainStep for DigitsModel {
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

impl InferenceStep for DigitsModel {
    type Input = DigitBatch;
    type Output = ClassificationOutput;

    fn step(&self, batch: DigitBatch) -> ClassificationOutput {
        self.classify(batch)
    }
}

/// The share of the validation set that `model` recognises.
pub fn accuracy(model: &DigitsModel, device: &Device) -> anyhow::Result<f64> {
    let batch = data::validation_batch(device);
    let [images] = batch.classes.dims();
    let recognised = model
        .forward(batch.images)
        .argmax(1)
        .flatten::<1>(0, 1)
        .equal(batch.classes)
        .int()
        .sum()
        .try_into_scalar::<i64>()
        .map_err(|error| anyhow::anyhow!("cannot read the accuracy from the device: {error:?}"))?;
    Ok(recognised as f64 / images as f64)
}
