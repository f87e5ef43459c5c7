use std::io;
use std::path::{Path, PathBuf};

use crate::layout::GenerationId;

/// What went wrong with a backup directory.
///
/// Each message names the operation that failed and its path, the state of the disk, and what to do. The
/// cause is in [`source`](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The path of the backup directory is empty.
    #[error("the backup directory's path is empty: name a directory that belongs to this training")]
    EmptyPath,

    /// The path of the backup directory leads to something else.
    #[error(
        "the backup directory '{}' is not a directory; nothing was changed: choose another path, \
         or move away what is there", path.display()
    )]
    #[non_exhaustive]
    NotADirectory {
        /// The path that was given.
        path: PathBuf,
    },

    /// A file or directory that this crate did not write has a name that this crate needs.
    #[error(
        "'{}' is in the backup directory and was not made by this crate; it was not touched: give \
         the backup a directory of its own", path.display()
    )]
    #[non_exhaustive]
    Foreign {
        /// The path of that file or directory.
        path: PathBuf,
    },

    /// Another process holds the lock.
    #[error(
        "the backup directory '{}' is in use by {owner}; nothing was changed: wait for that training, \
         stop it, or give this one a directory of its own", path.display()
    )]
    #[non_exhaustive]
    InUse {
        /// The backup directory.
        path: PathBuf,
        /// A description of the process that holds the lock.
        owner: String,
    },

    /// A newer version of this crate wrote the file.
    #[error(
        "'{}' has format version {found}, and this program reads versions up to {supported}; \
         nothing was changed: update burn-backup-restore; or, to start over, delete the backup \
         directory when no training uses it", path.display()
    )]
    #[non_exhaustive]
    NewerFormat {
        /// The file that carries the version.
        path: PathBuf,
        /// The version found in it.
        found: u64,
        /// The newest version that this program reads.
        supported: u32,
    },

    /// The directory has generations, and every one is damaged.
    #[error(
        "no undamaged backup is left in '{}': the damaged ones are in its directory 'quarantine', \
         each with a reason.txt; to start the training anew, delete the backup directory when no \
         training uses it",
        path.display()
    )]
    #[non_exhaustive]
    NoneLeft {
        /// The backup directory.
        path: PathBuf,
    },

    /// A generation is whole, but belongs to another training than the directory does.
    #[error(
        "'{}' belongs to another training (run {found}) than the backup directory (run {expected}); \
         nothing was changed: move it to where it belongs; or, to start over, delete the backup directory \
         when no training uses it", path.display()
    )]
    #[non_exhaustive]
    AnotherRun {
        /// The generation.
        path: PathBuf,
        /// The run that its manifest names.
        found: String,
        /// The run that the directory belongs to.
        expected: String,
    },

    /// The caller asked for a run seed that differs from the one that the generations were made with.
    #[error(
        "the backup in '{}' was made with the run seed {stored}, and this program asks for \
         {asked}; nothing was changed: ask for {stored} or for none; or, to start over, delete the \
         backup directory when no training uses it", path.display()
    )]
    #[non_exhaustive]
    SeedMismatch {
        /// The backup directory.
        path: PathBuf,
        /// The seed in the directory.
        stored: u64,
        /// The seed asked for.
        asked: u64,
    },

    /// A generation is whole, but its run seed differs from the directory's.
    #[error(
        "'{}' was made with the run seed {found}, and the directory's burn-backup.json says {expected}; \
         nothing was changed: if the backup is right, delete burn-backup.json when no training uses \
         the directory, and the next start takes the seed from the newest backup", path.display()
    )]
    #[non_exhaustive]
    AnotherSeed {
        /// The generation.
        path: PathBuf,
        /// The seed in its manifest.
        found: u64,
        /// The seed of the directory.
        expected: u64,
    },

    /// The backup directory was removed or renamed while it was in use, and no other process uses its path.
    #[error(
        "the backup directory '{}' was removed or renamed while the training ran, together with its backups: \
         the next backup creates the directory again, unless another program uses the path by then",
        path.display()
    )]
    #[non_exhaustive]
    Gone {
        /// The backup directory.
        path: PathBuf,
        /// The call that failed because of it, if one did.
        source: Option<io::Error>,
    },

    /// The backup directory was removed or renamed while it was in use, and another process uses its path now.
    #[error(
        "the backup directory '{}' was removed or renamed while the training ran, and {by} uses the \
         path now; nothing there was changed. The backups of this training are in its renamed directory, \
         unless it was deleted. This training continues without backups until the path is free, or its \
         directory is back: give each training a directory of its own", path.display()
    )]
    #[non_exhaustive]
    TakenOver {
        /// The path.
        path: PathBuf,
        /// A description of the process or training that uses it.
        by: String,
    },

    /// The next generation has no number, because the greatest possible one is in use.
    #[error(
        "'{}' holds a backup with the greatest possible number; nothing was changed: move it \
         away when no training uses the directory", path.display()
    )]
    #[non_exhaustive]
    NumbersUsedUp {
        /// The directory of the generations.
        path: PathBuf,
    },

    /// The manifest is longer than the limit that a start reads.
    #[error(
        "the manifest of the backup would have {bytes} bytes, and a start reads at most {limit}; \
         the backup was discarded, and the earlier ones in '{}' are unchanged: store \
         less in the state, and large data in parts", path.display()
    )]
    #[non_exhaustive]
    ManifestTooLong {
        /// The backup directory.
        path: PathBuf,
        /// The manifest's length in bytes.
        bytes: u64,
        /// The greatest length that a start reads, in bytes.
        limit: u64,
    },

    /// A generation was given more parts than a start reads.
    #[error(
        "a backup has at most {limit} parts; the part was not written: put more data into each part"
    )]
    #[non_exhaustive]
    TooManyParts {
        /// The greatest number of parts.
        limit: usize,
    },

    /// A part was given a name that can't be a file name.
    #[error(
        "'{name}' can't name a part; nothing was written: use lower-case letters, digits, '-' and \
         '_', and each name once"
    )]
    #[non_exhaustive]
    PartName {
        /// The name.
        name: String,
    },

    /// The caller's inspection of a part refused its bytes.
    #[error("writing the part '{part}' was refused; the backup was discarded")]
    #[non_exhaustive]
    Refused {
        /// The part's name.
        part: String,
        /// The reason that the inspection gave.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// The bytes of an adopted generation differ from its manifest.
    #[error("the imported backup is damaged ({damage}); it was discarded")]
    #[non_exhaustive]
    Damaged {
        /// The damage.
        damage: Damage,
    },

    /// A requested generation is damaged.
    #[error(
        "'{}' is damaged ({damage}); it was not moved or changed: use another backup, or check the disk and try again",
        path.display()
    )]
    #[non_exhaustive]
    GenerationDamaged {
        /// The generation.
        path: PathBuf,
        /// The damage.
        damage: Damage,
    },

    /// A generation with this number is already there.
    #[error(
        "'{}' already exists, so no other backup with this number can be placed there; nothing was changed: \
         move the existing one away when no training uses the directory", path.display()
    )]
    #[non_exhaustive]
    NumberTaken {
        /// The existing generation.
        path: PathBuf,
    },

    /// The state document can't be written as JSON.
    #[error("the state of the backup can't be written as JSON; the backup was discarded")]
    State(#[source] std::io::Error),

    /// A call to the operating system failed.
    #[error("cannot {operation} '{}'; {state}", path.display())]
    #[non_exhaustive]
    Io {
        /// The operation that failed, as in "cannot create ..".
        operation: &'static str,
        /// The path of the operation.
        path: PathBuf,
        /// The state of the disk after the failure, and what to do.
        state: &'static str,
        /// The failure.
        source: io::Error,
    },
}

/// Every generation that was whole before is unchanged.
pub(crate) const UNCHANGED: &str = "committed backups are unchanged: check that the directory \
                                    can be read and written, and that the disk is healthy";

/// A generation could not be read. It may be whole or damaged.
pub(crate) const UNREAD: &str = "the backup may be undamaged and was not changed: start again when \
                                 the disk is healthy, or move the backup's directory away to \
                                 resume from the previous one";

/// A generation was read, but could not be made durable.
pub(crate) const NOT_DURABLE: &str = "the backup is whole, but may not survive a power cut, and \
                                      was not restored: start again when the disk is healthy";

/// The training resumes from an older generation, and not all newer ones could be moved aside.
pub(crate) const NOT_SET_ASIDE: &str = "every backup is whole, in its place or in the directory 'aside': start \
                                        again when the disk is healthy, and the rest is moved";

/// A save failed before its commit.
pub(crate) const NOT_COMMITTED: &str = "this backup was discarded and the earlier ones \
                                        are unchanged: check free space and permissions";

/// A save was renamed into place, but the rename could not be made durable.
pub(crate) const MAYBE_COMMITTED: &str = "this backup is in place but may not survive a power \
                                          cut; the earlier ones are unchanged: check the disk";

/// Old data could not be removed.
pub(crate) const NOT_REMOVED: &str = "the newest backup is unchanged; the leftovers \
                                      are removed after the next backup or at the next start";

/// A file or directory was moved out of its place, but not removed completely.
pub(crate) const TAKEN_AWAY: &str = "it was moved out of its place, and the rest of it is removed after \
                                     the next backup or at the next start: check the disk";

impl StoreError {
    pub(crate) fn damaged(damage: Damage) -> Self {
        Self::Damaged { damage }
    }

    /// The error and its cause, for the log.
    pub(crate) fn with_cause(&self) -> String {
        match std::error::Error::source(self) {
            Some(cause) => format!("{self} (cause: {cause})"),
            None => self.to_string(),
        }
    }

    pub(crate) fn io(
        operation: &'static str,
        path: &Path,
        state: &'static str,
    ) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Io {
            operation,
            path,
            state,
            source,
        }
    }
}

/// What makes a generation damaged, in the words that go into its `reason.txt`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The manifest is missing.
    #[error("manifest.json is missing")]
    ManifestMissing,
    /// The manifest is not a file of a plausible size.
    #[error("manifest.json is not a file of at most {limit} bytes")]
    #[non_exhaustive]
    ManifestSize {
        /// The greatest size that is read.
        limit: u64,
    },
    /// The manifest's last line is not the checksum of the bytes before it.
    #[error("manifest.json does not match the checksum at its end")]
    ManifestChecksum,
    /// The manifest matches its checksum, but its contents can't be read as a manifest.
    #[error("manifest.json can't be read: {detail}")]
    #[non_exhaustive]
    ManifestContents {
        /// Why it can't be read.
        detail: String,
    },
    /// The manifest belongs to another generation.
    #[error("manifest.json is that of generation {found}")]
    #[non_exhaustive]
    ManifestOfAnother {
        /// The generation that the manifest names.
        found: GenerationId,
    },
    /// A part is missing.
    #[error("{file} is missing")]
    #[non_exhaustive]
    PartMissing {
        /// The part's file.
        file: String,
    },
    /// A part's length differs from its manifest.
    #[error("{file} has {found} bytes instead of {expected}")]
    #[non_exhaustive]
    PartLength {
        /// The part's file.
        file: String,
        /// The length in the manifest, in bytes.
        expected: u64,
        /// The file's length, in bytes.
        found: u64,
    },
    /// A part's bytes differ from those that were written.
    #[error("{file} does not match its hash")]
    #[non_exhaustive]
    PartHash {
        /// The part's file.
        file: String,
    },
    /// Some of a part's bytes differ from those that were written.
    #[error("{file} does not match its hash in the {bytes} bytes from byte {offset} on")]
    #[non_exhaustive]
    BlockHash {
        /// The part's file.
        file: String,
        /// Where in the file the first damaged block begins.
        offset: u64,
        /// The length of that block, in bytes.
        bytes: u64,
    },
}
