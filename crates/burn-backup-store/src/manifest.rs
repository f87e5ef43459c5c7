//! `manifest.json`: what a generation consists of.

use std::collections::HashSet;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::blocks::{self, Hash};
use crate::layout::{self, GenerationId};

/// The version of the layout and the documents that this crate writes.
pub const FORMAT_VERSION: u32 = 2;

/// Of how many parts a generation may consist.
pub(crate) const MAX_PARTS: usize = 10_000;

/// What a generation consists of, and what its maker says of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
    pub(crate) state: Box<RawValue>,
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
    /// The hash of the file's contents, or of its blocks' hashes if it has several.
    pub xxh3_128: Hash,
    /// The hashes of the file's blocks of 8 MiB, of which the last may be shorter; empty if there is only one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<Hash>,
}

impl PartEntry {
    /// The length of all blocks of a part except its last one, in bytes.
    pub const BLOCK_BYTES: u64 = blocks::BLOCK_BYTES as u64;

    /// Whether these are the bytes of the block `number`. Where the entry has no hashes of blocks, the whole part
    /// is one.
    pub fn is_block(&self, number: usize, bytes: &[u8]) -> bool {
        let expected = match self.blocks.is_empty() {
            true => (number == 0).then_some(&self.xxh3_128),
            false => self.blocks.get(number),
        };
        expected == Some(&Hash::of(bytes))
    }

    /// The part `name` with so many bytes, in these blocks.
    pub(crate) fn new(name: &str, bytes: u64, blocks: Vec<Hash>) -> Self {
        Self {
            name: name.to_owned(),
            file: layout::part_file(name),
            bytes,
            xxh3_128: Hash::of_blocks(&blocks),
            blocks: match blocks.len() {
                0 | 1 => Vec::new(),
                _ => blocks,
            },
        }
    }
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
    /// The maker's own document.
    ///
    /// # Errors
    ///
    /// That of a document that is no `T`.
    pub fn state<'s, T: Deserialize<'s>>(&'s self) -> serde_json::Result<T> {
        serde_json::from_str(self.state.get())
    }

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
            if !part.blocks.is_empty()
                && (part.blocks.len() as u64 != blocks::count(part.bytes)
                    || Hash::of_blocks(&part.blocks) != part.xxh3_128)
            {
                return Some(format!(
                    "the blocks of the part '{}' can't be its own",
                    part.name
                ));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The manifest of a generation that was committed then.
    fn committed(created: &str) -> String {
        let begin = r#"{"format":1,"generation":1,"run_id":"","run_seed":0,"created":""#;
        format!(r#"{begin}{created}","writer":"","parts":[],"state":null}}"#)
    }

    #[test]
    fn a_time_is_written_as_it_was_read() {
        for created in [
            "2026-02-03T14:02:11.1234567Z",
            "2026-02-03T14:02:11Z",
            "1969-12-31T23:59:59.5Z",
            "9999-12-30T22:00:00Z",
        ] {
            let text = committed(created);
            let manifest: Manifest = serde_json::from_str(&text).unwrap();
            assert_eq!(serde_json::to_string(&manifest).unwrap(), text);
        }
    }

    #[test]
    fn what_is_no_time_of_this_system_is_an_error() {
        for created in ["-000001-01-02T00:00:00Z", "2026-02-30T00:00:00Z", ""] {
            let manifest: Result<Manifest, _> = serde_json::from_str(&committed(created));
            assert_eq!(manifest.is_ok(), created.starts_with('-') && cfg!(unix));
        }
    }
}
