//! `unquarantine`: moves a generation back from the quarantine, if it is not damaged after all.

use std::path::PathBuf;

use anyhow::Result;
use burn_backup_store::{Observation, OpenGeneration, OpenOptions, Quarantine, Store};
use serde::Serialize;

use crate::exit::{Exit, refuse};
use crate::output::{Output, Page, Report};
use crate::place::Place;
use crate::source::{Directory, verify};

/// Moves a generation from the quarantine back to its place, if all its bytes match their hashes
///
/// This helps if a disk or a network caused the damage, and works again. Refused while a training uses the directory.
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

/// The generation that was moved back.
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
                "'{}' exists again; nothing was changed: the generation in the quarantine is no longer needed",
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

/// The quarantined generation with this number or name.
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
                true => format!("generation {name} is not in quarantine: the quarantine is empty"),
                false => format!(
                    "generation {name} is not in quarantine. The quarantine has: {}",
                    names.join(", ")
                ),
            },
        )),
        _ => Err(refuse(
            Exit::Usage,
            format!(
                "the quarantine has several copies of generation {name}. Give one of these names: {}",
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
            format!("'{shown}' no longer exists"),
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
                "Generation {number} is whole, and was moved back to '{}'.",
                self.to.display()
            )),
        }
    }
}
