//! `migrate`: rewrites the newest generation in the newest format.

use anyhow::Result;
use burn_backup_store::{
    FORMAT_VERSION, Observation, OpenGeneration, OpenOptions, PartReader, Store,
};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::exit::{Exit, refuse};
use crate::output::{Output, Page, Report, bytes};
use crate::place::Place;
use crate::source::{Directory, verify};

/// The size of one read.
const WINDOW: u64 = 4 * 1024 * 1024;

/// Rewrites the newest generation in the newest format, as a new generation
///
/// The old generation stays until it is pruned. Refused while a training uses the directory.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A backup directory
    pub place: Place,

    /// Shows what would be written, and changes nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// What was written.
#[derive(Debug, Serialize)]
struct Migrated {
    dry_run: bool,
    place: String,
    from: u64,
    from_format: u32,
    /// `null` if there was nothing to do, or with --dry-run.
    to: Option<u64>,
    to_format: u32,
    bytes: u64,
}

pub fn run(args: &Args, output: &Output) -> Result<Exit> {
    let path = args.place.directory("migrate")?;
    let directory = Directory::open(path)?;
    let old = newest(&directory)?;
    let mut migrated = Migrated::of(args, &old);
    if migrated.has_work() {
        if args.dry_run {
            verify(&old, output)?;
        } else {
            let store = Store::open(path, OpenOptions::default())?;
            // A training may have made a new generation before the directory was locked.
            let old = newest(&directory)?;
            migrated = Migrated::of(args, &old);
            if migrated.has_work() {
                verify(&old, output)?;
                migrated.to = Some(rewrite(&store, &old, output)?);
            }
        }
    }
    output.print(&migrated)?;
    Ok(Exit::Good)
}

fn newest(directory: &Directory) -> Result<Box<OpenGeneration>> {
    let shown = directory.observer.path().display();
    let Some(id) = directory.observer.generations()?.first().copied() else {
        return Err(refuse(
            Exit::NoBackup,
            format!("there is no generation in '{shown}'"),
        ));
    };
    let number = id.number();
    match directory.observer.open(id)? {
        Observation::Manifest(generation) if directory.is_of_another(generation.manifest()) => {
            Err(refuse(
                Exit::Failed,
                format!(
                    "the newest generation, {number}, belongs to another training; nothing was changed: move it to that \
                     training's directory"
                ),
            ))
        }
        Observation::Manifest(generation) => Ok(generation),
        Observation::Damaged(damage) => Err(refuse(
            Exit::Damage,
            format!(
                "the newest generation, {number}, is damaged: {damage}; nothing was changed: start the training \
                 once, which moves it to quarantine, and migrate again"
            ),
        )),
        _ => Err(refuse(
            Exit::InUse,
            format!("generation {number} was pruned meanwhile: a training uses the directory"),
        )),
    }
}

/// Commits the same parts and the same state as the next generation.
fn rewrite(store: &Store, old: &OpenGeneration, output: &Output) -> Result<u64> {
    let state: Box<RawValue> = old.manifest().state()?;
    let mut bar = output.bar("writing", old.manifest().bytes());
    let mut staging = store.stage()?;
    for part in old.parts() {
        let mut writer = staging.part(&part.entry().name)?;
        pieces(part, |piece| {
            bar.add(piece.len() as u64);
            Ok(writer.append(piece)?)
        })?;
        writer.finish()?;
    }
    Ok(staging.commit(state)?.id().number())
}

fn pieces(part: &PartReader, mut append: impl FnMut(Vec<u8>) -> Result<()>) -> Result<()> {
    let mut done = 0;
    while done < part.entry().bytes {
        let mut piece = vec![0; usize::try_from(WINDOW.min(part.entry().bytes - done))?];
        part.read(done, &mut piece)?;
        done += piece.len() as u64;
        append(piece)?;
    }
    Ok(())
}

impl Migrated {
    fn of(args: &Args, old: &OpenGeneration) -> Self {
        Self {
            dry_run: args.dry_run,
            place: args.place.to_string(),
            from: old.id().number(),
            from_format: old.manifest().format,
            to: None,
            to_format: FORMAT_VERSION,
            bytes: old.manifest().bytes(),
        }
    }

    fn has_work(&self) -> bool {
        self.from_format < self.to_format
    }
}

impl Report for Migrated {
    fn show(&self, page: &mut Page) {
        let Self {
            from,
            from_format,
            to_format,
            ..
        } = self;
        match self.to {
            _ if !self.has_work() => {
                page.line(format!("Generation {from} already has format {from_format}: there is nothing to do."));
            }
            None => page.line(format!(
                "Would rewrite generation {from}, {} in format {from_format}, in format {to_format}. Nothing was changed.",
                bytes(self.bytes)
            )),
            Some(to) => {
                page.line(format!(
                    "Generation {to} is a copy of generation {from}, {}, in format {to_format}.",
                    bytes(self.bytes)
                ));
                page.line(format!("`burn-backup prune {} --keep 1` removes the old generations.", self.place));
            }
        }
    }
}
