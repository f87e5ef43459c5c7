use std::error::Error;
use std::fmt;
use std::time::Duration;

use burn_backup_store::{GenerationId, StoreError};

use crate::mirror::Mirror;

/// Why a mirror could not be used.
///
/// Each message says what was being done and to what, what became of the backup, and what to do. No message, and
/// no cause, holds a credential.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MirrorError {
    /// The URL is none of a mirror.
    #[error(
        "the mirror '{url}' can't be used: {reason}; nothing was changed: give s3://BUCKET/PREFIX, \
         gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, file:///DIRECTORY or memory:"
    )]
    #[non_exhaustive]
    Url {
        /// The URL, without credentials.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// The client of the mirror can't be made.
    #[error(
        "the client of the mirror {mirror} can't be made; nothing was changed: check the environment variables that \
         configure it"
    )]
    #[non_exhaustive]
    Client {
        /// The mirror.
        mirror: String,
        /// What is wrong.
        #[source]
        source: Cause,
    },

    /// The directory of the mirror is not there.
    #[error(
        "the directory of the mirror {mirror} is not there; nothing was changed: mount what it is on, or make it if \
         this training is to have a new mirror"
    )]
    #[non_exhaustive]
    NoDirectory {
        /// The mirror.
        mirror: String,
        /// What the system says.
        #[source]
        source: Cause,
    },

    /// A request failed.
    #[error(
        "cannot {action} '{object}' in the mirror {mirror}; the local backup is as it was: {kind}"
    )]
    #[non_exhaustive]
    Request {
        /// What was to be done.
        action: &'static str,
        /// To which object.
        object: String,
        /// The mirror.
        mirror: String,
        /// How it failed.
        kind: RequestFailure,
        /// What the client says.
        #[source]
        source: Cause,
    },

    /// The mirror lets two writers overwrite each other.
    #[error(
        "the mirror {mirror} doesn't support conditional puts, so that two machines could write to it at once; \
         nothing was changed: use another place, or promise Mirror::single_writer(true) if no other machine ever \
         runs this training at the same time"
    )]
    #[non_exhaustive]
    NoConditionalPut {
        /// The mirror.
        mirror: String,
    },

    /// Another process writes to the mirror.
    #[error(
        "the mirror {mirror} is in use by {holder}; nothing was changed in it: end that process, or give this \
         training a mirror of its own"
    )]
    #[non_exhaustive]
    InUse {
        /// The mirror.
        mirror: String,
        /// The process, as it has called itself.
        holder: String,
    },

    /// Another process has taken the mirror over.
    #[error(
        "the mirror {mirror} was taken over by {holder}, because nothing was heard of this process; nothing is \
         mirrored any more, the local backup is as it was: end one of the two"
    )]
    #[non_exhaustive]
    LeaseLost {
        /// The mirror.
        mirror: String,
        /// The process, as it has called itself.
        holder: String,
    },

    /// The mirror is another training's.
    #[error(
        "the mirror {mirror} has backups of the training {found}, and the backup directory those of {expected}; \
         nothing was changed: give each training a mirror of its own, or delete one of the two"
    )]
    #[non_exhaustive]
    AnotherTraining {
        /// The mirror.
        mirror: String,
        /// The training in the mirror.
        found: String,
        /// The training in the backup directory.
        expected: String,
    },

    /// The mirror has backups of several trainings.
    #[error(
        "the mirror {mirror} has backups of {count} trainings ({found}), and nothing tells which one this is; nothing \
         was changed: give each training a mirror of its own"
    )]
    #[non_exhaustive]
    SeveralTrainings {
        /// The mirror.
        mirror: String,
        /// How many.
        count: usize,
        /// Some of them.
        found: String,
    },

    /// Another process has gone on with the training meanwhile.
    #[error(
        "the mirror {mirror} has the backup {found}, which is newer than the local one that this process goes on from; \
         nothing is mirrored: end this process, and start it again to go on from there"
    )]
    #[non_exhaustive]
    Newer {
        /// The mirror.
        mirror: String,
        /// The newest backup in it.
        found: GenerationId,
    },

    /// The training has run to its end on another machine.
    #[error(
        "the mirror {mirror} says that this training has run to its end on another machine, and the local backup is of \
         an earlier moment; nothing was changed: delete the backup directory to begin a new training"
    )]
    #[non_exhaustive]
    Finished {
        /// The mirror.
        mirror: String,
    },

    /// Every generation in the mirror is damaged.
    #[error(
        "every backup in the mirror {mirror} is damaged, the newest one ({newest}) because {reason}; nothing was \
         changed: delete the objects under its prefix to start anew"
    )]
    #[non_exhaustive]
    NoneWhole {
        /// The mirror.
        mirror: String,
        /// The newest one.
        newest: GenerationId,
        /// What is wrong with it.
        reason: String,
    },

    /// An object is not what this crate has put there.
    #[error(
        "'{object}' in the mirror {mirror} is damaged: {reason}; the local backup is as it was: if it stays so, delete \
         the object when no training uses the mirror"
    )]
    #[non_exhaustive]
    Damaged {
        /// The object.
        object: String,
        /// The mirror.
        mirror: String,
        /// What is wrong with it.
        reason: Damage,
    },

    /// The local backup is not what its manifest says, and was not mirrored.
    #[error(
        "'{file}' of the local backup {generation} does not match its hash from byte {offset} on; it was not mirrored, \
         and the last whole one in the mirror stays: check the disk"
    )]
    #[non_exhaustive]
    LocalDamage {
        /// The backup.
        generation: GenerationId,
        /// The part's file.
        file: String,
        /// Where in it the damaged block begins, in bytes.
        offset: u64,
    },

    /// A backup was gone, or damaged, before it was mirrored.
    #[error(
        "the local backup {generation} is not there any more, or its manifest is damaged; it was not mirrored, and the \
         next one is"
    )]
    #[non_exhaustive]
    Gone {
        /// The backup.
        generation: GenerationId,
    },

    /// A backup is not in the mirror any more.
    #[error(
        "the backup {generation} is not in the mirror {mirror} any more: a newer one has taken its place"
    )]
    #[non_exhaustive]
    Pruned {
        /// The mirror.
        mirror: String,
        /// The backup.
        generation: GenerationId,
    },

    /// The mirror was written by a newer version.
    #[error(
        "'{object}' in the mirror {mirror} has the format {found}, and this version reads up to {supported}; nothing \
         was changed: use a newer version"
    )]
    #[non_exhaustive]
    NewerFormat {
        /// The object.
        object: String,
        /// The mirror.
        mirror: String,
        /// Its format.
        found: u32,
        /// The newest format that is read.
        supported: u32,
    },

    /// The local backup can't be read or written.
    #[error("{0}")]
    Store(#[source] StoreError),

    /// The thread of the mirror can't be started.
    #[error("the thread of the mirror can't be started; nothing was changed")]
    Thread(#[source] std::io::Error),

    /// The thread of the mirror has ended.
    #[error("the thread of the mirror has ended; the local backup is as it was")]
    ThreadEnded,

    /// It took longer than it may take.
    #[error("the mirror {mirror} was not done within {}; the local backup is as it was", Seconds(*.limit))]
    #[non_exhaustive]
    OutOfTime {
        /// The mirror.
        mirror: String,
        /// How long it may take.
        limit: Duration,
    },
}

/// How a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestFailure {
    /// The credentials don't allow it.
    #[error("check the credentials and the permissions")]
    Denied,
    /// The bucket or the object is not there.
    #[error("check that the bucket is there")]
    NotFound,
    /// The server doesn't know how.
    #[error("the server does not support this")]
    Unsupported,
    /// There was no answer in time, or none that says more.
    #[error("check the network and the endpoint")]
    Unreachable,
}

/// What is wrong with an object.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// It is not there.
    #[error("it is missing")]
    Missing,
    /// It has another length than it was put with.
    #[error("it has {found} bytes instead of {expected}")]
    #[non_exhaustive]
    Length {
        /// The right length, in bytes.
        expected: u64,
        /// The length, in bytes.
        found: u64,
    },
    /// Its bytes are others than it was put with.
    #[error("it does not match its hash in the {bytes} bytes from byte {offset} on")]
    #[non_exhaustive]
    Hash {
        /// Where the damaged block begins, in bytes.
        offset: u64,
        /// The length of that block, in bytes.
        bytes: u64,
    },
    /// It can't be read.
    #[error("it can't be read: {0}")]
    Contents(String),
}

/// What the client of an object store says, without anything that could be a credential.
///
/// It is text, because the client's own errors hold URLs with signatures, and print them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause(pub(crate) String);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Cause {}

struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} s", self.0.as_secs_f64())
    }
}

impl MirrorError {
    /// The training in this mirror has run to its end on another machine.
    pub fn finished(mirror: &Mirror) -> Self {
        Self::Finished {
            mirror: mirror.to_string(),
        }
    }

    /// Whether the mirror can't be used now, and may be at another time: it can't be reached, does not answer as it
    /// should, or does not let this process in.
    pub fn is_unavailable(&self) -> bool {
        matches!(
            self,
            Self::Request { .. }
                | Self::OutOfTime { .. }
                | Self::NoDirectory { .. }
                | Self::Damaged { .. }
        )
    }

    /// Whether it may be well at another time, without anybody's doing.
    pub fn may_pass(&self) -> bool {
        self.is_unavailable()
            || self.is_loss()
            || matches!(self, Self::Thread(_) | Self::ThreadEnded)
    }

    /// Whether there are generations in the mirror, and none of them is whole.
    pub fn is_none_whole(&self) -> bool {
        matches!(self, Self::NoneWhole { .. })
    }

    /// Whether the generation at hand is at fault, and an older one may be whole.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Damaged { .. } | Self::Store(StoreError::Damaged { .. })
        )
    }

    /// Whether the mirror is another process's by now.
    pub(crate) fn is_loss(&self) -> bool {
        matches!(self, Self::LeaseLost { .. } | Self::InUse { .. })
    }
}

/// `: ` and the cause of an error, if it has one that it does not name itself.
pub(crate) fn caused_by(error: &MirrorError) -> String {
    match (error, error.source()) {
        (MirrorError::Store(_), _) | (_, None) => String::new(),
        (_, Some(cause)) => format!(": {cause}"),
    }
}

impl From<StoreError> for MirrorError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
