//! The keys of all objects in a mirror.
//!
//! ```text
//! <prefix>/<run id>/lease.json
//! <prefix>/<run id>/parts/<hash>-<bytes>.bpk
//! <prefix>/<run id>/generations/<epoch>/<number>.json
//! <prefix>/<run id>/finished.json
//! ```

use std::fmt;
use std::str::FromStr;

use burn_backup_store::GenerationId;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

const LEASE: &str = "lease.json";
const FINISHED: &str = "finished.json";
const PARTS: &str = "parts";
const GENERATIONS: &str = "generations";
const PART_EXTENSION: &str = ".bpk";
const DOCUMENT_EXTENSION: &str = ".json";

/// The length of a part's hash, in hexadecimal digits.
const HASH_DIGITS: usize = 2 * blake3::OUT_LEN;

/// A generation in the mirror: the epoch of the lease holder that put it, and its number. Later generations are
/// greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Ordinal {
    pub epoch: u64,
    pub number: GenerationId,
}

/// A part in the mirror, named by its contents.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct PartRef {
    /// The BLAKE3 hash of its bytes, in hexadecimal.
    pub hash: String,
    /// Its length in bytes.
    pub bytes: u64,
}

/// The keys of one training.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    root: Path,
}

/// The kind of an object, from its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Lease,
    Finished,
    Part(PartRef),
    Generation(Ordinal),
}

impl Keys {
    /// The keys of the training `run_id` under `prefix`.
    pub(crate) fn new(prefix: &Path, run_id: &str) -> Self {
        Self {
            root: prefix.clone().join(run_id),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn lease(&self) -> Path {
        self.root.clone().join(LEASE)
    }

    pub(crate) fn finished(&self) -> Path {
        self.root.clone().join(FINISHED)
    }

    pub(crate) fn parts(&self) -> Path {
        self.root.clone().join(PARTS)
    }

    pub(crate) fn part(&self, part: &PartRef) -> Path {
        self.parts().join(part.to_string())
    }

    pub(crate) fn generation(&self, ordinal: Ordinal) -> Path {
        let Ordinal { epoch, number } = ordinal;
        let epochs = self.root.clone().join(GENERATIONS);
        let epoch = epochs.join(format!("{epoch:08}"));
        epoch.join(format!("{number}{DOCUMENT_EXTENSION}"))
    }
}

/// The run of the object at `path` under `prefix`, and the object's kind; `None` for objects that this crate does not
/// write.
pub(crate) fn parse(prefix: &Path, path: &Path) -> Option<(String, Kind)> {
    let parts: Vec<_> = path.prefix_match(prefix)?.collect();
    let names: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
    let (run, names) = names.split_first()?;
    let kind = match names {
        [LEASE] => Kind::Lease,
        [FINISHED] => Kind::Finished,
        [PARTS, name] => Kind::Part(name.parse().ok()?),
        [GENERATIONS, epoch, name] => Kind::Generation(Ordinal {
            epoch: number(epoch)?,
            number: GenerationId::new(number(name.strip_suffix(DOCUMENT_EXTENSION)?)?),
        }),
        _ => return None,
    };
    Some(((*run).to_owned(), kind))
}

fn number(digits: &str) -> Option<u64> {
    let is_number = digits.len() >= 8 && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten()
}

impl fmt::Display for PartRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}{PART_EXTENSION}", self.hash, self.bytes)
    }
}

/// The name is not a part's name.
#[derive(Debug)]
pub(crate) struct NoPart;

impl FromStr for PartRef {
    type Err = NoPart;

    fn from_str(name: &str) -> Result<Self, NoPart> {
        let stem = name.strip_suffix(PART_EXTENSION).ok_or(NoPart)?;
        let (hash, bytes) = stem.split_once('-').ok_or(NoPart)?;
        let part = Self {
            hash: hash.to_owned(),
            bytes: bytes.parse().map_err(|_| NoPart)?,
        };
        match part.is_possible() && part.to_string() == name {
            true => Ok(part),
            false => Err(NoPart),
        }
    }
}

impl PartRef {
    /// Whether it names an object in the directory of the parts, and no other object.
    pub(crate) fn is_possible(&self) -> bool {
        self.hash.len() == HASH_DIGITS && self.hash.bytes().all(|digit| digit.is_ascii_hexdigit())
    }
}

impl fmt::Display for Ordinal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part() -> PartRef {
        PartRef {
            hash: blake3::hash(b"").to_hex().to_string(),
            bytes: 17,
        }
    }

    #[test]
    fn keys_are_read_as_written() {
        for prefix in ["", "a", "a/b c"] {
            let prefix = Path::from(prefix);
            let keys = Keys::new(&prefix, "run");
            let ordinal = Ordinal {
                epoch: 3,
                number: GenerationId::new(123_456_789),
            };
            for (path, kind) in [
                (keys.lease(), Kind::Lease),
                (keys.finished(), Kind::Finished),
                (keys.part(&part()), Kind::Part(part())),
                (keys.generation(ordinal), Kind::Generation(ordinal)),
            ] {
                assert_eq!(parse(&prefix, &path), Some(("run".to_owned(), kind)));
            }
        }
    }

    #[test]
    fn foreign_names_are_not_keys() {
        let prefix = Path::from("a");
        for path in [
            "a/run/lease.json.bak",
            "a/run/parts/x.bpk",
            "a/run/parts/0-1.bpk",
            "a/run/generations/1/00000001.json",
            "a/run/generations/00000001/00000001",
            "a/run/other",
            "a/run",
            "b/run/lease.json",
        ] {
            assert_eq!(parse(&prefix, &Path::from(path)), None, "{path}");
        }
    }
}
