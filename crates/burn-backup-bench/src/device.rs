//! The device that all trainings of this program run on.

use std::sync::OnceLock;

use burn::tensor::Device;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The backend. It is chosen once per process, before any training.
static CHOSEN: OnceLock<Backend> = OnceLock::new();

/// A backend of this build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// The processor.
    #[default]
    Flex,
    /// The first card that CUDA finds.
    #[cfg(feature = "cuda")]
    Cuda,
    /// The adapter that wgpu picks.
    #[cfg(feature = "wgpu")]
    Wgpu,
}

impl Backend {
    /// Selects this backend for the process. Later selections have no effect.
    pub fn choose(self) {
        CHOSEN.get_or_init(|| self);
    }

    /// The backend of this process.
    pub fn chosen() -> Self {
        CHOSEN.get().copied().unwrap_or_default()
    }

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            #[cfg(feature = "cuda")]
            Self::Cuda => "cuda",
            #[cfg(feature = "wgpu")]
            Self::Wgpu => "wgpu",
        }
    }

    /// The device of this backend, with gradients.
    pub fn device(self) -> Device {
        let device = match self {
            Self::Flex => Device::flex(),
            #[cfg(feature = "cuda")]
            Self::Cuda => Device::cuda(0),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
        };
        device.autodiff()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_found_by_its_name() {
        for backend in Backend::value_variants() {
            assert_eq!(Backend::from_str(backend.name(), false), Ok(*backend));
        }
    }
}
