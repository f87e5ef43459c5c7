use std::path::PathBuf;
use std::str::FromStr as _;

use burn::tensor::Device;
#[cfg(feature = "wgpu")]
use burn::tensor::DeviceKind;
use burn_backup_restore::{Divergence, SaveFreq};
use clap::{Parser, ValueEnum};
use digits::crash::BatchAt;
use digits::save_freq;

/// Trains a convolutional network on handwritten digits, with backups.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// How many epochs to train.
    #[arg(long, default_value_t = 10)]
    pub epochs: usize,

    /// How often to take a backup: "epoch", a number of batches, a time such as "30s", a share of
    /// the training's time such as "1%", or "never".
    #[arg(long, default_value = "epoch", value_parser = save_freq::parse)]
    pub save_freq: SaveFreq,

    /// How many backups stay.
    #[arg(long, default_value_t = 1)]
    pub keep_last: usize,

    /// Where the backups are; deleted once the training has run to its end.
    #[arg(long, default_value = "digits-backup")]
    pub backup_dir: PathBuf,

    #[cfg(feature = "mirror")]
    #[command(flatten)]
    pub mirror: crate::mirror::MirrorArguments,

    /// Where the metrics are logged.
    #[arg(long, default_value = "digits-artifacts")]
    pub artifact_dir: PathBuf,

    /// Burn's backend to train on.
    #[arg(long, value_enum, default_value_t = DeviceName::Flex)]
    pub device: DeviceName,

    /// Aborts the process in the middle of this batch, as a crash would. There are 47 batches in
    /// an epoch; both count from 1.
    #[arg(long, value_name = "EPOCH:BATCH", value_parser = BatchAt::from_str)]
    pub crash_at: Option<BatchAt>,

    /// Ruins the images of this batch: all of its pixels are NaN.
    #[arg(long, value_name = "EPOCH:BATCH", value_parser = BatchAt::from_str)]
    pub poison_at: Option<BatchAt>,

    /// What to do when the loss is NaN, or explodes.
    #[arg(long, value_enum, default_value_t = OnDivergence::Refuse)]
    pub on_divergence: OnDivergence,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum OnDivergence {
    /// Continue. A backup of a model with NaN is refused, and the last good one stays.
    Refuse,
    /// End the training at once.
    Stop,
    /// Go back to the last backup, skip the batch that caused it, and continue.
    Rollback,
}

impl From<OnDivergence> for Divergence {
    fn from(on_divergence: OnDivergence) -> Self {
        match on_divergence {
            OnDivergence::Refuse => Self::Refuse,
            OnDivergence::Stop => Self::Stop,
            OnDivergence::Rollback => Self::RollBack { at_most: 3 },
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum DeviceName {
    Flex,
    #[cfg(feature = "ndarray")]
    Ndarray,
    /// The best adapter of the machine.
    #[cfg(feature = "wgpu")]
    Wgpu,
    #[cfg(feature = "vulkan")]
    Vulkan,
    #[cfg(feature = "metal")]
    Metal,
    #[cfg(feature = "cuda")]
    Cuda,
    #[cfg(feature = "rocm")]
    Rocm,
}

impl DeviceName {
    pub fn open(self) -> Device {
        match self {
            Self::Flex => Device::flex(),
            #[cfg(feature = "ndarray")]
            #[expect(deprecated, reason = "as long as Burn has it, backups work on it")]
            Self::Ndarray => Device::ndarray(),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Device::wgpu(DeviceKind::DefaultDevice),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => Device::vulkan(DeviceKind::DefaultDevice),
            #[cfg(feature = "metal")]
            Self::Metal => Device::metal(DeviceKind::DefaultDevice),
            #[cfg(feature = "cuda")]
            Self::Cuda => Device::cuda(0),
            #[cfg(feature = "rocm")]
            Self::Rocm => Device::rocm(0),
        }
    }
}
