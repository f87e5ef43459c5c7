//! `manifest.json`: what a generation consists of.

use std::collections::HashSet;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::layout::{self, GenerationId};

/// The version of the layout and the documents that this crate writes.
pub const FORMAT_VERSION: u32 = 1;

/// Of how many parts a generation may consist.
pub(crate) const MAX_PARTS: usize = 10_000;

/// What a generation consists of, and what its maker says of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Manifest {
    /// The version of the format.
    pub format: u32,
    /// The generation's number.
    pub generation: GenerationId,
    /// The training that the generation belongs to.
    pub run_id: String,
    /// What the training's random numbers are derived from.
    pub run_seed: u64,
    /// When the generation was committed, by the clock of the machine.
    #[serde(with = "rfc_3339")]
    pub created: SystemTime,
    /// The crate and version that wrote the generation.
    pub writer: String,
    /// The parts, in the order in which they were written.
    pub parts: Vec<PartEntry>,
    /// The maker's own document.
    pub state: serde_json::Value,
}

/// One part of a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PartEntry {
    /// The part's name.
    pub name: String,
    /// The file that holds it, inside the generation's directory.
    pub file: String,
    /// The file's length in bytes.
    pub bytes: u64,
    /// The file's XXH3 hash of 128 bits, as 32 lower-case hexadecimal digits.
    pub xxh3_128: String,
}

/// A time as RFC 3339 in UTC.
mod rfc_3339 {
    use std::time::SystemTime;

    use jiff::Timestamp;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(super) fn serialize<S: Serializer>(
        time: &SystemTime,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let time = Timestamp::try_from(*time).map_err(serde::ser::Error::custom)?;
        time.serialize(serializer)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(
        deserializer: D,
    ) -> Result<SystemTime, D::Error> {
        let time = Timestamp::deserialize(deserializer)?;
        // Not every clock of the standard library has every such time.
        let since_epoch = time.as_duration();
        let (length, epoch) = (since_epoch.unsigned_abs(), SystemTime::UNIX_EPOCH);
        let time = match since_epoch.is_negative() {
            true => epoch.checked_sub(length),
            false => epoch.checked_add(length),
        };
        time.ok_or_else(|| serde::de::Error::custom("the time is beyond what the system knows"))
    }
}

impl Manifest {
    /// The sum of the parts' lengths, in bytes.
    pub fn bytes(&self) -> u64 {
        (self.parts.iter()).fold(0, |sum, part| sum.saturating_add(part.bytes))
    }

    /// What is wrong with a manifest that was readable; `None` if nothing is.
    pub(crate) fn flaw(&self) -> Option<String> {
        if self.parts.len() > MAX_PARTS {
            return Some(format!(
                "it names {} parts, and {MAX_PARTS} are possible",
                self.parts.len()
            ));
        }
        let mut names = HashSet::new();
        for part in &self.parts {
            if !layout::is_part_name(&part.name) || part.file != layout::part_file(&part.name) {
                return Some(format!("the part '{}' has an impossible name", part.name));
            }
            if !names.insert(part.name.as_str()) {
                return Some(format!("the part '{}' stands in it twice", part.name));
            }
        }
        None
    }
}
