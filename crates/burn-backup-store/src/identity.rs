//! What a backup directory is, and whose.

use serde::{Deserialize, Serialize};

/// What a backup directory is: its format, and the training it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Identity {
    /// The version of the directory's layout.
    pub format: u32,
    /// Names the training; drawn once, when the directory is made.
    pub run_id: String,
    /// What the training's random numbers are derived from; drawn once, or given.
    pub run_seed: u64,
}
