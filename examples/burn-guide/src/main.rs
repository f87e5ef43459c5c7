//! A classifier structured as in Burn's book, made exact by five points. The comments "Point 1" to
//! "Point 5" mark the lines where each is done.
//!
//! `digits::crash` and `digits::digest` only show that the training is exact. Your own program needs neither.

mod arguments;
mod data;
mod model;
mod training;

use burn::optim::AdamConfig;
use burn::tensor::Device;
use clap::Parser as _;

use arguments::Arguments;
use model::ModelConfig;
use training::{Backups, TrainingConfig};

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let config = TrainingConfig::new(ModelConfig::new(), AdamConfig::new())
        .with_num_epochs(arguments.epochs)
        .with_num_workers(arguments.workers);
    let backups = Backups {
        dir: arguments.backup_dir,
        save_freq: arguments.save_freq,
        crash_at: arguments.crash_at,
    };
    let device = Device::flex().autodiff();
    training::train(&arguments.artifact_dir, &config, &device, &backups)
}
