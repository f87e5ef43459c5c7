use std::path::PathBuf;
use std::str::FromStr;

use burn::tensor::Device;
use burn_backup_restore::SaveFreq;
use clap::{Parser, ValueEnum};

use crate::crash::CrashAt;

/// Trains a convolutional network on handwritten digits, with backups.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// How many epochs to train.
    #[arg(long, default_value_t = 10)]
    pub epochs: usize,

    /// How often to take a backup: "epoch", or a number of batches.
    #[arg(long, default_value = "epoch", value_parser = save_freq)]
    pub save_freq: SaveFreq,

    /// How many backups stay.
    #[arg(long, default_value_t = 1)]
    pub keep_last: usize,

    /// Where the backups are; deleted once the training has run to its end.
    #[arg(long, default_value = "digits-backup")]
    pub backup_dir: PathBuf,

    /// Where Burn logs the metrics.
    #[arg(long, default_value = "digits-artifacts")]
    pub artifact_dir: PathBuf,

    /// Burn's backend to train on.
    #[arg(long, value_enum, default_value_t = DeviceName::Flex)]
    pub device: DeviceName,

    /// Aborts the process in the middle of this batch, as a crash would. There are 47 batches in
    /// an epoch; both count from 1.
    #[arg(long, value_name = "EPOCH:BATCH", value_parser = CrashAt::from_str)]
    pub crash_at: Option<CrashAt>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum DeviceName {
    Flex,
    #[cfg(feature = "ndarray")]
    Ndarray,
}

impl DeviceName {
    pub fn open(self) -> Device {
        match self {
            Self::Flex => Device::flex(),
            #[cfg(feature = "ndarray")]
            #[expect(deprecated, reason = "as long as Burn has it, backups work on it")]
            Self::Ndarray => Device::ndarray(),
        }
    }
}

fn save_freq(text: &str) -> Result<SaveFreq, String> {
    if text == "epoch" {
        return Ok(SaveFreq::Epoch);
    }
    text.parse::<usize>()
        .map(SaveFreq::Steps)
        .map_err(|_| "give \"epoch\" or a number of batches".to_owned())
}
