//! `push`: copies the newest whole generation of a directory into a mirror.

use std::ops::ControlFlow;
use std::sync::Arc;

use anyhow::Result;
use burn_backup_remote::{KeepLast, Mirror, Transfer};
use burn_backup_store::{Manifest, Observation, OpenOptions, Store};
use serde::Serialize;

use crate::exit::{self, Exit, refuse};
use crate::output::{Output, Page, Report, bytes};
use crate::place::Place;
use crate::source::{Directory, verify};

/// Copies the newest whole generation of a directory into a mirror
///
/// The mirror's generations stay. Refused while a training uses the directory or the mirror.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A backup directory
    pub place: Place,

    /// The URL of the mirror
    #[arg(long, value_name = "URL")]
    pub to: Place,

    /// Shows what would be copied, and changes nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// What was copied.
#[derive(Debug, Serialize)]
struct Pushed {
    dry_run: bool,
    to: String,
    newest: u64,
    bytes: u64,
    /// Whether the mirror already had the generation.
    was_there: bool,
    damaged: Vec<u64>,
}

pub fn run(args: &Args, output: &Output) -> Result<Exit> {
    let path = args.place.directory("push")?;
    let Place::Mirror(url) = &args.to else {
        return Err(refuse(Exit::Usage, "--to needs the URL of a mirror"));
    };
    let directory = Directory::open(path)?;
    // The lock comes first, so that no newer generation appears meanwhile.
    let store = match args.dry_run {
        true => None,
        false => Some(Arc::new(Store::open(path, OpenOptions::default())?)),
    };
    let mut damaged = Vec::new();
    let manifest = newest_whole(&directory, &mut damaged, output)?;
    let mirror = Mirror::new(url);
    let connection = mirror.connect()?;
    let found = connection.observe()?;
    let there = found
        .iter()
        .find(|training| training.run_id() == manifest.run_id);
    if there.is_some_and(|training| training.finished().is_some()) {
        return Err(refuse(
            Exit::Failed,
            format!(
                "{mirror} marks this training as finished, so no program would read the copy; nothing was changed: \
                 push to another prefix"
            ),
        ));
    }
    let newest_there = there.and_then(|training| training.generations().max());
    if newest_there.is_some_and(|there| there > manifest.generation) {
        return Err(refuse(
            Exit::Failed,
            format!(
                "{mirror} has a newer generation; nothing was changed: `burn-backup pull` copies it here"
            ),
        ));
    }
    let was_there = newest_there == Some(manifest.generation);
    if let (Some(store), false) = (&store, was_there) {
        let found = connection.find(&manifest.run_id, true)?;
        let id = manifest.generation;
        // The mirror is not pruned here, because a training prunes it by its own policy.
        let mirroring = connection.mirror(
            Some(&found),
            store,
            Some(id),
            Arc::new(KeepLast(usize::MAX)),
            Box::new(|_| {}),
        );
        let mut bar = output.bar(
            &format!("pushing generation {}", id.number()),
            manifest.bytes(),
        );
        let on_transfer = &mut |transfer: Transfer| {
            bar.set(transfer.done, transfer.of);
            ControlFlow::Continue(())
        };
        mirroring.flush(None, on_transfer)?;
    }
    output.print(&Pushed {
        dry_run: args.dry_run,
        to: mirror.to_string(),
        newest: manifest.generation.number(),
        bytes: manifest.bytes(),
        was_there,
        damaged: damaged.clone(),
    })?;
    Ok(match damaged.is_empty() {
        true => Exit::Good,
        false => Exit::Damage,
    })
}

/// The newest generation whose bytes all match their hashes.
fn newest_whole(
    directory: &Directory,
    damaged: &mut Vec<u64>,
    output: &Output,
) -> Result<Manifest> {
    for id in directory.observer.generations()? {
        let damage = match directory.observer.open(id)? {
            Observation::Manifest(generation) => match verify(&generation, output) {
                Ok(()) => return Ok(generation.manifest().clone()),
                Err(error) if exit::of(&error) == Exit::Damage => error.to_string(),
                Err(error) => return Err(error),
            },
            Observation::Damaged(damage) => {
                format!("generation {} is damaged: {damage}", id.number())
            }
            _ => continue,
        };
        output.warn(format!("{damage}. It is left out"));
        damaged.push(id.number());
    }
    let shown = directory.observer.path().display();
    Err(match damaged.is_empty() {
        true => refuse(
            Exit::NoBackup,
            format!("there is no generation in '{shown}'"),
        ),
        false => refuse(
            Exit::Damage,
            format!(
                "every generation in '{shown}' is damaged; nothing was copied: if the mirror has a backup, copy \
                 it with 'burn-backup pull'"
            ),
        ),
    })
}

impl Report for Pushed {
    fn show(&self, page: &mut Page) {
        let (number, size, to) = (self.newest, bytes(self.bytes), &self.to);
        page.line(match (self.was_there, self.dry_run) {
            (true, _) => format!("{to} already has generation {number}."),
            (false, true) => {
                format!("Would copy generation {number}, {size}, to {to}. Nothing was changed.")
            }
            (false, false) => format!("Copied generation {number}, {size}, to {to}."),
        });
    }
}
