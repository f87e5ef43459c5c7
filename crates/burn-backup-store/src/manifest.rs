//! `manifest.json`: the parts and the state of a generation.

use std::collections::HashSet;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::blocks::{self, Hash};
use crate::layout::{self, GenerationId};

/// The version of the layout and the documents that this crate writes.
pub const FORMAT_VERSION: u32 = 2;

/// The greatest number of parts in a generation.
pub(crate) const MAX_PARTS: usize = 10_000;

/// The parts of a generation, and its creator's document.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Manifest {
    /// The version of the format.
    pub format: u32,
    /// The generation's number.
    pub generation: GenerationId,
    /// The training that the generation belongs to.
    pub run_id: String,
    /// The seed of the training's random numbers.
    pub run_seed: u64,
    /// When the generation was committed, by the machine's clock.
    #[serde(with = "rfc_3339")]
    pub created: SystemTime,
    /// The crate and version that wrote the generation.
    pub writer: String,
    /// The parts, in the order in which they were written.
    pub parts: Vec<PartEntry>,
    /// The creator's document.
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
    /// The hashes of the file's 8 MiB blocks, of which the last may be shorter; empty if there is only one block.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<Hash>,
}

impl PartEntry {
    /// The length in bytes of every block of a part except the last one.
    pub const BLOCK_BYTES: u64 = blocks::BLOCK_BYTES as u64;

    /// Whether these are the bytes of the block `number`. If the entry has no block hashes, the whole part is one
    /// block.
    pub fn is_block(&self, number: usize, bytes: &[u8]) -> bool {
        let expected = match self.blocks.is_empty() {
            true => (number == 0).then_some(&self.xxh3_128),
            false => self.blocks.get(number),
        };
        expected == Some(&Hash::of(bytes))
    }

    /// An entry for the part `name` with this length and these block hashes.
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
        // Not every clock of the standard library can represent every such time.
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
    /// The creator's document.
    ///
    /// # Errors
    ///
    /// A JSON error if the document can't be read as `T`.
    pub fn state<'s, T: Deserialize<'s>>(&'s self) -> serde_json::Result<T> {
        serde_json::from_str(self.state.get())
    }

    /// The sum of the parts' lengths, in bytes.
    pub fn bytes(&self) -> u64 {
        (self.parts.iter()).fold(0, |sum, part| sum.saturating_add(part.bytes))
    }

    /// What is wrong with a readable manifest; `None` if nothing is.
    pub(crate) fn flaw(&self) -> Option<String> {
        if self.parts.len() > MAX_PARTS {
            return Some(format!(
                "it names {} parts, and at most {MAX_PARTS} are possible",
                self.parts.len()
            ));
        }
        let mut names = HashSet::new();
        for part in &self.parts {
            if !layout::is_part_name(&part.name) || part.file != layout::part_file(&part.name) {
                return Some(format!("the part '{}' has an invalid name", part.name));
            }
            if !names.insert(part.name.as_str()) {
                return Some(format!("the part '{}' is listed twice", part.name));
            }
            if !part.blocks.is_empty()
                && (part.blocks.len() as u64 != blocks::count(part.bytes)
                    || Hash::of_blocks(&part.blocks) != part.xxh3_128)
            {
                return Some(format!(
                    "the block hashes of the part '{}' do not match its entry",
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

    /// A manifest of a generation that was committed at the time `created`.
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
    fn an_invalid_time_is_an_error() {
        for created in ["-000001-01-02T00:00:00Z", "2026-02-30T00:00:00Z", ""] {
            let manifest: Result<Manifest, _> = serde_json::from_str(&committed(created));
            assert_eq!(manifest.is_ok(), created.starts_with('-') && cfg!(unix));
        }
    }
}
