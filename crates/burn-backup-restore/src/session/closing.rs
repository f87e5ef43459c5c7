//! The end of a training, in one line.

use std::thread;

use burn::train::TrainingError;

use crate::error::BackupError;
use crate::handle::BackupHandle;
use crate::outcome::Outcome;
use crate::say::say;

const LOG: &str = "burn_backup::restore";

/// The line on a training that ended like this; `None` if it is finished. `error` is what ended it,
/// `reason` why it was stopped, and `saved` what became of it then.
pub(crate) fn line(
    outcome: Outcome,
    error: Option<&TrainingError>,
    reason: Option<&str>,
    saved: Option<&str>,
    handle: &BackupHandle,
) -> Option<String> {
    let error = error.map(describe).unwrap_or_default();
    Some(match outcome {
        Outcome::Finished => return None,
        Outcome::Stopped { .. } => {
            let reason = reason.unwrap_or("the training was stopped");
            let reason = reason.trim_end_matches('.');
            match saved {
                // A notice's reason says so itself.
                Some(saved) if reason.ends_with(saved) => reason.to_owned(),
                Some(saved) => format!("{reason}; {saved}"),
                None => format!("{reason}; {}", last_backup(handle)),
            }
        }
        Outcome::Beyond { at, num_epochs } => format!(
            "the training is at {at}, beyond the {num_epochs} epoch(s) that it is to have: nothing was \
             trained, the model is returned as it is; {}",
            last_backup(handle),
        ),
        Outcome::Refused => format!("error: the training did not start: {error}"),
        Outcome::Failed => format!(
            "error: the training ended with an error: {error}; {}",
            last_backup(handle),
        ),
    })
}

/// Ends the process with `code`, after this `line`.
pub(crate) fn exit(line: &str, code: i32) -> ! {
    let line = format!("{line}; the process exits with {code}");
    log::warn!(target: LOG, "{line}");
    say(&line);
    log::logger().flush();
    std::process::exit(code)
}

/// An error of ours without what Burn writes in front of it.
fn describe(error: &TrainingError) -> String {
    match BackupError::find(error) {
        Some(error) => error.to_string(),
        None => error.to_string(),
    }
}

/// Which backup there is.
pub(crate) fn last_backup(handle: &BackupHandle) -> String {
    match handle.newest() {
        Some(position) => format!("the last backup is of {position}"),
        None => "there is no backup".to_owned(),
    }
}

/// Says which backup there is when a panic ends the training, as it does when Burn's dashboard is told to
/// kill it.
pub(crate) struct OnPanic(pub BackupHandle);

impl Drop for OnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            say(&format!(
                "the training ended with a panic; {}",
                last_backup(&self.0)
            ));
            self.0.ended(Outcome::Failed, None);
        }
    }
}
