//! The program's output. Reports go to the standard output, as text or as JSON. Progress bars, warnings and errors go to
//! the standard error.

mod page;
mod progress;
mod units;

use std::env;
use std::io::{self, BufRead as _, ErrorKind, IsTerminal as _, Write as _};

use anyhow::{Context as _, Error, Result};
use serde::Serialize;

pub use page::{Page, TextStyle};
pub use progress::Bar;
pub use units::{ago, bytes, count, moment, number, plain, seconds};

use crate::exit::{Exit, refuse};

/// The report of a command.
pub trait Report: Serialize {
    /// Adds the report to the page as text.
    fn show(&self, page: &mut Page);
}

/// The reader of the standard output has closed it.
#[derive(Debug, thiserror::Error)]
#[error("the standard output is closed")]
pub struct StdoutClosed;

/// Where and how to print.
pub struct Output {
    json: bool,
    has_colour: bool,
    has_bars: bool,
    has_coloured_errors: bool,
}

impl Output {
    /// Uses colours and progress bars on terminals, unless `NO_COLOR` or `CI` turns them off.
    pub fn detect(json: bool) -> Self {
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let (is_ci, is_plain) = (is_set("CI"), is_set("NO_COLOR"));
        let is_dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        let is_rich = !is_ci && !is_dumb;
        let errors = io::stderr().is_terminal();
        Self {
            json,
            has_colour: is_rich && !is_plain && io::stdout().is_terminal(),
            has_bars: is_rich && errors,
            has_coloured_errors: is_rich && !is_plain && errors,
        }
    }

    /// Whether it prints JSON.
    #[cfg(unix)]
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a report.
    pub fn print(&self, report: &impl Report) -> Result<()> {
        let text = match self.json {
            true => {
                let json = serde_json::to_string_pretty(report);
                json.context("the report can't be written as JSON")? + "\n"
            }
            false => {
                let mut page = Page::default();
                report.show(&mut page);
                page.finish(self.has_colour)
            }
        };
        self.write(text.as_bytes())
    }

    /// Writes bytes to the standard output.
    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        let mut out = io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(StdoutClosed.into()),
            written => written.context("cannot write to the standard output"),
        }
    }

    /// Prints a warning.
    pub fn warn(&self, message: impl AsRef<str>) {
        self.print_message(TextStyle::Warning, "warning", message.as_ref());
    }

    /// Prints an error with its causes.
    pub fn error(&self, error: &Error) {
        self.print_message(TextStyle::Bad, "error", &with_causes(error));
    }

    fn print_message(&self, style: TextStyle, word: &str, message: &str) {
        let mut page = Page::default();
        page.line(format!("{}: {message}", style.paint(word)));
        write_to_stderr(&page.finish(self.has_coloured_errors));
    }

    /// A progress bar for this many bytes. It is hidden if bars are turned off.
    pub fn bar(&self, what: &str, total: u64) -> Bar {
        Bar::new(self.has_bars, what, total)
    }

    /// Asks for confirmation. Without a terminal and without `--yes`, this is an error.
    pub fn confirm(&self, question: &str, is_agreed: bool) -> Result<()> {
        if is_agreed {
            return Ok(());
        }
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Err(refuse(
                Exit::Failed,
                format!(
                    "{question} There is no terminal to ask on, and nothing was changed: add --yes, or try --dry-run"
                ),
            ));
        }
        write_to_stderr(&format!("{} [y/N] ", plain(question)));
        let mut answer = String::new();
        let read = io::stdin().lock().read_line(&mut answer);
        read.context("the answer can't be read; nothing was changed")?;
        match answer.trim().to_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(refuse(Exit::Failed, "nothing was changed")),
        }
    }
}

/// The error and its causes, without repetitions.
fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(&format!("\n  cause: {cause}"));
        }
    }
    text
}

fn write_to_stderr(text: &str) {
    // If the standard error is closed, there is no other place to report it.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_not_repeated() {
        let error: Error = anyhow::anyhow!("the disk is full").context("cannot write");
        assert_eq!(
            with_causes(&error),
            "cannot write\n  cause: the disk is full"
        );
        let error = anyhow::anyhow!("the disk is full").context("it failed: the disk is full");
        assert_eq!(with_causes(&error), "it failed: the disk is full");
    }
}
