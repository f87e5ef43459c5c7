//! `pull`: copies the newest whole generation of a mirror into a directory.

use std::path::Path;

use anyhow::{Context as _, Result};
use burn_backup_remote::{Mirror, MirrorError, MirroredTraining, Transfer};
use burn_backup_store::{GenerationId, Identity, Observation, Observer, OpenOptions, Store};
use serde::Serialize;

use crate::exit::{Exit, refuse};
use crate::output::{Output, Page, Report, bytes};
use crate::place::Place;
use crate::source::only;

/// Copies the newest whole generation of a mirror into a directory
///
/// The mirror is not changed. The directory is created if it is missing. Refused while a training uses the directory.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory: it has a backup of the same training, or is empty or missing
    pub place: Place,

    /// The URL of the mirror
    #[arg(long, value_name = "URL")]
    pub from: Place,

    /// Shows what would be copied, and changes nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// What was copied.
#[derive(Debug, Serialize)]
struct Pulled {
    dry_run: bool,
    from: String,
    /// The directory's newest generation before the copy.
    here: Option<u64>,
    /// `null` if the mirror had no newer generation.
    pulled: Option<u64>,
    bytes: u64,
    damaged: Vec<u64>,
}

pub fn run(args: &Args, output: &Output) -> Result<Exit> {
    let path = args.place.directory("pull")?;
    let Place::Mirror(url) = &args.from else {
        return Err(refuse(Exit::Usage, "--from needs the URL of a mirror"));
    };
    let here = LocalBackup::find(path)?;
    let mirror = Mirror::new(url);
    let connection = mirror.connect()?;
    let training = training(&mirror, connection.observe()?, &here)?;
    if let Some((holder, _)) = training.holder() {
        output.warn(format!(
            "{holder} holds the lease of {mirror}: it is still training, or was killed. Stop it before you resume \
             from the copy, because only one process of a training can mirror at a time"
        ));
    }
    let mut pulled = Pulled {
        dry_run: args.dry_run,
        from: mirror.to_string(),
        here: here.newest.map(GenerationId::number),
        pulled: None,
        bytes: 0,
        damaged: Vec::new(),
    };
    let newer: Vec<_> = training
        .generations()
        .filter(|id| Some(*id) > here.newest)
        .collect();
    let mut store = match newer.is_empty() || args.dry_run {
        true => None,
        false => Some(Store::open(path, OpenOptions::default())?),
    };
    for id in &newer {
        let mut bar = output.bar(&format!("pulling generation {}", id.number()), 0);
        let on_transfer = &mut |transfer: Transfer| bar.set(transfer.done, transfer.of);
        let copied = connection.manifest(&training, *id).and_then(|manifest| {
            if let Some(store) = &mut store {
                connection.copy(&training, *id, store, on_transfer)?;
            }
            Ok(manifest.bytes())
        });
        drop(bar);
        match copied {
            Ok(bytes) => {
                (pulled.pulled, pulled.bytes) = (Some(id.number()), bytes);
                break;
            }
            Err(MirrorError::Pruned { .. }) => {}
            Err(error) if error.is_damage() => {
                output.warn(format!(
                    "generation {} in the mirror is left out: {error}",
                    id.number()
                ));
                pulled.damaged.push(id.number());
            }
            Err(error) => return Err(error.into()),
        }
    }
    output.print(&pulled)?;
    Ok(
        match (
            pulled.pulled,
            newer.len() == pulled.damaged.len(),
            pulled.damaged.is_empty(),
        ) {
            (_, _, false) => Exit::Damage,
            (None, false, true) => Exit::Failed,
            _ => Exit::Good,
        },
    )
}

/// The existing contents of the directory.
struct LocalBackup {
    identity: Option<Identity>,
    newest: Option<GenerationId>,
    has_backup: bool,
}

impl LocalBackup {
    fn find(path: &Path) -> Result<Self> {
        let observer = Observer::new(path)?;
        let identity = observer.identity()?;
        let generations = observer.generations()?;
        let has_backup = !generations.is_empty() || !observer.quarantined()?.is_empty();
        if identity.is_none() && !has_backup && !is_free(observer.path())? {
            return Err(refuse(
                Exit::NoBackup,
                format!(
                    "'{}' has files but no backup; nothing was changed: give an empty or a new directory",
                    observer.path().display()
                ),
            ));
        }
        // A damaged generation does not count.
        let mut newest = None;
        for id in generations {
            if let Observation::Manifest(_) = observer.open(id)? {
                newest = Some(id);
                break;
            }
        }
        Ok(Self {
            identity,
            newest,
            has_backup,
        })
    }
}

/// Whether the directory is missing or empty.
fn is_free(path: &Path) -> Result<bool> {
    if !path.exists() {
        return Ok(true);
    }
    let mut entries = path
        .read_dir()
        .with_context(|| format!("cannot list '{}'", path.display()))?;
    Ok(entries.next().is_none())
}

/// The training in the mirror that the directory belongs to.
fn training(
    mirror: &Mirror,
    mut trainings: Vec<MirroredTraining>,
    here: &LocalBackup,
) -> Result<MirroredTraining> {
    let Some(identity) = here.identity.as_ref().filter(|_| here.has_backup) else {
        return only(&mirror.to_string(), trainings);
    };
    if let Some(at) = trainings
        .iter()
        .position(|training| training.run_id() == identity.run_id)
    {
        return only(&mirror.to_string(), vec![trainings.swap_remove(at)]);
    }
    let other = only(&mirror.to_string(), trainings)?;
    Err(refuse(
        Exit::Failed,
        format!(
            "{mirror} has a backup of the training {}, but the directory has one of {}; nothing was changed: give each training its own directory",
            other.run_id(),
            identity.run_id
        ),
    ))
}

impl Report for Pulled {
    fn show(&self, page: &mut Page) {
        match (self.pulled, self.dry_run) {
            (Some(number), true) => page.line(format!(
                "Would copy generation {number}, {}, from {}. Nothing was changed.",
                bytes(self.bytes),
                self.from
            )),
            (Some(number), false) => {
                page.line(format!(
                    "Copied generation {number}, {}, from {}.",
                    bytes(self.bytes),
                    self.from
                ));
            }
            (None, _) if !self.damaged.is_empty() => {
                page.line(format!(
                    "Nothing was copied: the newer generations in {} are damaged.",
                    self.from
                ));
            }
            (None, _) => page.line(match self.here {
                Some(here) => format!("{} has nothing newer than generation {here}.", self.from),
                None => format!("{} has no generation yet.", self.from),
            }),
        }
    }
}
