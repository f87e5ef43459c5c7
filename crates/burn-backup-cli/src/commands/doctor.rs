//! `doctor`: checks whether a directory is suitable for backups. It makes the same calls as the store.

mod calls;
mod disk;
mod speed;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use burn_backup_store::{Observation, Observer, Use};
use serde::Serialize;

use crate::exit::{Exit, refuse};
use crate::output::{Output, Page, Report, TextStyle};
use crate::place::Place;

/// Checks whether a directory is suitable for backups, and how fast it is
///
/// The directory need not exist. The checks run in a new directory in it, which is removed at the end.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A directory, with or without a backup
    pub place: Place,

    /// The size of a generation in bytes; by default that of the newest generation there
    #[arg(long, value_name = "N")]
    pub bytes: Option<u64>,
}

/// The results of all checks.
#[derive(Debug, Serialize)]
struct Diagnosis {
    place: String,
    checks: Vec<Check>,
}

/// The result of one check.
#[derive(Debug, Serialize)]
pub struct Check {
    name: &'static str,
    status: Status,
    message: String,
    advice: Option<String>,
    /// The number in the message: bytes, or bytes per second.
    value: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Ok,
    Warn,
    Fail,
}

impl Check {
    pub fn ok(name: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            name,
            status: Status::Ok,
            message,
            advice: None,
            value: None,
        }
    }

    pub fn warn(name: &'static str, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            status: Status::Warn,
            advice: Some(advice.into()),
            ..Self::ok(name, message)
        }
    }

    pub fn fail(name: &'static str, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            status: Status::Fail,
            advice: Some(advice.into()),
            ..Self::ok(name, message)
        }
    }

    pub fn with_value(self, value: u64) -> Self {
        Self {
            value: Some(value),
            ..self
        }
    }
}

pub fn run(args: &Args, output: &Output) -> Result<Exit> {
    let path = args.place.directory("doctor")?;
    let observer = Observer::new(path)?;
    let root = observer.path();
    let existing = nearest(root)?;
    let mut checks = vec![directory(root, &existing)];
    checks.extend(disk::permissions(&existing));
    checks.extend(disk::kind(&existing));
    match tempfile::Builder::new()
        .prefix(".burn-backup-doctor-")
        .tempdir_in(&existing)
    {
        Ok(scratch) => {
            checks.extend(calls::all(scratch.path()));
            checks.extend(disk::space(
                &existing,
                args.bytes.or(newest_bytes(&observer)),
            ));
            checks.extend(speed::measure(scratch.path(), &existing, output));
            let closed = scratch.close();
            closed.with_context(|| {
                format!(
                    "cannot remove the test directory in '{}'",
                    existing.display()
                )
            })?;
        }
        Err(error) => checks.push(Check::fail(
            "create",
            format!(
                "nothing can be created in '{}': {error}",
                existing.display()
            ),
            "check the permissions, and that the disk is not mounted read-only",
        )),
    }
    if let Ok(Use::InUse(by)) = observer.in_use() {
        checks.push(Check::ok(
            "in use",
            format!("by {by}, which is not disturbed"),
        ));
    }
    let diagnosis = Diagnosis {
        place: root.display().to_string(),
        checks,
    };
    let has_failed = diagnosis
        .checks
        .iter()
        .any(|check| check.status == Status::Fail);
    output.print(&diagnosis)?;
    Ok(match has_failed {
        true => Exit::Failed,
        false => Exit::Good,
    })
}

/// The directory, or its nearest existing parent.
fn nearest(root: &Path) -> Result<PathBuf> {
    let existing = root.ancestors().find(|path| path.is_dir());
    existing.map(Path::to_path_buf).ok_or_else(|| {
        refuse(
            Exit::NoBackup,
            format!("no directory of the path '{}' exists", root.display()),
        )
    })
}

fn directory(root: &Path, existing: &Path) -> Check {
    match root == existing {
        true => Check::ok("directory", "it exists"),
        false => Check::ok(
            "directory",
            format!(
                "it does not exist yet; '{}' is checked instead",
                existing.display()
            ),
        ),
    }
}

/// The size of the newest generation, if there is one.
fn newest_bytes(observer: &Observer) -> Option<u64> {
    let newest = observer.generations().ok()?.first().copied()?;
    match observer.open(newest).ok()? {
        Observation::Manifest(generation) => Some(generation.manifest().bytes()),
        _ => None,
    }
}

impl Report for Diagnosis {
    fn show(&self, page: &mut Page) {
        page.field("directory", &self.place);
        page.gap();
        for check in &self.checks {
            let status = match check.status {
                Status::Ok => TextStyle::Good.paint("ok  "),
                Status::Warn => TextStyle::Warning.paint("warn"),
                Status::Fail => TextStyle::Bad.paint("fail"),
            };
            page.line(format!("{status}  {}: {}", check.name, check.message));
            if let Some(advice) = &check.advice {
                page.line(format!("      {advice}"));
            }
        }
    }
}
