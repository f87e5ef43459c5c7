//! The backup that a training goes on from: the newest one, or the one that its program asks for.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use burn_backup_store::{Generation, GenerationId, Manifest, Store};

use super::mirror::{self, Asked, Reached};
use super::transfer::TransferLine;
use crate::burn_api::burnpack::PerTensor;
use crate::error::BackupError;
use crate::keep::Candidate;
use crate::part;
use crate::save::candidate;
use crate::say::announce;
use crate::settings::BackupAndRestore;
use crate::state::{Fork, TrainingState};
use crate::which::Which;

/// What a training goes on from.
pub(super) struct Choice {
    pub generation: Option<Generation>,
    pub mirror: Option<Reached>,
    /// Whether it goes back to it.
    pub goes_back: bool,
}

/// What is there, on this disk or in the mirror.
struct Inventory {
    newest_first: Vec<GenerationId>,
    known: BTreeMap<GenerationId, Candidate>,
    /// What the newest one says.
    newest: Option<TrainingState>,
}

/// Chooses the backup, and reads it. Nothing but what is fetched from the mirror is changed.
pub(super) fn choose(
    settings: &BackupAndRestore,
    store: &mut Store,
) -> Result<Choice, BackupError> {
    let chunking = PerTensor(part::OPTIMIZER);
    let (handle, dir) = (&settings.handle, &settings.backup_dir);
    let which = &settings.restore_from;
    if *which != Which::Newest {
        let here = store.manifests()?;
        let asked = mirror::ask(handle, dir, store, !here.is_empty())?;
        let there = asked.as_ref().map_or(&[][..], |asked| &asked.manifests);
        let inventory = Inventory::of(&here, there, which);
        let is_finished = asked.as_ref().is_some_and(Asked::is_finished);
        let has_gone_back = inventory
            .newest
            .as_ref()
            .is_some_and(|newest| newest.has_forked(&which.key()));
        if !is_finished && !has_gone_back {
            let id = inventory.find(settings)?;
            let is_here = here.iter().any(|manifest| manifest.generation == id);
            let mirror = mirror::go_back(handle, asked, id, is_here, store)?;
            return Ok(Choice {
                generation: Some(read_one(settings, store, id)?),
                mirror,
                goes_back: true,
            });
        }
        if has_gone_back {
            log::info!(
                target: super::LOG,
                "restore_from asks for {which}, and the training has gone back to it before: it goes on from the newest \
                 backup",
            );
        }
    }
    let read = |store: &Store| {
        let line = TransferLine::new("reading the newest backup".to_owned());
        store.newest_watched(&chunking, &|read| {
            handle.lives();
            line.show(read.done, read.of);
        })
    };
    let (generation, mirror) = mirror::newest(handle, dir, store, read)?;
    Ok(Choice {
        generation,
        mirror,
        goes_back: false,
    })
}

fn read_one(
    settings: &BackupAndRestore,
    store: &Store,
    id: GenerationId,
) -> Result<Generation, BackupError> {
    let line = TransferLine::new(format!("reading backup {id}"));
    let read = store.generation(id, &PerTensor(part::OPTIMIZER), &|read| {
        settings.handle.lives();
        line.show(read.done, read.of);
    });
    Ok(read?)
}

impl Inventory {
    fn of(here: &[Manifest], there: &[Manifest], which: &Which) -> Self {
        let mut manifests: Vec<_> = here.iter().chain(there).collect();
        manifests.sort_by_key(|manifest| Reverse(manifest.generation));
        manifests.dedup_by_key(|manifest| manifest.generation);
        let newest = manifests.first();
        let newest: Option<TrainingState> = newest.and_then(|manifest| manifest.state().ok());
        // A mirror has what was left behind before in the same place. It can be named by its number.
        let forks = newest.as_ref().map_or(&[][..], |newest| &newest.forks);
        let is_left = |id| forks.iter().any(|fork| fork.has_left(id));
        if !matches!(which, Which::Generation(_)) {
            manifests.retain(|manifest| !is_left(manifest.generation));
        }
        let known = manifests.iter().filter_map(|manifest| {
            let candidate = candidate(manifest)?;
            Some((manifest.generation, candidate))
        });
        Self {
            known: known.collect(),
            newest_first: manifests
                .iter()
                .map(|manifest| manifest.generation)
                .collect(),
            newest,
        }
    }

    fn find(&self, settings: &BackupAndRestore) -> Result<GenerationId, BackupError> {
        let which = &settings.restore_from;
        let found = which.find(&self.newest_first, &self.known);
        found.ok_or_else(|| no_such_backup(settings, which, &self.newest_first, &self.known))
    }
}

fn no_such_backup(
    settings: &BackupAndRestore,
    which: &Which,
    newest_first: &[GenerationId],
    known: &BTreeMap<GenerationId, Candidate>,
) -> BackupError {
    BackupError::NoSuchBackup {
        path: settings.backup_dir.clone(),
        asked: which.to_string(),
        found: which.describe(newest_first, known),
    }
}

/// The training has gone back to the backup `from`: what is newer is moved out of the way, and all that follows says
/// so. Without a request, it no longer asks for what it went back to before.
pub(super) fn fork(
    settings: &BackupAndRestore,
    store: &Store,
    from: GenerationId,
    goes_back: bool,
    state: &mut TrainingState,
) -> Result<(), BackupError> {
    let which = &settings.restore_from;
    if *which == Which::Newest {
        if let Some(fork) = state.forks.last_mut() {
            fork.request = None;
        }
        return Ok(());
    }
    if goes_back {
        let moved = store.set_aside_newer(from)?;
        announce(&format!(
            "the training goes back to backup {from} at {}, as restore_from asks for {which}{}",
            state.position,
            moved_aside(&moved, settings),
        ));
    }
    let request = which.key();
    if !state.has_forked(&request) {
        state.forks.push(Fork {
            request: Some(request),
            from,
            last: store.greatest().max(from),
        });
    }
    Ok(())
}

fn moved_aside(moved: &[GenerationId], settings: &BackupAndRestore) -> String {
    let aside = settings.backup_dir.join("aside");
    let aside = aside.display();
    match moved {
        [] => String::new(),
        [only] => format!("; the newer one, {only}, is moved to '{aside}'"),
        [first, .., last] => format!(
            "; the {} newer ones, {first} to {last}, are moved to '{aside}'",
            moved.len(),
        ),
    }
}
