use std::error::Error;
use std::fmt;
use std::time::Duration;

use burn_backup_store::{GenerationId, StoreError};

use crate::mirror::Mirror;

/// The error of a mirror operation.
///
/// Each message says what operation failed and on what, the state of the backup, and what to do. No message and no
/// cause contains a credential.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MirrorError {
    /// The URL does not name a mirror.
    #[error(
        "the mirror '{url}' can't be used: {reason}; nothing was changed: give s3://BUCKET/PREFIX, \
         gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, file:///DIRECTORY or memory:"
    )]
    #[non_exhaustive]
    Url {
        /// The URL, without credentials.
        url: String,
        /// Why it can't be used.
        reason: &'static str,
    },

    /// The client of the mirror can't be created.
    #[error(
        "the client of the mirror {mirror} can't be created; nothing was changed: check the environment variables that \
         configure it"
    )]
    #[non_exhaustive]
    Client {
        /// The mirror.
        mirror: String,
        /// The cause.
        #[source]
        source: Cause,
    },

    /// The directory of the mirror is missing.
    #[error(
        "the directory of the mirror {mirror} is missing; nothing was changed: mount its file system, or create the \
         directory if this training needs a new mirror"
    )]
    #[non_exhaustive]
    NoDirectory {
        /// The mirror.
        mirror: String,
        /// The system's error.
        #[source]
        source: Cause,
    },

    /// A request failed.
    #[error(
        "cannot {action} '{object}' in the mirror {mirror}; the local backup is unchanged: {kind}"
    )]
    #[non_exhaustive]
    Request {
        /// The operation.
        action: &'static str,
        /// The object's path.
        object: String,
        /// The mirror.
        mirror: String,
        /// How it failed.
        kind: RequestFailure,
        /// The client's error.
        #[source]
        source: Cause,
    },

    /// The mirror can't prevent two writers from overwriting each other.
    #[error(
        "the mirror {mirror} doesn't support conditional puts, so two machines could write to it at the same time; \
         nothing was changed: use another place, or set Mirror::single_writer(true) if no other machine ever \
         runs this training at the same time"
    )]
    #[non_exhaustive]
    NoConditionalPut {
        /// The mirror.
        mirror: String,
    },

    /// Another process writes to the mirror.
    #[error(
        "the mirror {mirror} is in use by {holder}; nothing was changed in it: stop that process, or give this \
         training a mirror of its own"
    )]
    #[non_exhaustive]
    InUse {
        /// The mirror.
        mirror: String,
        /// The name that the process gave itself.
        holder: String,
    },

    /// Another process has taken over the mirror.
    #[error(
        "the mirror {mirror} was taken over by {holder}, because this process did not renew its lease in time; \
         mirroring has stopped, and the local backup is unchanged: stop one of the two processes"
    )]
    #[non_exhaustive]
    LeaseLost {
        /// The mirror.
        mirror: String,
        /// The name that the process gave itself.
        holder: String,
    },

    /// The lease was deleted by a user, or by a process that finished the training.
    #[error(
        "the lease of this process in the mirror {mirror} was deleted, by a user or by a process that finished the \
         training; mirroring has stopped, and the local backup is unchanged: if the training is not finished, start \
         the program again to mirror again"
    )]
    #[non_exhaustive]
    LeaseDeleted {
        /// The mirror.
        mirror: String,
    },

    /// The mirror belongs to another training.
    #[error(
        "the mirror {mirror} has backups of the training {found}, and the backup directory has those of {expected}; \
         nothing was changed: give each training a mirror of its own, or delete the backups, in the mirror or in \
          the directory, that you no longer need"
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
        "the mirror {mirror} has backups of {count} trainings ({found}), and it is unknown which of them this \
         one is; nothing was changed: give each training a mirror of its own"
    )]
    #[non_exhaustive]
    SeveralTrainings {
        /// The mirror.
        mirror: String,
        /// The number of trainings.
        count: usize,
        /// The ids of some of them.
        found: String,
    },

    /// Another process has continued the training meanwhile.
    #[error(
        "the mirror {mirror} has the backup {found}, which is newer than the local one that this process resumed from; \
         nothing is mirrored: stop this process, and start it again to resume from the newer one"
    )]
    #[non_exhaustive]
    Newer {
        /// The mirror.
        mirror: String,
        /// The newest backup in it.
        found: GenerationId,
    },

    /// The training was finished on another machine.
    #[error(
        "the mirror {mirror} says that this training was finished on another machine, and the local backup is \
         older; nothing was changed: delete the backup directory to begin a new training"
    )]
    #[non_exhaustive]
    Finished {
        /// The mirror.
        mirror: String,
    },

    /// Every generation in the mirror that could be used is damaged or gone.
    #[error(
        "no backup that this start could use is intact in the mirror {mirror}; backup {newest} can't be used because \
         {reason}; nothing was changed: try again, or look at the others with 'burn-backup list'"
    )]
    #[non_exhaustive]
    NoneIntact {
        /// The mirror.
        mirror: String,
        /// The newest one of those that were wanted.
        newest: GenerationId,
        /// Why it can't be used.
        reason: String,
    },

    /// An object differs from what this crate has put.
    #[error(
        "'{object}' in the mirror {mirror} is damaged: {reason}; the local backup is unchanged: if the damage \
         persists, delete the object when no training uses the mirror"
    )]
    #[non_exhaustive]
    Damaged {
        /// The object.
        object: String,
        /// The mirror.
        mirror: String,
        /// The damage.
        reason: Damage,
    },

    /// The local backup does not match its manifest, and was not mirrored.
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
        /// The offset in bytes of the damaged block in the file.
        offset: u64,
    },

    /// A backup was removed, or damaged, before it was mirrored.
    #[error(
        "the local backup {generation} was removed, or its manifest is damaged; it was not mirrored: the next backup \
         will be"
    )]
    #[non_exhaustive]
    Gone {
        /// The backup.
        generation: GenerationId,
    },

    /// A backup was removed from the mirror.
    #[error(
        "the backup {generation} is no longer in the mirror {mirror}: a newer one has replaced it"
    )]
    #[non_exhaustive]
    Pruned {
        /// The mirror.
        mirror: String,
        /// The backup.
        generation: GenerationId,
    },

    /// A newer version wrote the object.
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
        /// The newest format that this version reads.
        supported: u32,
    },

    /// The local backup can't be read or written.
    #[error("{0}")]
    Store(#[source] StoreError),

    /// The thread of the mirror can't be started.
    #[error(
        "the thread of the mirror can't be started; nothing was changed: check the limits on threads and memory"
    )]
    Thread(#[source] std::io::Error),

    /// The thread of the mirror has stopped.
    #[error(
        "the thread of the mirror has stopped; the local backup is unchanged: run the program again to mirror \
     it"
    )]
    ThreadEnded,

    /// The operation took longer than its time limit.
    #[error("the mirror {mirror} did not finish within {}; the local backup is unchanged: check the network, and \
     run the program again to mirror it", Seconds(*.limit))]
    #[non_exhaustive]
    OutOfTime {
        /// The mirror.
        mirror: String,
        /// The time limit.
        limit: Duration,
    },
}

/// How a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestFailure {
    /// The credentials don't permit the request.
    #[error("check the credentials and the permissions")]
    Denied,
    /// The bucket or the object is missing.
    #[error("check that the bucket exists")]
    NotFound,
    /// The server doesn't support the request.
    #[error("the server does not support this")]
    Unsupported,
    /// There was no answer in time, or the answer gave no other reason.
    #[error("check the network and the endpoint")]
    Unreachable,
}

/// The damage of an object.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The object is missing.
    #[error("it is missing")]
    Missing,
    /// The object's length differs from what was put.
    #[error("it has {found} bytes instead of {expected}")]
    #[non_exhaustive]
    Length {
        /// The expected length, in bytes.
        expected: u64,
        /// The length, in bytes.
        found: u64,
    },
    /// The object's bytes differ from what was put.
    #[error("it does not match its hash in the {bytes} bytes from byte {offset} on")]
    #[non_exhaustive]
    Hash {
        /// The offset of the damaged block, in bytes.
        offset: u64,
        /// The length of that block, in bytes.
        bytes: u64,
    },
    /// The object can't be read.
    #[error("it can't be read: {0}")]
    Contents(String),
}

/// The message of an object store's client, with everything removed that could be a credential.
///
/// It is text, because the client's own errors contain URLs with signatures, and print them.
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
    /// An error for a training that was finished on another machine.
    pub fn finished(mirror: &Mirror) -> Self {
        Self::Finished {
            mirror: mirror.to_string(),
        }
    }

    /// Whether the mirror is unusable now, but may be usable later: it can't be reached, does not answer correctly, or
    /// refuses this process.
    pub fn is_unavailable(&self) -> bool {
        matches!(
            self,
            Self::Request { .. }
                | Self::OutOfTime { .. }
                | Self::NoDirectory { .. }
                | Self::Damaged { .. }
        )
    }

    /// Whether the error may disappear later without any action.
    pub fn is_transient(&self) -> bool {
        self.is_unavailable()
            || self.is_loss()
            || matches!(self, Self::Thread(_) | Self::ThreadEnded)
    }

    /// Whether the mirror has generations, but every one that could be used is damaged or gone.
    pub fn is_none_intact(&self) -> bool {
        matches!(self, Self::NoneIntact { .. })
    }

    /// Whether the error is in this generation only, and an older one may be whole.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Damaged { .. } | Self::Store(StoreError::Damaged { .. })
        )
    }

    /// Whether this process may not write to the mirror any more.
    pub(crate) fn is_loss(&self) -> bool {
        matches!(
            self,
            Self::LeaseLost { .. } | Self::LeaseDeleted { .. } | Self::InUse { .. }
        )
    }
}

/// `: ` and the cause of an error, if it has a cause that its message does not contain.
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
