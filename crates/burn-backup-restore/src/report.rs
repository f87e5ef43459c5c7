//! The end of a training, told to everybody: the terminal is given back, and one line says what became of it.

mod no_renderer;

use std::any::Any;
use std::io::{self, IsTerminal as _};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use burn::train::renderer::MetricsRenderer;

use crate::say::{say, terminal_is_given_back};
use no_renderer::NoRenderer;

/// Says what became of a training that did not run to its end, on the screen that stays.
///
/// Burn's dashboard leaves the terminal when it is dropped, and the result holds it, in most programs
/// until `main` returns: what is printed before is lost. A finished training keeps its renderer, which an
/// evaluation may go on with. `notes` were not said before, because the dashboard had the terminal.
pub(crate) fn report(
    renderer: &mut Box<dyn MetricsRenderer>,
    line: Option<&str>,
    notes: &[String],
) {
    let Some(line) = line else { return };
    let given_back = match io::stdout().is_terminal() {
        true => give_terminal_back(renderer),
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
pub(crate) fn give_terminal_back(
    renderer: &mut Box<dyn MetricsRenderer>,
) -> Result<(), Box<dyn Any + Send>> {
    let renderer = mem::replace(renderer, Box::new(NoRenderer));
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(renderer)));
    terminal_is_given_back();
    dropped
}
