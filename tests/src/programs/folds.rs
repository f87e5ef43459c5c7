//! A cross-validation: a training for each fold, with a backup directory each.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::module::Module;
use burn::optim::AdamConfig;
use burn::tensor::Device;
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{Learner, SupervisedTraining};
use burn_backup_restore::{BackupAndRestore, BackupExt as _, data};

use super::points::{Batch, CLASSES, Model, Point, PointBatcher, points};
use super::{Options, Trained, Variant};
use crate::records::model_records;

const FOLDS: usize = 3;
const SEED: u64 = 42;

pub fn train(options: &Options) -> Trained {
    let device = Device::flex().autodiff();
    device.seed(SEED);
    let mut models = BTreeMap::new();
    let mut handles = Vec::new();
    for fold in 0..FOLDS {
        let name = format!("fold-{fold}");
        if options.variant == Variant::Checklist {
            // A fold that was already complete draws nothing.
            device.seed(SEED + fold as u64);
        }
        let model = Model::new(&device);

        let (held_out, rest) = split(points(0..120), fold);
        let artifacts = options.artifacts().join(&name);
        let training =
            SupervisedTraining::new(&artifacts, loader(options, rest), loader(options, held_out))
                .metrics((AccuracyMetric::new(), LossMetric::new()))
                .num_epochs(2)
                .summary();
        let backup = BackupAndRestore::new(options.backup().join(&name)).save_freq(3);
        handles.push(backup.handle());
        let training = match options.variant {
            Variant::Without => training,
            Variant::Line => training.backup_and_restore(backup),
            // Kept until all folds are done, so that a complete fold is not trained again.
            Variant::Checklist => {
                training.backup_and_restore(backup.metric_logs(&artifacts).delete_checkpoint(false))
            }
        };
        let result = training.launch(Learner::new(model, AdamConfig::new().init(), 1e-2));

        let record = model_records(&result.model).into_iter();
        models.extend(record.map(|(path, value)| (format!("{name}: {path}"), value)));
        let record = result.model.into_record();
        record.save(artifacts.join("model")).unwrap();
    }
    if options.variant == Variant::Checklist {
        for handle in handles {
            handle.discard().unwrap();
        }
    }
    models.into()
}

/// Each third point, starting at the number of the fold, and all other points.
fn split(points: Vec<Point>, fold: usize) -> (Vec<Point>, Vec<Point>) {
    let (held_out, rest): (Vec<_>, Vec<_>) = points
        .into_iter()
        .enumerate()
        .partition(|(at, _)| at / CLASSES % FOLDS == fold);
    let without_number = |(_, point)| point;
    (
        held_out.into_iter().map(without_number).collect(),
        rest.into_iter().map(without_number).collect(),
    )
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
