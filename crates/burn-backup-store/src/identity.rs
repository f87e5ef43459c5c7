//! The format of a backup directory, and the training it belongs to.

use serde::{Deserialize, Serialize};

/// The format of a backup directory, and the training it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Identity {
    /// The version of the directory's layout.
    pub format: u32,
    /// The id of the training; drawn once, when the directory is created.
    pub run_id: String,
    /// The seed of the training's random numbers; drawn once, or given.
    pub run_seed: u64,
}
