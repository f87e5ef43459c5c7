//! From a generation to a training that is where it was.
//!
//! ```text
//! restore   the records are checked, and loaded
//! plan      where the training goes on, and where each of its loaders does
//! batches   the loaders brought there: past epochs asked for, trained batches skipped
//! check     whether a loader gives what it gave when the backup was made
//! replay    the other way: everything is loaded once more
//! ```

mod batches;
mod check;
mod plan;
mod replay;
mod restore;
mod trained;

pub(crate) use batches::{Batches, Rest, train_loader, valid_loader};
pub(crate) use check::WholeEpoch;
pub(crate) use plan::{Plan, Resumption};
pub(crate) use replay::replay;
pub(crate) use restore::{
    Expected, LoadPart, Loaded, PartsMut, Restored, SavedPart, foreign, load_weights, read_state,
    restore,
};
pub(crate) use trained::{apply as apply_trained, check as check_trained};

const LOG: &str = "burn_backup::fast_forward";

#[cfg(test)]
mod tests;
