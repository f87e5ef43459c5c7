//! `discard`: deletes a backup, in its directory and in its mirror.

use std::path::{Path, PathBuf};

use anyhow::Result;
use burn_backup_remote::{Connection, Found, Mirror};
use burn_backup_store::{OpenOptions, Store};
use serde::Serialize;

use crate::exit::{Exit, refuse};
use crate::output::{Output, Page, Report};
use crate::place::Place;
use crate::source::Directory;

/// Deletes a backup; its training can't be resumed after that
///
/// Only files of the backup are deleted, and the directory if nothing else is in it. A mirror is marked as finished
/// first, so that no other machine resumes from it. Refused while a training uses the place.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A backup directory or the URL of a mirror
    pub place: Place,

    /// With a directory: also deletes its backup in this mirror
    #[arg(long, value_name = "URL")]
    pub mirror: Option<Place>,

    /// Shows what would be deleted, and changes nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Doesn't ask for confirmation
    #[arg(long)]
    pub yes: bool,
}

/// What was deleted.
#[derive(Debug, Serialize)]
struct Discarded {
    dry_run: bool,
    /// The directory's generations.
    generations: Vec<u64>,
    paths: Vec<PathBuf>,
    mirror: Option<InMirror>,
}

#[derive(Debug, Serialize)]
struct InMirror {
    place: String,
    run_id: String,
    generations: Vec<u64>,
    was_finished: bool,
}

pub fn run(args: &Args, output: &Output) -> Result<Exit> {
    let (path, url) = match (&args.place, &args.mirror) {
        (Place::Directory(path), None) => (Some(path.as_path()), None),
        (Place::Directory(path), Some(Place::Mirror(url))) => (Some(path.as_path()), Some(url)),
        (Place::Mirror(url), None) => (None, Some(url)),
        (Place::Directory(_), Some(Place::Directory(_))) => {
            return Err(refuse(Exit::Usage, "--mirror needs the URL of a mirror"));
        }
        (Place::Mirror(_), Some(_)) => {
            return Err(refuse(
                Exit::Usage,
                "--mirror goes with a directory, but the place is itself a mirror",
            ));
        }
    };
    let directory = path.map(Directory::open).transpose()?;
    let planned = plan(directory.as_ref(), url, args.dry_run)?;
    if args.dry_run {
        output.print(&planned)?;
        return Ok(Exit::Good);
    }
    // The lock comes first: if the directory is in use, there is no question.
    let store = path
        .map(|path| Store::open(path, OpenOptions::default()))
        .transpose()?;
    output.confirm(&planned.question(args), args.yes)?;
    discard(store, url, &planned)?;
    output.print(&planned)?;
    Ok(Exit::Good)
}

/// The mirror comes first: from it, other processes learn that the training is finished.
fn discard(store: Option<Store>, url: Option<&String>, planned: &Discarded) -> Result<()> {
    let leftovers = match (url, &planned.mirror) {
        (Some(url), Some(mirror)) => {
            let connection = Mirror::new(url).connect()?;
            let found = find(&connection, &mirror.run_id)?;
            connection.finish(&found)?
        }
        _ => None,
    };
    if let Some(store) = store {
        store.remove()?;
    }
    if let Some(leftovers) = leftovers {
        leftovers.clear()?;
    }
    Ok(())
}

/// Finds the training in the mirror. Another training there is an error.
fn find(connection: &Connection, run_id: &str) -> Result<Found> {
    Ok(connection.find(run_id, true)?)
}

fn plan(directory: Option<&Directory>, url: Option<&String>, dry_run: bool) -> Result<Discarded> {
    let mut planned = Discarded {
        dry_run,
        generations: Vec::new(),
        paths: Vec::new(),
        mirror: None,
    };
    if let Some(directory) = directory {
        let observer = &directory.observer;
        let ids = observer.generations()?;
        planned.generations = ids.iter().map(|id| id.number()).collect();
        planned.paths = paths(observer.path(), observer.leftovers()?);
    }
    if let Some(url) = url {
        planned.mirror = in_mirror(url, directory)?;
    }
    Ok(planned)
}

/// The existing paths of the backup, in the order in which they are deleted.
fn paths(root: &Path, leftovers: Vec<PathBuf>) -> Vec<PathBuf> {
    let names = ["quarantine", "aside", "generations"].map(|name| root.join(name));
    let files = ["burn-backup.json", "lock"].map(|name| root.join(name));
    let all = names.into_iter().chain(leftovers).chain(files);
    all.filter(|path| path.symlink_metadata().is_ok()).collect()
}

/// The training in the mirror; `None` if the mirror does not have it.
fn in_mirror(url: &str, directory: Option<&Directory>) -> Result<Option<InMirror>> {
    let mirror = Mirror::new(url);
    let trainings = mirror.connect()?.observe()?;
    let identity = directory.and_then(|directory| directory.identity.as_ref());
    let training = match (directory, identity) {
        (Some(_), Some(identity)) => trainings
            .iter()
            .find(|training| training.run_id() == identity.run_id),
        (Some(_), None) => {
            return Err(refuse(
                Exit::Failed,
                "burn-backup.json is missing or damaged, so it is unknown which training in the mirror belongs to this \
                 directory; nothing was changed: discard the mirror by its URL, and then the directory",
            ));
        }
        // A finished training may have left objects behind.
        (None, _) => match trainings.as_slice() {
            [only] => Some(only),
            [] => {
                return Err(refuse(
                    Exit::NoBackup,
                    format!(
                        "there is no backup in {mirror}: the mirror has no training. Check the URL"
                    ),
                ));
            }
            several => {
                let open: Vec<_> = several
                    .iter()
                    .filter(|training| training.finished().is_none())
                    .collect();
                match open.as_slice() {
                    [only] => Some(*only),
                    open => {
                        return Err(refuse(
                            Exit::Failed,
                            format!(
                                "{mirror} has backups of {} trainings; nothing was changed: run 'burn-backup \
                                 discard DIRECTORY --mirror {mirror}' for each",
                                open.len()
                            ),
                        ));
                    }
                }
            }
        },
    };
    Ok(training.map(|training| InMirror {
        place: mirror.to_string(),
        run_id: training.run_id().to_owned(),
        generations: training.generations().map(|id| id.number()).collect(),
        was_finished: training.finished().is_some(),
    }))
}

impl Discarded {
    fn question(&self, args: &Args) -> String {
        let place = match &args.mirror {
            Some(mirror) => format!("'{}' and in {mirror}", args.place),
            None => format!("'{}'", args.place),
        };
        format!("Delete the backup in {place}? Its training can't be resumed after that.")
    }
}

impl Report for Discarded {
    fn show(&self, page: &mut Page) {
        let verb = match self.dry_run {
            true => "Would delete",
            false => "Deleted",
        };
        for path in &self.paths {
            page.line(format!("{verb} '{}'", path.display()));
        }
        if let Some(mirror) = &self.mirror {
            let numbers: Vec<_> = mirror.generations.iter().map(u64::to_string).collect();
            let what = match numbers.as_slice() {
                [] => "what is left".to_owned(),
                [only] => format!("generation {only}"),
                all => format!("the generations {}", all.join(", ")),
            };
            page.line(format!(
                "{verb} {what} of the training {} in {}",
                mirror.run_id, mirror.place
            ));
        }
        if self.dry_run {
            page.line("Nothing was changed.");
        }
    }
}
