//! The names of all files and directories that this crate writes.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub(crate) const IDENTITY_FILE: &str = "burn-backup.json";
pub(crate) const LOCK_FILE: &str = "lock";
pub(crate) const GENERATIONS_DIR: &str = "generations";
pub(crate) const QUARANTINE_DIR: &str = "quarantine";
pub(crate) const ASIDE_DIR: &str = "aside";
pub(crate) const STAGING_PREFIX: &str = ".staging-";
pub(crate) const MANIFEST_FILE: &str = "manifest.json";
pub(crate) const REASON_FILE: &str = "reason.txt";
pub(crate) const PART_EXTENSION: &str = "bpk";

const RETIRED: &str = "removed-";
const PLACE_SEPARATOR: &str = "+";

const GENERATION_DIGITS: usize = 8;

/// Directories with greater numbers are not this crate's. This leaves room above every accepted number.
const MAX_GENERATION: u64 = 1_000_000_000_000_000;

/// Counting does not reach greater numbers: a thousand generations a second would take thirty years.
const MAX_COUNTED: u64 = 1_000_000_000_000;

/// The number of a generation. Later generations have greater numbers; numbers are not reused.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct GenerationId(u64);

impl GenerationId {
    /// The generation with this number.
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The next number, if there is one.
    pub(crate) fn next(self) -> Option<Self> {
        (self.0 < MAX_GENERATION).then(|| Self(self.0 + 1))
    }

    /// Whether counting can have reached this number.
    pub(crate) fn is_counted(self) -> bool {
        self.0 <= MAX_COUNTED
    }

    /// Reads the name of a generation's directory; `None` for names this crate does not write.
    pub(crate) fn from_dir_name(name: &str) -> Option<Self> {
        let is_number = name.len() >= GENERATION_DIGITS && name.bytes().all(|b| b.is_ascii_digit());
        let id = Self(is_number.then(|| name.parse().ok()).flatten()?);
        (id.0 <= MAX_GENERATION && id.to_string() == name).then_some(id)
    }
}

/// What a directory in the quarantine holds: a generation or the directory's identity. `again` counts the entries for
/// the same thing, starting at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Quarantined {
    Identity { again: u64 },
    Generation { id: GenerationId, again: u64 },
}

impl Quarantined {
    /// Parses a directory's name: the name of what it holds, optionally followed by `-k`.
    pub(crate) fn from_dir_name(name: &str) -> Option<Self> {
        let read = |held: &str, again| {
            let quarantined = match held {
                IDENTITY_FILE => Self::Identity { again },
                _ => Self::Generation {
                    id: GenerationId::from_dir_name(held)?,
                    again,
                },
            };
            (quarantined.dir_name() == name).then_some(quarantined)
        };
        let numbered = name.rsplit_once('-').and_then(|(held, again)| {
            let again = again.parse().ok()?;
            read(held, again)
        });
        numbered.or_else(|| read(name, 1))
    }

    /// The name of its directory.
    pub(crate) fn dir_name(self) -> String {
        let (held, again) = match self {
            Self::Identity { again } => (IDENTITY_FILE.to_owned(), again),
            Self::Generation { id, again } => (id.to_string(), again),
        };
        match again {
            1 => held,
            again => format!("{held}-{again}"),
        }
    }

    /// The entry for the same thing when it arrives once more.
    pub(crate) fn when_repeated(self) -> Self {
        match self {
            Self::Identity { again } => Self::Identity {
                again: again.saturating_add(1),
            },
            Self::Generation { id, again } => Self::Generation {
                id,
                again: again.saturating_add(1),
            },
        }
    }

    /// Whether both hold the same thing.
    pub(crate) fn is_like(self, other: Self) -> bool {
        match (self, other) {
            (Self::Identity { .. }, Self::Identity { .. }) => true,
            (Self::Generation { id, .. }, Self::Generation { id: other, .. }) => id == other,
            _ => false,
        }
    }
}

impl fmt::Display for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0width$}", self.0, width = GENERATION_DIGITS)
    }
}

/// The paths inside one backup directory.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn identity(&self) -> PathBuf {
        self.root.join(IDENTITY_FILE)
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join(LOCK_FILE)
    }

    pub(crate) fn generations(&self) -> PathBuf {
        self.root.join(GENERATIONS_DIR)
    }

    pub(crate) fn generation(&self, id: GenerationId) -> PathBuf {
        self.generations().join(id.to_string())
    }

    pub(crate) fn quarantine(&self) -> PathBuf {
        self.root.join(QUARANTINE_DIR)
    }

    /// The directory of the generations that were moved aside when the training went back to an older one.
    pub(crate) fn aside(&self) -> PathBuf {
        self.root.join(ASIDE_DIR)
    }

    /// A unique name for something temporary. The next open removes it if it is left behind.
    pub(crate) fn staging(&self, purpose: &str, nonce: u64) -> PathBuf {
        self.root
            .join(format!("{STAGING_PREFIX}{purpose}-{nonce:016x}"))
    }

    /// Like [`staging`](Self::staging), for something that is being removed from its `place`.
    pub(crate) fn retired(&self, place: &Path, nonce: u64) -> PathBuf {
        let place = place.strip_prefix(&self.root).unwrap_or(place);
        let names: Vec<_> = place.iter().map(|name| name.to_string_lossy()).collect();
        self.staging(&format!("{RETIRED}{}", names.join(PLACE_SEPARATOR)), nonce)
    }

    /// The original place of what is now at the path `away`, if [`retired`](Self::retired) made that path.
    pub(crate) fn place_of_retired(&self, away: &Path) -> Option<PathBuf> {
        let name = away.file_name()?.to_str()?;
        let (purpose, _nonce) = name.strip_prefix(STAGING_PREFIX)?.rsplit_once('-')?;
        let place = purpose.strip_prefix(RETIRED)?;
        let (top, below) = match place.split_once(PLACE_SEPARATOR) {
            Some((top, below)) => (top, Some(below)),
            None => (place, None),
        };
        let is_ours = is_our_top(top) && below.is_none_or(is_our_dir);
        let top = is_ours.then(|| self.root.join(top))?;
        Some(match below {
            Some(below) => top.join(below),
            // Joining an empty name would end the path in a slash, and a link there would be followed.
            None => top,
        })
    }
}

/// Whether a directory of this name contains generations.
fn is_our_top(name: &str) -> bool {
    [GENERATIONS_DIR, QUARANTINE_DIR, ASIDE_DIR].contains(&name)
}

/// Whether this crate could have made a directory of this name below `generations`, `quarantine` or `aside`.
pub(crate) fn is_our_dir(name: &str) -> bool {
    Quarantined::from_dir_name(name).is_some()
}

/// Whether [`Layout::staging`] could have made this name.
pub(crate) fn is_staging_name(name: &str) -> bool {
    name.strip_prefix(STAGING_PREFIX)
        .and_then(|rest| rest.rsplit_once('-'))
        .is_some_and(|(_, nonce)| nonce.len() == 16 && nonce.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Whether `path` is the staging directory of a generation.
pub(crate) fn is_staged_generation(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let purpose = name
        .and_then(|name| name.strip_prefix(STAGING_PREFIX))
        .and_then(|rest| rest.rsplit_once('-'));
    purpose.is_some_and(|(purpose, _nonce)| GenerationId::from_dir_name(purpose).is_some())
}

/// The name of the file that holds the part `name`.
pub(crate) fn part_file(name: &str) -> String {
    format!("{name}.{PART_EXTENSION}")
}

/// Whether `name` may name a part. It becomes a file name, so it must not lead to another directory.
pub(crate) fn is_part_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

/// Whether this crate could have written a file of this name into a generation.
pub(crate) fn is_generation_file(name: &str) -> bool {
    name == MANIFEST_FILE
        || name == REASON_FILE
        || name == IDENTITY_FILE
        || name
            .strip_suffix(PART_EXTENSION)
            .and_then(|stem| stem.strip_suffix('.'))
            .is_some_and(is_part_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_directory_name_reads_back_as_its_number() {
        for number in [0, 7, 12_345_678, 123_456_789] {
            let id = GenerationId::new(number);
            assert_eq!(GenerationId::from_dir_name(&id.to_string()), Some(id));
        }
    }

    #[test]
    fn foreign_names_are_not_generations() {
        for name in [
            "",
            "7",
            "0000007",
            "000000007",
            "0000000x",
            "+0000007",
            "18446744073709551615",
            "notes",
        ] {
            assert_eq!(GenerationId::from_dir_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_quarantined_generation_keeps_its_number() {
        let id = GenerationId::new(6);
        let read = Quarantined::from_dir_name;
        let first = Quarantined::Generation { id, again: 1 };
        assert_eq!(read("00000006"), Some(first));
        let second = Quarantined::Generation { id, again: 2 };
        assert_eq!(read("00000006-2"), Some(second));
        assert!(first < second);
        let identity = Quarantined::Identity { again: 1 };
        assert_eq!(read("burn-backup.json"), Some(identity));
        for name in [
            "00000006-x",
            "00000006-",
            "00000006-+2",
            "00000006-1",
            "00000006-02",
            "6",
            "notes",
            "notes-2",
        ] {
            assert_eq!(read(name), None, "{name}");
        }
    }

    #[test]
    fn a_removed_directory_is_mapped_to_its_old_place() {
        let layout = Layout::new(Path::new("backup"));
        for place in [
            layout.generations(),
            layout.quarantine(),
            layout.generation(GenerationId::new(7)),
            layout.quarantine().join("00000007-2"),
            layout.aside(),
            layout.aside().join("00000007"),
        ] {
            let away = layout.retired(&place, 42);
            assert!(is_staging_name(
                &away.file_name().unwrap().to_string_lossy()
            ));
            let found = layout.place_of_retired(&away).unwrap();
            assert_eq!(found.as_os_str(), place.as_os_str());
        }
        for name in ["generations+..", "notes", "generations+notes", "+", ""] {
            let away = layout.staging(&format!("removed-{name}"), 42);
            assert_eq!(layout.place_of_retired(&away), None, "{name}");
        }
        let saving = layout.staging("00000007", 42);
        assert_eq!(layout.place_of_retired(&saving), None);
    }

    #[test]
    fn only_names_made_for_staging_are_swept() {
        let layout = Layout::new(Path::new("backup"));
        let made = layout.staging("00000007", 42);
        assert!(is_staging_name(
            &made.file_name().unwrap().to_string_lossy()
        ));
        for name in [
            ".staging-",
            ".staging-notes",
            ".staging-a-b",
            "staging-a-000000000000002a",
        ] {
            assert!(!is_staging_name(name), "{name}");
        }
    }

    #[test]
    fn a_part_name_cannot_leave_the_generation() {
        assert!(is_part_name("model"));
        for name in ["", "..", "a/b", "/etc", "Model", "a.b", "a\0"] {
            assert!(!is_part_name(name), "{name:?}");
        }
    }
}
