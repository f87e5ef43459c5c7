//! Reports the end of a training: releases the terminal, and prints one line with the outcome.

mod no_renderer;

use std::any::Any;
use std::io::{self, IsTerminal as _};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use burn::train::renderer::MetricsRenderer;

use crate::messages::{print_line, terminal_is_given_back};
use no_renderer::NoRenderer;

/// Prints the outcome of a training that did not run to its end, on the terminal's main screen.
///
/// Burn's dashboard releases the terminal when it is dropped. Until then, printed lines are lost. The training's result
/// holds the dashboard, in most programs until `main` returns, so this function drops it first.
///
/// A finished training keeps its renderer, because an evaluation may use it. `notes` are warnings that could not be
/// printed while the dashboard had the terminal.
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
        print_line(&format!("warning: {note}"));
    }
    print_line(line);
    if let Err(kill) = given_back {
        resume_unwind(kill);
    }
}

/// Drops the renderer. Burn's dashboard then panics if its user has just told it to kill the training.
pub(crate) fn give_terminal_back(
    renderer: &mut Box<dyn MetricsRenderer>,
) -> Result<(), Box<dyn Any + Send>> {
    let renderer = mem::replace(renderer, Box::new(NoRenderer));
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(renderer)));
    terminal_is_given_back();
    dropped
}
