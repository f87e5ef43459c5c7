use std::path::PathBuf;
use std::str::FromStr;

use clap::Parser;

use digits::crash::BatchAt;

/// Trains a convolutional network on generated digits, with backups.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// How many epochs to train.
    #[arg(long, default_value_t = 5)]
    pub epochs: usize,

    /// How many threads load the data; 0 loads it on the training's thread.
    #[arg(long, default_value_t = 2)]
    pub workers: usize,

    /// After how many batches to take a backup.
    #[arg(long, default_value_t = 10)]
    pub save_freq: usize,

    /// Where the backups are; deleted once the model is saved and evaluated.
    #[arg(long, default_value = "guide-backup")]
    pub backup_dir: PathBuf,

    /// Where the metrics, Burn's checkpoints, the configuration and the model are written.
    #[arg(long, default_value = "guide-artifacts")]
    pub artifact_dir: PathBuf,

    /// Aborts the process in the middle of this batch, as a crash would. There are 40 batches in
    /// an epoch; both count from 1.
    #[arg(long, value_name = "EPOCH:BATCH", value_parser = BatchAt::from_str)]
    pub crash_at: Option<BatchAt>,
}
