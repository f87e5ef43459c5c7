//! A fine-tuning in two trainings: of the head with the backbone frozen, then of both. Each has a backup
//! directory of its own.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::module::Module;
use burn::optim::AdamConfig;
use burn::tensor::Device;
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{Learner, SupervisedTraining};
use burn_backup_restore::{BackupAndRestore, BackupExt as _, BackupHandle, data};

use super::points::{Batch, Model, Point, PointBatcher, points};
use super::{Options, Trained, Variant};
use crate::records::model_records;

const SEED: u64 = 42;

pub fn train(options: &Options) -> Trained {
    let artifacts = options.artifacts();
    let device = Device::flex().autodiff();
    device.seed(SEED);
    let mut model = Model::new(&device);
    model.input = model.input.freeze();
    let (model, first) = phase(options, "head", model, 1e-2);

    let model = Model::new(&device).load_record(model.into_record());
    let (model, second) = phase(options, "all", model, 1e-3);

    let trained = model_records(&model).into();
    fs::create_dir_all(&artifacts).unwrap();
    model.into_record().save(artifacts.join("model")).unwrap();
    if options.variant == Variant::Checklist {
        first.discard().unwrap();
        second.discard().unwrap();
    }
    trained
}

fn phase(options: &Options, name: &str, model: Model, rate: f64) -> (Model, BackupHandle) {
    let artifacts = options.artifacts().join(name);
    let training = training(options, &artifacts);
    let backup = BackupAndRestore::new(options.backup().join(name)).save_freq(3);
    let handle = backup.handle();
    let training = match options.variant {
        Variant::Without => training,
        Variant::Line => training.backup_and_restore(backup),
        // Kept until all phases are done, so that a complete phase is not trained again.
        Variant::Checklist => {
            training.backup_and_restore(backup.artifacts(&artifacts).delete_checkpoint(false))
        }
    };
    let result = training.launch(Learner::new(model, AdamConfig::new().init(), rate));
    (result.model, handle)
}

fn training(options: &Options, artifacts: &Path) -> SupervisedTraining<Model> {
    SupervisedTraining::new(
        artifacts,
        loader(options, points(0..128)),
        loader(options, points(128..160)),
    )
    .metrics((AccuracyMetric::new(), LossMetric::new()))
    .with_default_checkpointers()
    .num_epochs(2)
    .summary()
}

fn loader(options: &Options, points: Vec<Point>) -> Arc<dyn DataLoader<Batch>> {
    let data = InMemDataset::new(points);
    let workers = options.workers(0);
    match options.variant {
        Variant::Without | Variant::Line => DataLoaderBuilder::new(PointBatcher)
            .batch_size(8)
            .shuffle(SEED)
            .num_workers(workers)
            .build(data),
        Variant::Checklist => data::DataLoaderBuilder::new(PointBatcher)
            .batch_size(8)
            .shuffle(SEED)
            .num_workers(workers)
            .build(data),
    }
}
