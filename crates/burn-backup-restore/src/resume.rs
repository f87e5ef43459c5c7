//! From a generation to a training at the saved position.
//!
//! ```text
//! restore   checks and loads the records
//! plan      where the training and each of its loaders continue
//! batches   moves the loaders there: requests past epochs and skips trained batches
//! check     whether a loader gives the same data as when the backup was made
//! replay    the alternative: everything is loaded again
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
