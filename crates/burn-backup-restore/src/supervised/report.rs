//! The end of a training, told to everybody: the terminal is given back, and one line says what became of it.

use std::any::Any;
use std::io::{self, IsTerminal as _};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;

use burn::train::{LearningResult, TrainingError};

use crate::error::BackupError;
use crate::handle::BackupHandle;
use crate::outcome::Outcome;
use crate::say::say;
use crate::supervised::no_renderer::NoRenderer;

/// Says what became of a training that did not run to its end, on the screen that stays.
///
/// Burn's dashboard leaves the terminal when it is dropped, and the result holds it, in most programs
/// until `main` returns: what is printed before is lost. A finished training keeps its renderer, which an
/// evaluation may go on with. `notes` were not said before, because the dashboard had the terminal.
pub(crate) fn report<M>(result: &mut LearningResult<M>, line: Option<&str>, notes: &[String]) {
    let Some(line) = line else { return };
    let given_back = match io::stdout().is_terminal() {
        true => give_terminal_back(result),
        false => Ok(()),
    };
    for note in notes {
        say(&format!("warning: {note}"));
    }
    say(line);
    if let Err(kill) = given_back {
        resume_unwind(kill);
    }
}

/// Drops the renderer. Burn's dashboard panics then if its user has just told it to kill the training.
pub(crate) fn give_terminal_back<M>(
    result: &mut LearningResult<M>,
) -> Result<(), Box<dyn Any + Send>> {
    let renderer = mem::replace(&mut result.renderer, Box::new(NoRenderer));
    catch_unwind(AssertUnwindSafe(|| drop(renderer)))
}

/// The line on a training that ended like this; `None` if it is finished. `saved` says what became of one
/// that was stopped.
pub(crate) fn line<M>(
    outcome: Outcome,
    result: &LearningResult<M>,
    saved: Option<&str>,
    handle: &BackupHandle,
) -> Option<String> {
    let error = result.error.as_deref().map(describe).unwrap_or_default();
    Some(match outcome {
        Outcome::Finished => return None,
        Outcome::Stopped { .. } => {
            let reason = result.interrupted.as_ref();
            let reason = reason.and_then(|stop| stop.reason.as_deref());
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

/// An error of ours without what Burn writes in front of it.
fn describe(error: &TrainingError) -> String {
    match BackupError::find(error) {
        Some(error) => error.to_string(),
        None => error.to_string(),
    }
}

fn last_backup(handle: &BackupHandle) -> String {
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
        }
    }
}
