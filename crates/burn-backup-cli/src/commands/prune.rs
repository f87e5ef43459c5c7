//! `prune`: removes all generations except the newest ones.

use anyhow::Result;
use burn_backup_store::{GenerationId, Observation, OpenOptions, Store};
use serde::Serialize;

use crate::exit::{Exit, refuse};
use crate::output::{Output, Page, Report, bytes};
use crate::place::Place;
use crate::source::{Directory, verify};

/// Removes all generations except the newest ones
///
/// The newest generation is verified first: if it is damaged, nothing is removed. Refused while a training uses the
/// directory.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A backup directory
    pub place: Place,

    /// How many generations to keep
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(1..))]
    pub keep: u64,

    /// Shows what would be removed, and changes nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Doesn't ask for confirmation
    #[arg(long)]
    pub yes: bool,
}

/// What was pruned.
#[derive(Debug, Serialize)]
struct Pruned {
    dry_run: bool,
    newest: u64,
    removed: Vec<Removed>,
}

#[derive(Debug, Serialize)]
struct Removed {
    number: u64,
    path: String,
    bytes: Option<u64>,
}

pub fn run(args: &Args, output: &Output) -> Result<Exit> {
    let path = args.place.directory("prune")?;
    let directory = Directory::open(path)?;
    let keep = usize::try_from(args.keep).unwrap_or(usize::MAX);
    let planned = plan(&directory, keep, args.dry_run)?;
    if args.dry_run || planned.removed.is_empty() {
        if args.dry_run {
            verify(&*newest(&directory)?, output)?;
        }
        output.print(&planned)?;
        return Ok(Exit::Good);
    }
    let store = Store::open(path, OpenOptions::default())?;
    let planned = plan(&directory, keep, false)?;
    output.confirm(&question(&planned), args.yes)?;
    let newest = newest(&directory)?;
    let total = newest.manifest().bytes();
    let mut bar = output.bar(
        &format!("verifying generation {}", newest.id().number()),
        total,
    );
    let pruned = store.prune_beside(&newest, keep, &mut |read| bar.add(read))?;
    drop((bar, store));
    let done = Pruned {
        removed: planned
            .removed
            .into_iter()
            .filter(|removed| is_in(&pruned, removed.number))
            .collect(),
        ..planned
    };
    output.print(&done)?;
    Ok(Exit::Good)
}

fn is_in(pruned: &[GenerationId], number: u64) -> bool {
    pruned.contains(&GenerationId::new(number))
}

fn question(planned: &Pruned) -> String {
    let numbers: Vec<_> = planned
        .removed
        .iter()
        .map(|removed| removed.number.to_string())
        .collect();
    match numbers.as_slice() {
        [only] => format!("Remove generation {only}?"),
        all => format!("Remove the generations {}?", all.join(", ")),
    }
}

/// The newest generation. If its manifest is damaged, nothing is pruned, because older generations are still needed.
fn newest(directory: &Directory) -> Result<Box<burn_backup_store::OpenGeneration>> {
    let Some(id) = directory.observer.generations()?.first().copied() else {
        return Err(refuse(
            Exit::NoBackup,
            format!(
                "there is no generation in '{}'",
                directory.observer.path().display()
            ),
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
                "the newest generation, {number}, is damaged: {damage}; nothing was changed: the next start of the \
                 training moves it to quarantine, and prunes"
            ),
        )),
        _ => Err(refuse(
            Exit::InUse,
            format!("generation {number} was pruned meanwhile: a training uses the directory"),
        )),
    }
}

fn plan(directory: &Directory, keep: usize, dry_run: bool) -> Result<Pruned> {
    let newest = newest(directory)?;
    let observer = &directory.observer;
    let mut removed = Vec::new();
    for id in observer.to_prune(keep)? {
        let (path, bytes) = match observer.open(id)? {
            Observation::Manifest(generation) => (
                generation.path().to_path_buf(),
                Some(generation.manifest().bytes()),
            ),
            _ => (
                observer.path().join("generations").join(id.to_string()),
                None,
            ),
        };
        removed.push(Removed {
            number: id.number(),
            path: path.display().to_string(),
            bytes,
        });
    }
    Ok(Pruned {
        dry_run,
        newest: newest.id().number(),
        removed,
    })
}

impl Report for Pruned {
    fn show(&self, page: &mut Page) {
        let verb = match self.dry_run {
            true => "Would remove",
            false => "Removed",
        };
        for removed in &self.removed {
            let size = removed
                .bytes
                .map(|size| format!(", {}", bytes(size)))
                .unwrap_or_default();
            page.line(format!("{verb} generation {}{size}", removed.number));
        }
        if self.removed.is_empty() {
            page.line("There is nothing to prune.");
        } else if self.dry_run {
            page.line(format!(
                "Generation {} is whole. Nothing was changed.",
                self.newest
            ));
        }
    }
}
