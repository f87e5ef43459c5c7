//! What a restart may find changed on purpose.

use std::fmt;

/// Something that a restart finds changed, and that is meant to be.
///
/// A restart refuses what is not as it was when the backup was made, because the training would not be
/// continued but become another one. [`BackupAndRestore::allow`](crate::BackupAndRestore::allow) lets a
/// named change pass, and the log says what follows from it. From the restart on, the backup holds what
/// is new: the next restart needs no opt-in for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Change {
    /// The batch size. Inside an epoch, a loader of
    /// [`data::DataLoaderBuilder`](crate::data::DataLoaderBuilder) goes on at the item that is next.
    /// With any other loader, and with several devices, the epoch begins anew.
    BatchSize,
    /// The number of items in an epoch. Inside an epoch, it goes on as with another batch size.
    Data,
    /// The learning-rate schedule. The program's own is used, from the current optimizer step on.
    Schedule,
    /// The optimizer. The weights are kept, and the state of the old optimizer is dropped if the new one
    /// has no place for it.
    Optimizer,
    /// Burn's `grads_accumulation`.
    Accumulation,
    /// The run seed given with [`seed`](crate::BackupAndRestore::seed): random numbers are drawn from the
    /// new one.
    Seed,
    /// The program's [`label`](crate::BackupAndRestore::label).
    Label,
    /// Which parameters are trained: those of the program are, whatever was trained before.
    TrainedParameters,
    /// The version of Burn.
    BurnVersion,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Change::{self:?}")
    }
}

/// The changes that are allowed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes(Vec<Change>);

impl Changes {
    pub(crate) fn allow(&mut self, change: Change) {
        self.0.push(change);
    }

    pub(crate) fn allows(&self, change: Change) -> bool {
        self.0.contains(&change)
    }
}
