//! The training, and the evaluation of its model.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use burn::config::Config;
use burn::data::dataloader::DataLoader;
use burn::data::dataset::Dataset;
use burn::data::dataset::transform::MapperDataset;
use burn::module::Module as _;
use burn::optim::AdamConfig;
use burn::tensor::Device;
use burn::train::metric::{AccuracyMetric, LossMetric, Metric as _, NumericEntry};
use burn::train::renderer::MetricsRenderer;
use burn::train::{EvaluatorBuilder, Learner, LearningResult, SupervisedTraining};
// Point 2: in place of `burn::data::dataloader::DataLoaderBuilder`, with the same methods.
use burn_backup_restore::data::DataLoaderBuilder;
use burn_backup_restore::{BackupAndRestore, BackupExt as _};

use digits::crash::{BatchAt, CrashPoint};
use digits::digest;

use crate::data::{Augment, DigitBatch, DigitBatcher, DigitDataset, DigitItem, TRAIN_IMAGES};
use crate::model::{Model, ModelConfig};

#[derive(Config, Debug)]
pub struct TrainingConfig {
    model: ModelConfig,
    optimizer: AdamConfig,
    #[config(default = 5)]
    num_epochs: usize,
    #[config(default = 32)]
    batch_size: usize,
    #[config(default = 2)]
    num_workers: usize,
    #[config(default = 42)]
    seed: u64,
    #[config(default = 3e-3)]
    learning_rate: f64,
}

/// The settings of backups on the command line.
pub struct Backups {
    pub dir: PathBuf,
    /// The number of batches between two backups.
    pub save_freq: usize,
    pub crash_at: Option<BatchAt>,
}

/// The evaluation's name.
const TEST: &str = "digits";

pub fn train(
    artifact_dir: &Path,
    config: &TrainingConfig,
    device: &Device,
    backups: &Backups,
) -> anyhow::Result<()> {
    prepare(artifact_dir, &backups.dir)?;
    config.save(artifact_dir.join("config.json"))?;

    let backup = BackupAndRestore::new(&backups.dir)
        .artifacts(artifact_dir)
        .save_freq(backups.save_freq)
        // Point 5: the backup stays until `discard`, below.
        .delete_checkpoint(false);
    let handle = backup.handle();
    let batches = TRAIN_IMAGES.div_ceil(config.batch_size);
    let crash = backups
        .crash_at
        .map(|at| CrashPoint::new(at, batches, handle.clone()));

    // Point 3: before the model is made. The initial weights come from this seed, and the seed of
    // all later steps.
    device.seed(config.seed);
    let model = config.model.init(device, crash);
    let learner = Learner::new(model, config.optimizer.init(), config.learning_rate);

    let train = loader(config, MapperDataset::new(DigitDataset::train(), Augment));
    let valid = loader(config, DigitDataset::valid());
    let LearningResult {
        model,
        renderer,
        interrupted,
        error,
    } = SupervisedTraining::new(artifact_dir, train, valid)
        .metrics((AccuracyMetric::new(), LossMetric::new()))
        .with_default_checkpointers()
        .num_epochs(config.num_epochs)
        .summary()
        // Point 1: the last line before the launch.
        .backup_and_restore(backup)
        .launch(learner);

    // Point 5: after an error or a stop, the model is not the final one. The reason is on the standard error.
    anyhow::ensure!(error.is_none(), "the training ended with an error");
    anyhow::ensure!(
        interrupted.is_none(),
        "the training was interrupted; run it again to go on"
    );

    let digest = digest::of(&model);
    let path = artifact_dir.join("model");
    model.clone().save_file(path).context("saving the model")?;
    evaluate(artifact_dir, config, model, renderer)?;
    // Point 5: the model is on the disk. Until here, a program that is run again resumes with the trained
    // model.
    handle.discard()?;
    writeln!(io::stdout(), "digest of the weights: {digest}")?;
    Ok(())
}

/// Empties the artifact directory for a new training.
fn prepare(artifact_dir: &Path, backup_dir: &Path) -> io::Result<()> {
    // Point 4: a training that resumes needs its metric logs and Burn's checkpoints.
    if !backup_dir.exists() && artifact_dir.exists() {
        fs::remove_dir_all(artifact_dir)?;
    }
    fs::create_dir_all(artifact_dir)
}

fn loader(
    config: &TrainingConfig,
    dataset: impl Dataset<DigitItem> + 'static,
) -> Arc<dyn DataLoader<DigitBatch>> {
    DataLoaderBuilder::new(DigitBatcher)
        .batch_size(config.batch_size)
        .shuffle(config.seed)
        .num_workers(config.num_workers)
        .build(dataset)
}

/// Measures the model on the test split, and prints the metrics' means.
fn evaluate(
    artifact_dir: &Path,
    config: &TrainingConfig,
    model: Model,
    renderer: Box<dyn MetricsRenderer>,
) -> anyhow::Result<()> {
    let metrics = (AccuracyMetric::new(), LossMetric::new());
    let names = [metrics.0.name(), metrics.1.name()];
    let evaluation = EvaluatorBuilder::new(artifact_dir)
        .renderer(renderer)
        .metrics(metrics)
        .build(model)
        .eval(TEST, loader(config, DigitDataset::test()));
    // Burn's dashboard owns the terminal: output before this is lost.
    drop(evaluation.renderer);
    let is_whole = evaluation.error.is_none() && evaluation.interrupted.is_none();
    anyhow::ensure!(is_whole, "the evaluation did not finish");

    // Burn's summary has no row for the test split.
    let logs = artifact_dir.join("test").join(TEST);
    for name in names {
        let mean = mean(&logs.join(format!("{name}.log")))?;
        writeln!(io::stdout(), "{name} on the test split: {mean:.3}")?;
    }
    Ok(())
}

/// The mean of a metric's log, which has a line for each batch. All batches are of one size.
fn mean(log: &Path) -> anyhow::Result<f64> {
    let lines = fs::read_to_string(log).with_context(|| format!("reading {}", log.display()))?;
    let values: Result<Vec<f64>, String> = lines
        .lines()
        .map(|line| Ok(NumericEntry::deserialize(line)?.current()))
        .collect();
    let values = values.map_err(anyhow::Error::msg)?;
    Ok(values.iter().sum::<f64>() / values.len() as f64)
}
