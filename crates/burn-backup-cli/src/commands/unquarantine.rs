//! `unquarantine`: moves a generation back that is whole after all.

use std::path::PathBuf;

use anyhow::Result;
use burn_backup_store::{Observation, OpenGeneration, OpenOptions, Quarantine, Store};
use serde::Serialize;

use crate::exit::{Exit, refuse};
use crate::output::{Output, Page, Report};
use crate::place::Place;
use crate::source::{Directory, verify};

/// Moves a generation from the quarantine back to its place, if each byte of it is what was committed
///
/// A disk or a network may have been at fault when it was moved there. Refused while a training uses the directory.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A backup directory
    pub place: Place,

    /// The generation's number, or the name of its directory in the quarantine
    #[arg(value_name = "N")]
    pub name: String,

    /// Verifies the generation, and changes nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// What was moved back.
#[derive(Debug, Serialize)]
struct Restored {
    dry_run: bool,
    number: u64,
    from: PathBuf,
    to: PathBuf,
}

pub fn run(args: &Args, output: &Output) -> Result<Exit> {
    let path = args.place.directory("unquarantine")?;
    let directory = Directory::open(path)?;
    let quarantine = find(&directory, &args.name)?;
    let generation = open(&directory, &quarantine)?;
    let to = directory
        .observer
        .path()
        .join("generations")
        .join(generation.id().to_string());
    if to.symlink_metadata().is_ok() {
        return Err(refuse(
            Exit::Failed,
            format!(
                "'{}' is there again; nothing was changed: the one in the quarantine is needed no longer",
                to.display()
            ),
        ));
    }
    let restored = Restored {
        dry_run: args.dry_run,
        number: generation.id().number(),
        from: quarantine.path.clone(),
        to,
    };
    if args.dry_run {
        verify(&generation, output)?;
    } else {
        let store = Store::open(path, OpenOptions::default())?;
        store.unquarantine(&generation)?;
    }
    output.print(&restored)?;
    Ok(Exit::Good)
}

/// What has this number, or this name.
fn find(directory: &Directory, name: &str) -> Result<Quarantine> {
    let number: Option<u64> = name.parse().ok();
    let all = directory.observer.quarantined()?;
    let names: Vec<_> = all
        .iter()
        .map(|quarantine| quarantine.name.clone())
        .collect();
    let is_meant = |quarantine: &Quarantine| {
        let is_numbered = number.is_some() && quarantine.generation.map(|id| id.number()) == number;
        quarantine.generation.is_some() && (quarantine.name == name || is_numbered)
    };
    let mut meant: Vec<_> = all.into_iter().filter(is_meant).collect();
    if let Some(at) = meant.iter().position(|quarantine| quarantine.name == name) {
        return Ok(meant.swap_remove(at));
    }
    match meant.len() {
        1 => Ok(meant.remove(0)),
        0 => Err(refuse(
            Exit::NoBackup,
            match names.is_empty() {
                true => format!("generation {name} is not in quarantine: nothing is"),
                false => format!(
                    "generation {name} is not in quarantine. These are: {}",
                    names.join(", ")
                ),
            },
        )),
        _ => Err(refuse(
            Exit::Usage,
            format!(
                "several of generation {name} are in quarantine. Give the name of one of these: {}",
                names.join(", ")
            ),
        )),
    }
}

fn open(directory: &Directory, quarantine: &Quarantine) -> Result<Box<OpenGeneration>> {
    let shown = quarantine.path.display();
    match directory.observer.open_quarantined(quarantine)? {
        Observation::Manifest(generation) => Ok(generation),
        Observation::Damaged(damage) => Err(refuse(
            Exit::Damage,
            format!("'{shown}' is damaged ({damage}), and stays where it is"),
        )),
        _ => Err(refuse(
            Exit::NoBackup,
            format!("'{shown}' is not there any more"),
        )),
    }
}

impl Report for Restored {
    fn show(&self, page: &mut Page) {
        let number = self.number;
        match self.dry_run {
            true => page.line(format!(
                "Generation {number} is whole, and would be moved to '{}'.",
                self.to.display()
            )),
            false => page.line(format!(
                "Generation {number} is whole, and back in '{}'.",
                self.to.display()
            )),
        }
    }
}
