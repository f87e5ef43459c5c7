use std::io;
use std::path::{Path, PathBuf};

use crate::layout::GenerationId;

/// What went wrong with a backup directory.
///
/// Each message says what was being done and where, what state the disk is in, and what to do. The
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

    /// Something of somebody else's stands where this crate keeps its own.
    #[error(
        "'{}' is in the backup directory and was not made by this crate; it was not touched: give \
         the backup a directory of its own", path.display()
    )]
    #[non_exhaustive]
    Foreign {
        /// What stands there.
        path: PathBuf,
    },

    /// Another process holds the lock.
    #[error(
        "the backup directory '{}' is in use by {owner}; nothing was changed: wait for that \
         training, end it, or give this one a directory of its own", path.display()
    )]
    #[non_exhaustive]
    InUse {
        /// The backup directory.
        path: PathBuf,
        /// Who holds the lock, in words.
        owner: String,
    },

    /// Something was written by a newer version of this crate.
    #[error(
        "'{}' has format version {found}, and this program reads versions up to {supported}; \
         nothing was changed: update burn-backup-restore; or, to start anew, delete the backup \
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

    /// Generations are there, and every one is damaged.
    #[error(
        "no whole generation is left in '{}': the damaged ones are in its directory 'quarantine', \
         each with a reason.txt; to start the training anew, delete the backup directory when no \
         training uses it",
        path.display()
    )]
    #[non_exhaustive]
    NoneLeft {
        /// The backup directory.
        path: PathBuf,
    },

    /// A generation is whole, but belongs to another training than the directory.
    #[error(
        "'{}' belongs to another training (run {found}) than the backup directory (run {expected}); \
         nothing was changed: move it to where it belongs; or, to start anew, delete the backup directory \
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

    /// The caller asked for a seed other than the one that the generations were made with.
    #[error(
        "the backup in '{}' was made with the run seed {stored}, and this program asks for \
         {asked}; nothing was changed: ask for {stored} or for none; or, to start anew, delete the \
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

    /// A generation is whole, but was made with another run seed than its directory's.
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

    /// The backup directory was removed or renamed while it was in use, and nobody else uses its path.
    #[error(
        "the backup directory '{}' was removed or renamed while the training ran, and the backups \
         went with it: the next backup makes the directory again, unless somebody else uses the path \
         by then", path.display()
    )]
    #[non_exhaustive]
    Gone {
        /// The backup directory.
        path: PathBuf,
        /// The call that failed because of it, if one did.
        source: Option<io::Error>,
    },

    /// The backup directory was removed or renamed while it was in use, and somebody else uses its path
    /// now.
    #[error(
        "the backup directory '{}' was removed or renamed while the training ran, and {by} uses the \
         path now; nothing there was touched, and the backups of this training are where its \
         directory is now, if it was not deleted: give each training a directory of its own. This one \
         goes on without backups until the path is free, or its directory is back", path.display()
    )]
    #[non_exhaustive]
    TakenOver {
        /// The path.
        path: PathBuf,
        /// Who uses it, in words.
        by: String,
    },

    /// There is no greater number for the next generation.
    #[error(
        "'{}' holds a generation with the greatest number that there is; nothing was changed: move it \
         away when no training uses the directory", path.display()
    )]
    #[non_exhaustive]
    NumbersUsedUp {
        /// The directory of the generations.
        path: PathBuf,
    },

    /// The manifest is longer than what is read at a start.
    #[error(
        "the manifest of the generation would have {bytes} bytes, and at most {limit} are read at a \
         start; the generation was thrown away, and the ones before it in '{}' are as they were: keep \
         less in the state, and large data in parts", path.display()
    )]
    #[non_exhaustive]
    ManifestTooLong {
        /// The backup directory.
        path: PathBuf,
        /// The manifest's length in bytes.
        bytes: u64,
        /// The greatest length that is read, in bytes.
        limit: u64,
    },

    /// A generation was given more parts than are read at a start.
    #[error("a generation has at most {limit} parts; the part was not written: put more into each")]
    #[non_exhaustive]
    TooManyParts {
        /// How many parts are possible.
        limit: usize,
    },

    /// A part was given a name that can't be a file's.
    #[error(
        "'{name}' can't name a part; nothing was written: use lower-case letters, digits, '-' and \
         '_', and each name once"
    )]
    #[non_exhaustive]
    PartName {
        /// The name.
        name: String,
    },

    /// Bytes of a part were not to be written, said whoever looked at them.
    #[error("the part '{part}' was refused; the generation was thrown away")]
    #[non_exhaustive]
    Refused {
        /// The part's name.
        part: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// A generation that was to be taken in is not what its manifest says.
    #[error("a generation that was to be taken in is damaged ({damage}), and was thrown away")]
    #[non_exhaustive]
    Damaged {
        /// What is wrong with it.
        damage: Damage,
    },

    /// A generation in the quarantine is what it was moved there for.
    #[error("'{}' is damaged ({damage}), and stays where it is", path.display())]
    #[non_exhaustive]
    StillDamaged {
        /// The generation.
        path: PathBuf,
        /// What is wrong with it.
        damage: Damage,
    },

    /// A generation that was to be taken in has the number of one that is there.
    #[error(
        "'{}' is there, and a generation of that number was to be taken in; nothing was changed: move it \
         away when no training uses the directory", path.display()
    )]
    #[non_exhaustive]
    NumberTaken {
        /// The generation that is there.
        path: PathBuf,
    },

    /// The state document can't be written as JSON.
    #[error("the state of the generation can't be written as JSON; the generation was thrown away")]
    State(#[source] std::io::Error),

    /// A call to the operating system failed.
    #[error("cannot {operation} '{}'; {state}", path.display())]
    #[non_exhaustive]
    Io {
        /// What was being done, as in "cannot create ..".
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// The state of the disk after the failure, and what to do.
        state: &'static str,
        /// The failure.
        source: io::Error,
    },
}

/// Nothing that was whole before has been changed.
pub(crate) const UNCHANGED: &str = "committed generations are as they were: check that the \
                                    directory can be read and written, and that the disk is well";

/// A generation could not be read, which says nothing about it.
pub(crate) const UNREAD: &str = "the generation may be whole and was not touched: start again once \
                                 the disk is well, or move the generation's directory away to go \
                                 on from the one before it";

/// A generation was read, but it is not certain that it stays.
pub(crate) const NOT_DURABLE: &str = "the generation is whole, but may not survive a power cut, and \
                                      was not restored: start again once the disk is well";

/// Older generations are to be gone on from, and newer ones could not all be moved out of the way.
pub(crate) const NOT_SET_ASIDE: &str = "every generation is whole, in its place or in the directory 'aside': start \
                                        again once the disk is well, and the rest is moved";

/// A save failed before its commit.
pub(crate) const NOT_COMMITTED: &str = "this generation was thrown away and the ones before it \
                                        are as they were: check free space and permissions";

/// A save was renamed into place, but making that durable failed.
pub(crate) const MAYBE_COMMITTED: &str = "this generation is in place but may not survive a power \
                                          cut; the ones before it are as they were: check the disk";

/// Removing what is no longer needed failed.
pub(crate) const NOT_REMOVED: &str = "the newest generation is as it was, and what is left over \
                                      is removed after the next backup or at the next start";

/// Something was taken out of its place, but not removed to its end.
pub(crate) const TAKEN_AWAY: &str = "it is out of its place, and what is left over is removed after \
                                     the next backup or at the next start: check the disk";

impl StoreError {
    pub(crate) fn damaged(damage: Damage) -> Self {
        Self::Damaged { damage }
    }

    /// The error and what caused it, for the log.
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
    /// The manifest is not there.
    #[error("manifest.json is missing")]
    ManifestMissing,
    /// The manifest is not a file of a plausible size.
    #[error("manifest.json is not a file of at most {limit} bytes")]
    #[non_exhaustive]
    ManifestSize {
        /// The greatest size that is read.
        limit: u64,
    },
    /// The manifest's last line is not a checksum of what is before it.
    #[error("manifest.json does not match the checksum at its end")]
    ManifestChecksum,
    /// The manifest is sealed, but does not hold what a manifest holds.
    #[error("manifest.json can't be read: {detail}")]
    #[non_exhaustive]
    ManifestContents {
        /// What is wrong with it.
        detail: String,
    },
    /// The manifest is another generation's.
    #[error("manifest.json is that of generation {found}")]
    #[non_exhaustive]
    ManifestOfAnother {
        /// The generation that it names.
        found: GenerationId,
    },
    /// A part is not there.
    #[error("{file} is missing")]
    #[non_exhaustive]
    PartMissing {
        /// The part's file.
        file: String,
    },
    /// A part has another length than its manifest says.
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
    /// A part's bytes are not those that were written.
    #[error("{file} does not match its hash")]
    #[non_exhaustive]
    PartHash {
        /// The part's file.
        file: String,
    },
    /// Some of a part's bytes are not those that were written.
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
