//! Which devices train.

use burn::tensor::Device;
use burn::train::MultiDeviceOptim;

/// Which devices train, and how they share the work.
#[derive(Debug, Clone)]
pub(crate) enum Execution {
    Single(Device),
    Multi(Vec<Device>, MultiDeviceOptim),
    Ddp(Vec<Device>, Reduction),
}

impl Execution {
    /// Among how many devices the data is split; `None` if a single one has all of it.
    pub(crate) fn split(&self) -> Option<usize> {
        match self.devices() {
            [_] => None,
            several => Some(several.len()),
        }
    }

    /// The device that validates, and on which backups are restored.
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

/// Where the gradients of all devices become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reduction {
    /// In the backward pass: Burn's all-reduce, which exists on CUDA.
    InBackward,
    /// On the host, after it: for tests of the loop, on any device.
    #[cfg(feature = "testing")]
    OnHost,
}
