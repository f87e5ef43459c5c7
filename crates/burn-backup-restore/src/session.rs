//! Backup and restore for any training loop: the loop tells what it has done, the session decides, takes
//! snapshots and has them written.
//!
//! ```text
//! open -> split_begins -> (look_out, step_seeds, train a batch, step_done)* -> split_done
//!      -> seed_validation, (look_out, validate a batch)* -> epoch_done -> ..
//!      -> finished | stopped -> conclude
//! ```
//!
//! A loop that is written by hand uses what is in `by_hand`, and the loops for Burn's builders use the events
//! below it. What a session consists of has a file for each concern:
//!
//! ```text
//! progress  where the training is
//! window    the last optimizer step, while gradients are accumulated
//! cadence   when a backup is due
//! saver     what is saved, and what became of it
//! watch     notices of a preemption, and stops
//! guard     divergences
//! rollback  the way back to a backup, while the training runs
//! ending    how the training ended
//! mirror    where the backups outlive the machine
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
pub(crate) use saver::{MetricSource, NoMetrics, Parted};
