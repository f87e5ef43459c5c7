//! What several programs have in common: a few numbers to be classified by a small network with dropout.

use std::ops::Range;

use burn::data::dataloader::batcher::Batcher;
use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig, Relu};
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn::train::{ClassificationOutput, InferenceStep, TrainOutput, TrainStep};

use super::batch_count::count_batch;

const FEATURES: usize = 6;
pub(super) const CLASSES: usize = 3;

#[derive(Clone, Debug)]
pub(super) struct Point {
    features: [f32; FEATURES],
    class: i64,
}

pub(super) fn points(ids: Range<usize>) -> Vec<Point> {
    let points = ids.map(|id| {
        let class = id % CLASSES;
        Point {
            features: std::array::from_fn(|at| {
                let noise = (id * 13 + at * 7) % 11;
                (class * at) as f32 / 6.0 + noise as f32 / 11.0
            }),
            class: class as i64,
        }
    });
    points.collect()
}

#[derive(Clone, Debug)]
pub(super) struct Batch {
    features: Tensor<2>,
    classes: Tensor<1, Int>,
}

#[derive(Clone)]
pub(super) struct PointBatcher;

impl Batcher<Point, Batch> for PointBatcher {
    fn batch(&self, points: Vec<Point>, device: &Device) -> Batch {
        let rows = points.len();
        let classes: Vec<i64> = points.iter().map(|point| point.class).collect();
        let features: Vec<f32> = points.iter().flat_map(|point| point.features).collect();
        Batch {
            features: Tensor::from_data(TensorData::new(features, [rows, FEATURES]), device),
            classes: Tensor::from_data(TensorData::new(classes, [rows]), device),
        }
    }
}

#[derive(Module, Debug)]
pub(super) struct Model {
    pub(super) input: Linear,
    dropout: Dropout,
    output: Linear,
    activation: Relu,
}

impl Model {
    pub(super) fn new(device: &Device) -> Self {
        Self {
            input: LinearConfig::new(FEATURES, 12).init(device),
            dropout: DropoutConfig::new(0.2).init(),
            output: LinearConfig::new(12, CLASSES).init(device),
            activation: Relu::new(),
        }
    }

    fn classify(&self, batch: Batch) -> ClassificationOutput {
        let x = self.activation.forward(self.input.forward(batch.features));
        let logits = self.output.forward(self.dropout.forward(x));
        let loss = CrossEntropyLossConfig::new()
            .init(&logits.device())
            .forward(logits.clone(), batch.classes.clone());
        ClassificationOutput::new(loss, logits, batch.classes)
    }
}

impl TrainStep for Model {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> TrainOutput<ClassificationOutput> {
        count_batch();
        let output = self.classify(batch);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl InferenceStep for Model {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> ClassificationOutput {
        self.classify(batch)
    }
}
