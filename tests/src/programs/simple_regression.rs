//! A regression with two layers: a seeded device, and a loader that shuffles with workers.

use std::fs;
use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::module::Module;
use burn::nn::loss::{MseLoss, Reduction};
use burn::nn::{Linear, LinearConfig, Relu};
use burn::optim::AdamConfig;
use burn::tensor::{Device, Tensor, TensorData};
use burn::train::metric::LossMetric;
use burn::train::{
    InferenceStep, Learner, RegressionOutput, SupervisedTraining, TrainOutput, TrainStep,
};
use burn_backup_restore::{BackupAndRestore, BackupExt as _, data};

use super::batch_count::count_batch;
use super::{Options, Trained, Variant};
use crate::records::model_records;

const FEATURES: usize = 4;
const SEED: u64 = 1337;

pub fn train(options: &Options) -> Trained {
    let artifacts = options.artifacts();
    // So that the summary is of this training only. A resumed training keeps its logs.
    if options.variant != Variant::Checklist || !options.backup().exists() {
        fs::remove_dir_all(&artifacts).ok();
    }
    fs::create_dir_all(&artifacts).unwrap();

    let device = Device::flex().autodiff();
    device.seed(SEED);
    let model = Model::new(&device);

    let training = SupervisedTraining::new(
        &artifacts,
        loader(options, houses(0..128)),
        loader(options, houses(128..160)),
    )
    .metric_train_numeric(LossMetric::new())
    .metric_valid_numeric(LossMetric::new())
    .with_default_checkpointers()
    .num_epochs(3)
    .summary();
    let backup = BackupAndRestore::new(options.backup()).save_freq(3);
    let training = match options.variant {
        Variant::Without => training,
        Variant::Line => training.backup_and_restore(backup),
        Variant::Checklist => training.backup_and_restore(backup.artifacts(&artifacts)),
    };
    let result = training.launch(Learner::new(model, AdamConfig::new().init(), 1e-2));

    let trained = model_records(&result.model).into();
    let record = result.model.into_record();
    record.save(artifacts.join("model")).unwrap();
    trained
}

fn loader(options: &Options, houses: Vec<House>) -> Arc<dyn DataLoader<Batch>> {
    let data = InMemDataset::new(houses);
    let workers = options.workers(2);
    match options.variant {
        Variant::Without | Variant::Line => DataLoaderBuilder::new(HouseBatcher)
            .batch_size(8)
            .shuffle(SEED)
            .num_workers(workers)
            .build(data),
        Variant::Checklist => data::DataLoaderBuilder::new(HouseBatcher)
            .batch_size(8)
            .shuffle(SEED)
            .num_workers(workers)
            .build(data),
    }
}

#[derive(Clone, Debug)]
struct House {
    features: [f32; FEATURES],
    price: f32,
}

fn houses(ids: std::ops::Range<usize>) -> Vec<House> {
    let houses = ids.map(|id| {
        let features: [f32; FEATURES] =
            std::array::from_fn(|at| ((id * 7 + at * 5 + id * at) % 19) as f32 / 19.0);
        let [size, rooms, age, distance] = features;
        House {
            features,
            price: 3.0 * size + rooms - 0.5 * age * distance,
        }
    });
    houses.collect()
}

#[derive(Clone, Debug)]
struct Batch {
    features: Tensor<2>,
    prices: Tensor<2>,
}

#[derive(Clone)]
struct HouseBatcher;

impl Batcher<House, Batch> for HouseBatcher {
    fn batch(&self, houses: Vec<House>, device: &Device) -> Batch {
        let rows = houses.len();
        let prices: Vec<f32> = houses.iter().map(|house| house.price).collect();
        let features: Vec<f32> = houses.iter().flat_map(|house| house.features).collect();
        Batch {
            features: Tensor::from_data(TensorData::new(features, [rows, FEATURES]), device),
            prices: Tensor::from_data(TensorData::new(prices, [rows, 1]), device),
        }
    }
}

#[derive(Module, Debug)]
struct Model {
    input: Linear,
    output: Linear,
    activation: Relu,
}

impl Model {
    fn new(device: &Device) -> Self {
        Self {
            input: LinearConfig::new(FEATURES, 16).init(device),
            output: LinearConfig::new(16, 1).init(device),
            activation: Relu::new(),
        }
    }

    fn regress(&self, batch: Batch) -> RegressionOutput {
        let x = self.activation.forward(self.input.forward(batch.features));
        let output = self.output.forward(x);
        let loss = MseLoss::new().forward(output.clone(), batch.prices.clone(), Reduction::Mean);
        RegressionOutput::new(loss, output, batch.prices)
    }
}

impl TrainStep for Model {
    type Input = Batch;
    type Output = RegressionOutput;

    fn step(&self, batch: Batch) -> TrainOutput<RegressionOutput> {
        count_batch();
        let output = self.regress(batch);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl InferenceStep for Model {
    type Input = Batch;
    type Output = RegressionOutput;

    fn step(&self, batch: Batch) -> RegressionOutput {
        self.regress(batch)
    }
}
