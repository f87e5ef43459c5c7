//! Chooses the backup to resume from: the newest one, or the one that the program requests.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use burn_backup_store::{Generation, GenerationId, Manifest, Store};

use super::mirror::{self, MirrorContent, Reached};
use super::transfer::TransferLine;
use crate::burn_api::burnpack::PerTensor;
use crate::error::BackupError;
use crate::keep::Candidate;
use crate::messages::announce;
use crate::part;
use crate::save::candidate;
use crate::settings::BackupAndRestore;
use crate::state::{Fork, TrainingState};
use crate::which::Which;

/// The backup to resume from.
pub(super) struct Choice {
    pub generation: Option<Generation>,
    pub mirror: Option<Reached>,
    /// Whether the training goes back to an older backup.
    pub rolls_back: bool,
}

/// The backups on this disk and in the mirror.
struct Inventory {
    newest_first: Vec<GenerationId>,
    known: BTreeMap<GenerationId, Candidate>,
    /// The training state in the newest backup.
    newest: Option<TrainingState>,
}

/// Chooses the backup and reads it. Changes nothing except that it may fetch backups from the mirror.
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
        let is_finished = asked.as_ref().is_some_and(MirrorContent::is_finished);
        let has_gone_back = inventory
            .newest
            .as_ref()
            .is_some_and(|newest| newest.has_forked(&which.key()));
        if !is_finished && !has_gone_back {
            let id = inventory.find(settings)?;
            let is_here = here.iter().any(|manifest| manifest.generation == id);
            let mirror = mirror::roll_back(handle, asked, id, is_here, store)?;
            return Ok(Choice {
                generation: Some(read_one(settings, store, id)?),
                mirror,
                rolls_back: true,
            });
        }
        if has_gone_back {
            log::info!(
                target: super::LOG,
                "restore_from asks for {which}, but the training has already gone back to it: it resumes from the newest \
                 backup",
            );
        }
    }
    let read = |store: &Store| {
        let line = TransferLine::new("reading the newest backup".to_owned());
        store.newest_watched(&chunking, &|read| {
            handle.count_progress();
            line.show(read.done, read.of);
        })
    };
    let (generation, mirror) = mirror::newest(handle, dir, store, read)?;
    Ok(Choice {
        generation,
        mirror,
        rolls_back: false,
    })
}

fn read_one(
    settings: &BackupAndRestore,
    store: &Store,
    id: GenerationId,
) -> Result<Generation, BackupError> {
    let line = TransferLine::new(format!("reading backup {id}"));
    let read = store.generation(id, &PerTensor(part::OPTIMIZER), &|read| {
        settings.handle.count_progress();
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
        // A mirror may still hold backups that an earlier rollback abandoned. They can be requested only by
        // number.
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

/// Records that the training went back to the backup `from`: newer backups are moved aside, and all later backups
/// note the request. Without a request, the last recorded request is cleared.
pub(super) fn fork(
    settings: &BackupAndRestore,
    store: &Store,
    from: GenerationId,
    rolls_back: bool,
    state: &mut TrainingState,
) -> Result<(), BackupError> {
    let which = &settings.restore_from;
    if *which == Which::Newest {
        if let Some(fork) = state.forks.last_mut() {
            fork.request = None;
        }
        return Ok(());
    }
    if rolls_back {
        let moved = store.set_aside_newer(from)?;
        announce(&format!(
            "the training goes back to backup {from} at {}, because restore_from asks for {which}{}",
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
        [only] => format!("; the newer backup {only} was moved to '{aside}'"),
        [first, .., last] => format!(
            "; the {} newer backups, {first} to {last}, were moved to '{aside}'",
            moved.len(),
        ),
    }
}
