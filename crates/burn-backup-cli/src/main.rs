//! `burn-backup`: inspects, verifies, exports and maintains backups of trainings with Burn.
//!
//! ```text
//! inspect:   list  show  verify  history
//! export:    export
//! maintain:  prune  discard  unquarantine  migrate
//! mirror:    pull  push
//! machine:   doctor
//! training:  run
//! ```
//!
//! Each command is a file in [`commands`]. Its report is plain data: [`output`] prints it as text or as JSON.

mod atomic_write;
mod commands;
mod exit;
mod export;
mod model;
mod options;
mod output;
mod place;
mod record;
#[cfg(unix)]
mod run;
mod source;
mod training;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use crate::exit::Exit;
use crate::options::Options;
use crate::output::{Output, StdoutClosed, plain};

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            // If the output is closed, there is no other place to report it.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    log_to_stderr();
    let output = Output::detect(options.json);
    match options.command.run(&output) {
        Ok(code) => code,
        Err(error) if error.is::<StdoutClosed>() => Exit::Good.into(),
        Err(error) => {
            output.error(&error);
            exit::of(&error).into()
        }
    }
}

/// Logs messages of the store and the mirror. The default level is `error`, and `RUST_LOG` changes it.
fn log_to_stderr() {
    let level = env_logger::Env::default().default_filter_or("error");
    let mut logger = env_logger::Builder::from_env(level);
    logger.format(|line, record| {
        let level = record.level().as_str().to_lowercase();
        writeln!(line, "{level}: {}", plain(&record.args().to_string()))
    });
    // It can't fail, because no other logger is installed.
    let _ = logger.try_init();
}
