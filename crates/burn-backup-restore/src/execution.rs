//! The devices of a training.

use burn::tensor::Device;
use burn::train::MultiDeviceOptim;

/// The devices that train, and how they share the work.
#[derive(Debug, Clone)]
pub(crate) enum Execution {
    Single(Device),
    Multi(Vec<Device>, MultiDeviceOptim),
    Ddp(Vec<Device>, Reduction),
}

impl Execution {
    /// The number of devices that the data is split among; `None` if a single device gets all data.
    pub(crate) fn split(&self) -> Option<usize> {
        match self.devices() {
            [_] => None,
            several => Some(several.len()),
        }
    }

    /// The device that runs the validation and on which backups are restored.
    pub(crate) fn main(&self) -> Device {
        self.devices().first().cloned().unwrap_or_default()
    }

    pub(crate) fn devices(&self) -> &[Device] {
        match self {
            Self::Single(device) => std::slice::from_ref(device),
            Self::Multi(devices, _) | Self::Ddp(devices, _) => devices,
        }
    }
}

/// Where the gradients of all devices are reduced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reduction {
    /// In the backward pass, with Burn's all-reduce. It exists on CUDA.
    InBackward,
    /// On the host, after the backward pass. Works on any device; for tests of the loop.
    #[cfg(feature = "testing")]
    OnHost,
}
