//! Backup and restore for any training loop. The loop reports what it has done. The session decides when a backup is
//! due, takes the snapshot and has it written.
//!
//! ```text
//! open -> split_begins -> (look_out, step_seeds, train a batch, step_done)* -> split_done
//!      -> seed_validation, (look_out, validate a batch)* -> epoch_done -> ..
//!      -> finished | stopped -> conclude
//! ```
//!
//! Hand-written loops use the methods in `by_hand`. The loops for Burn's builders use the events below it. Each
//! concern of a session has its own file:
//!
//! ```text
//! progress  the position of the training
//! window    the last optimizer step, while gradients are accumulated
//! cadence   when a backup is due
//! saver     takes backups and tracks whether they succeed
//! watch     preemption notices and stops
//! guard     divergences
//! rollback  going back to a backup while the training runs
//! ending    how the training ended
//! mirror    the copy of the backups that outlives the machine
//! ```

pub(crate) mod announcement;
mod by_hand;
mod cadence;
mod choice;
pub(crate) mod closing;
mod ending;
mod events;
mod guard;
mod heartbeat;
pub(crate) mod mirror;
mod open;
mod progress;
mod rollback;
mod saver;
mod transfer;
mod watch;
mod window;

const LOG: &str = "burn_backup::restore";
const COMMIT_LOG: &str = "burn_backup::commit";
const TRIGGER_LOG: &str = "burn_backup::trigger";

pub use by_hand::{Batches, Flow, Session};
pub(crate) use ending::Ending;
pub(crate) use events::Core;
pub(crate) use guard::watch_of;
pub(crate) use open::Context;
pub(crate) use progress::Remaining;
pub(crate) use saver::{HasParts, MetricSource, NoMetrics};
