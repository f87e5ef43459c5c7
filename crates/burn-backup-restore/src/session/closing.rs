//! The line that is printed when a training ends.

use std::thread;

use burn::train::TrainingError;

use crate::error::BackupError;
use crate::handle::BackupHandle;
use crate::messages::print_line;
use crate::outcome::Outcome;

const LOG: &str = "burn_backup::restore";

/// The line for a training that ended with `outcome`; `None` if it finished without NaN. `error` ended the training,
/// `reason` says why it was stopped, and `saved` whether it was saved.
pub(crate) fn line(
    outcome: Outcome,
    error: Option<&TrainingError>,
    reason: Option<&str>,
    saved: Option<&str>,
    handle: &BackupHandle,
) -> Option<String> {
    let error = error.map(describe).unwrap_or_default();
    Some(match outcome {
        Outcome::Finished if handle.is_poisoned() => format!(
            "error: the training has ended, but its model contains NaN; {}",
            last_backup(handle),
        ),
        Outcome::Finished => return None,
        Outcome::Stopped { .. } => {
            let reason = reason.unwrap_or("the training was stopped");
            let reason = reason.trim_end_matches('.');
            match saved {
                // The reason of a notice already includes it.
                Some(saved) if reason.ends_with(saved) => reason.to_owned(),
                Some(saved) => format!("{reason}; {saved}"),
                None => format!("{reason}; {}", last_backup(handle)),
            }
        }
        Outcome::PastLastEpoch { at, num_epochs } => format!(
            "the training is at {at}, beyond the requested {num_epochs} epoch(s): nothing was trained, and the \
             restored model is returned; to continue, increase num_epochs; {}",
            last_backup(handle),
        ),
        Outcome::Refused => format!("error: the training did not start: {error}"),
        Outcome::Failed => format!(
            "error: the training ended with an error: {error}; {}",
            last_backup(handle),
        ),
    })
}

/// Prints this `line` and exits the process with `code`.
pub(crate) fn exit(line: &str, code: i32) -> ! {
    let line = format!("{line}; the process exits with {code}");
    log::warn!(target: LOG, "{line}");
    print_line(&line);
    log::logger().flush();
    std::process::exit(code)
}

/// The message of this crate's error without the text that Burn prepends.
fn describe(error: &TrainingError) -> String {
    match BackupError::find(error) {
        Some(error) => error.to_string(),
        None => error.to_string(),
    }
}

/// The last backup, as text.
pub(crate) fn last_backup(handle: &BackupHandle) -> String {
    match handle.newest() {
        Some(position) => format!("the last backup is from {position}"),
        None => "there is no backup".to_owned(),
    }
}

/// Prints the last backup when a panic ends the training, for example after the user kills the training in Burn's
/// dashboard.
pub(crate) struct OnPanic(pub BackupHandle);

impl Drop for OnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            print_line(&format!(
                "the training ended with a panic; {}",
                last_backup(&self.0)
            ));
            self.0.ended(Outcome::Failed, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::settings::BackupAndRestore;

    #[test]
    fn a_finished_training_has_a_line_only_if_its_model_contains_nan() {
        let handle = BackupAndRestore::new("backup").handle();
        let line = || line(Outcome::Finished, None, None, None, &handle);
        assert_eq!(line(), None);
        let parameter = "weight".to_owned();
        handle.failed(Arc::new(BackupError::ContainsNan { parameter }));
        let text = line().unwrap();
        assert!(text.contains("NaN") && text.contains("no backup"), "{text}");
    }
}
