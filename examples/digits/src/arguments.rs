use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use burn::tensor::Device;
#[cfg(feature = "wgpu")]
use burn::tensor::DeviceKind;
use burn_backup_restore::SaveFreq;
use clap::{Parser, ValueEnum};

use crate::crash::CrashAt;

/// Trains a convolutional network on handwritten digits, with backups.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// How many epochs to train.
    #[arg(long, default_value_t = 10)]
    pub epochs: usize,

    /// How often to take a backup: "epoch", a number of batches, a time such as "30s", a share of
    /// the training's time such as "1%", or "never".
    #[arg(long, default_value = "epoch", value_parser = save_freq)]
    pub save_freq: SaveFreq,

    /// How many backups stay.
    #[arg(long, default_value_t = 1)]
    pub keep_last: usize,

    /// Where the backups are; deleted once the training has run to its end.
    #[arg(long, default_value = "digits-backup")]
    pub backup_dir: PathBuf,

    /// Where the metrics are logged.
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

/// The units of a time, in seconds.
const UNITS: [(&str, f64); 4] = [("ms", 1e-3), ("s", 1.0), ("min", 60.0), ("h", 3600.0)];

fn save_freq(text: &str) -> Result<SaveFreq, String> {
    let wrong = || {
        "give \"epoch\", a number of batches, a time such as \"30s\" (or in ms, min or h), a share of \
         the training's time such as \"1%\", or \"never\""
            .to_owned()
    };
    match text {
        "epoch" => return Ok(SaveFreq::Epoch),
        "never" => return Ok(SaveFreq::Never),
        _ => {}
    }
    if let Ok(batches) = text.parse() {
        return Ok(SaveFreq::Steps(batches));
    }
    let unit_at = text.find(|c: char| c.is_alphabetic() || c == '%');
    let (number, unit) = text.split_at(unit_at.ok_or_else(wrong)?);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    if unit == "%" {
        return Ok(SaveFreq::auto(number / 100.0));
    }
    let seconds = UNITS.iter().find(|(name, _)| *name == unit);
    let (_, seconds) = seconds.ok_or_else(wrong)?;
    let interval = Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
    Ok(SaveFreq::Every(interval))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frequency_is_a_word_a_number_a_time_or_a_share() {
        let every = |seconds| Ok(SaveFreq::Every(Duration::from_secs_f64(seconds)));
        let auto = |share| Ok(SaveFreq::auto(share));
        assert_eq!(save_freq("epoch"), Ok(SaveFreq::Epoch));
        assert_eq!(save_freq("never"), Ok(SaveFreq::Never));
        assert_eq!(save_freq("500"), Ok(SaveFreq::Steps(500)));
        assert_eq!(save_freq("250ms"), every(0.25));
        assert_eq!(save_freq("30s"), every(30.0));
        assert_eq!(save_freq("1.5min"), every(90.0));
        assert_eq!(save_freq("2h"), every(7200.0));
        assert_eq!(save_freq("1%"), auto(0.01));
        assert_eq!(save_freq("0.5%"), auto(0.005));
        let wrongs = [
            "", "epochs", "1.5", "-3", "s", "30 s", "-1s", "1d", "%", "1%s", "1s%", "1e400s",
        ];
        for wrong in wrongs {
            assert!(save_freq(wrong).is_err(), "{wrong:?}");
        }
    }
}
