//! The mirror of the backups. Newer backups are fetched from it at the start, and committed backups are uploaded to
//! it.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use burn_backup_store::{Generation, GenerationId, Manifest, Store, StoreError};

use super::LOG;
use super::transfer::TransferLine;
use crate::error::{BackupError, with_causes};
use crate::event::Event;
use crate::handle::BackupHandle;
use crate::messages::{announce, warn};
use crate::mirror::{Connection, Found, Leftovers, Mirror, MirrorError, MirrorEvent, Mirroring};
use crate::save::Retention;

/// The mirror that the training continues with.
pub(crate) struct Reached {
    connection: Connection,
    /// `None` if the mirror could not be used.
    found: Option<Found>,
    /// The backup that the training resumes from.
    here: Option<GenerationId>,
}

/// Finds the newest backup on the disk and in the mirror. If it is only in the mirror, it is fetched first. `read`
/// reads the newest one on the disk.
pub(crate) fn newest(
    handle: &BackupHandle,
    backup_dir: &Path,
    store: &mut Store,
    read: impl Fn(&Store) -> Result<Option<Generation>, StoreError>,
) -> Result<(Option<Generation>, Option<Reached>), BackupError> {
    let local = read(store);
    let Some(mirror) = handle.mirror() else {
        return Ok((local?, None));
    };
    let here = match &local {
        Ok(generation) => generation.as_ref().map(Generation::id),
        // The mirror may have an intact one.
        Err(StoreError::NoneLeft { .. }) => None,
        Err(_) => return Ok((local?, None)),
    };
    let was_here = here.is_some() || local.is_err();
    let mut connection = mirror.connect()?;
    let found = match connection.find(&store.identity().run_id, was_here) {
        Ok(found) => found,
        Err(error) if error.is_unavailable() => {
            if here.is_none() && !mirror.starts_new_if_unreachable() {
                return Err(BackupError::mirror_unreachable(backup_dir, error));
            }
            warn_without_mirror(handle, &error, here);
            return Ok((
                local?,
                Some(Reached {
                    connection,
                    found: None,
                    here,
                }),
            ));
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(last) = found.finished() {
        // The process was killed between finishing the mirror and deleting the local backup. The training is
        // complete.
        return match here >= Some(last) {
            true => Ok((
                local?,
                Some(Reached {
                    connection,
                    found: Some(found),
                    here,
                }),
            )),
            false => Err(BackupError::finished_elsewhere(&mirror)),
        };
    }
    store.count_from(found.greatest());
    if found.newest() <= here {
        let newest = local?;
        let reached = Reached {
            connection,
            found: Some(found),
            here,
        };
        return Ok((newest, Some(reached)));
    }
    // Free it first, because it may use most of the memory.
    drop(local);
    let mut found = Some(found);
    if let Some(there) = &found
        && let Err(error) = fetch(handle, &mut connection, &mirror, there, here, store)
    {
        if here.is_none() || !(error.is_unavailable() || error.is_none_intact()) {
            return Err(error.into());
        }
        warn_without_mirror(handle, &error, here);
        if !error.is_none_intact() {
            // The newer backup may be intact, so new backups must not replace it.
            found = None;
        }
    }
    let newest = read(store)?;
    let here = newest.as_ref().map(Generation::id);
    let reached = Reached {
        connection,
        found,
        here,
    };
    Ok((newest, Some(reached)))
}

/// The content of a mirror, for a training that requests a particular backup.
pub(super) struct MirrorContent {
    mirror: Mirror,
    connection: Connection,
    /// `None` if the mirror could not be used.
    found: Option<Found>,
    /// The manifests of its backups, newest first.
    pub manifests: Vec<Manifest>,
}

impl MirrorContent {
    /// Whether the mirror says that the training is complete.
    pub(super) fn is_finished(&self) -> bool {
        let found = self.found.as_ref();
        found.is_some_and(|found| found.finished().is_some())
    }
}

/// Reads the mirror, if there is one. `has_backup` says whether there is a backup on the disk. If so, the mirror may
/// be unreachable.
pub(super) fn ask(
    handle: &BackupHandle,
    backup_dir: &Path,
    store: &Store,
    has_backup: bool,
) -> Result<Option<MirrorContent>, BackupError> {
    let Some(mirror) = handle.mirror() else {
        return Ok(None);
    };
    let connection = mirror.connect()?;
    let was_here = has_backup || store.has_backup()?;
    let found = connection.find(&store.identity().run_id, was_here);
    let found = found.and_then(|found| {
        let manifests = connection.manifests(&found)?;
        Ok((found, manifests))
    });
    let (found, manifests) = match found {
        Ok((found, manifests)) => (Some(found), manifests),
        Err(error) if error.is_unavailable() && has_backup => {
            warn(
                handle,
                &format!(
                    "{}; only the backups on this disk are considered",
                    with_causes(&error)
                ),
            );
            (None, Vec::new())
        }
        Err(error) if error.is_unavailable() => {
            return Err(BackupError::mirror_unreachable(backup_dir, error));
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Some(MirrorContent {
        mirror,
        connection,
        found,
        manifests,
    }))
}

/// Goes back to the backup `id`. It is fetched first, unless it `is_here`.
pub(super) fn roll_back(
    handle: &BackupHandle,
    content: Option<MirrorContent>,
    id: GenerationId,
    is_here: bool,
    store: &mut Store,
) -> Result<Option<Reached>, BackupError> {
    let Some(content) = content else {
        return Ok(None);
    };
    let MirrorContent {
        mirror,
        mut connection,
        found,
        ..
    } = content;
    if let Some(found) = &found {
        store.count_from(found.greatest());
        if !is_here {
            let line = TransferLine::new(format!("fetching backup {id} from {mirror}"));
            connection.fetch_only(found, id, store, &mut |transfer| {
                handle.count_progress();
                line.show(transfer.done, transfer.of);
            })?;
            drop(line);
            announce(&format!("backup {id} was fetched from the mirror {mirror}"));
        }
    }
    connection.abandon_up_to(store.greatest());
    Ok(Some(Reached {
        connection,
        found,
        here: Some(id),
    }))
}

/// Warns that the training continues although the mirror can't be used.
fn warn_without_mirror(handle: &BackupHandle, error: &MirrorError, here: Option<GenerationId>) {
    let goes_on = match here {
        Some(_) => "the training resumes from the backup on this disk",
        None => "a new training starts, because Mirror::start_new_if_unreachable is set",
    };
    let message = format!(
        "{}; {goes_on}, and is mirrored once the mirror can be used",
        with_causes(error)
    );
    warn(handle, &message);
}

/// Whether there is a mirror that has a backup.
pub(crate) fn has_backup(handle: &BackupHandle, backup_dir: &Path) -> Result<bool, BackupError> {
    let Some(mirror) = handle.mirror() else {
        return Ok(false);
    };
    match mirror.connect()?.find("", false) {
        Ok(found) => Ok(found.newest().is_some()),
        Err(error) if error.is_unavailable() => match mirror.starts_new_if_unreachable() {
            true => Ok(false),
            false => Err(BackupError::mirror_unreachable(backup_dir, error)),
        },
        Err(error) => Err(error.into()),
    }
}

fn fetch(
    handle: &BackupHandle,
    connection: &mut Connection,
    mirror: &Mirror,
    found: &Found,
    here: Option<GenerationId>,
    store: &mut Store,
) -> Result<(), MirrorError> {
    if let Some((holder, wait)) = found.holder() {
        announce(&format!(
            "the newest backup is in the mirror {mirror}, which {holder} has not released: waiting up to {:.0} s to \
             see whether it is still running",
            wait.as_secs_f64(),
        ));
    }
    let line = TransferLine::new(format!("fetching the newest backup from {mirror}"));
    let id = connection.fetch(found, here, store, &mut |transfer| {
        handle.count_progress();
        line.show(transfer.done, transfer.of);
    });
    drop(line);
    let id = id?;
    announce(&format!("backup {id} was fetched from the mirror {mirror}"));
    Ok(())
}

impl Reached {
    /// Mirrors every backup that is committed to `store` from now on.
    pub(super) fn begin(
        self,
        store: &Arc<Store>,
        retention: Arc<Retention>,
        handle: &BackupHandle,
    ) -> Arc<Mirroring> {
        let events = handle.clone();
        let listener = Box::new(move |event| match event {
            MirrorEvent::Failed(error) => {
                let error = with_causes(error.as_ref());
                let message =
                    format!("a backup could not be mirrored, and will be retried: {error}");
                warn(&events, &message);
                events.send(Event::MirrorFailed { error });
            }
            MirrorEvent::Recovered => announce("the mirror works again"),
            MirrorEvent::Mirrored(id) => events.send_mirrored(id),
            MirrorEvent::Stopped(error) => {
                let error = with_causes(error.as_ref());
                warn(&events, &format!("NOTHING IS MIRRORED ANY MORE: {error}"));
                events.send(Event::MirrorStopped { error });
            }
            #[cfg(feature = "mirror")]
            _ => {}
        });
        let (found, here) = (self.found.as_ref(), self.here);
        let mirroring = self
            .connection
            .mirror(found, store, here, retention, listener);
        handle.mirrors(mirroring.watch());
        Arc::new(mirroring)
    }
}

/// Waits until the newest backup is in the mirror, or until the time `until`. Without a time, it gives up after two
/// failed attempts. `has_second_notice` says whether to give up immediately.
pub(super) fn flush(
    handle: &BackupHandle,
    mirroring: &Mirroring,
    until: Option<Instant>,
    mut has_second_notice: impl FnMut() -> bool,
) -> Result<(), Arc<MirrorError>> {
    let line = TransferLine::new("mirroring the last backup".to_owned());
    let mut sent = 0;
    let flushed = mirroring.flush(until, &mut |transfer| {
        if std::mem::replace(&mut sent, transfer.done) != transfer.done {
            handle.count_progress();
        }
        line.show(transfer.done, transfer.of);
        match has_second_notice() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    drop(line);
    flushed
}

/// Marks the training as finished in the mirror, after its last backup is uploaded. Returns the files that remain to
/// be deleted.
pub(super) fn finish(
    handle: &BackupHandle,
    mirroring: &Mirroring,
    has_second_notice: impl FnMut() -> bool,
) -> Result<Leftovers, Arc<MirrorError>> {
    flush(handle, mirroring, None, has_second_notice)?;
    mirroring.finish()
}

/// Deletes the remaining files of a finished training from the mirror.
pub(super) fn clear(leftovers: Leftovers) {
    if let Err(error) = leftovers.clear() {
        log::warn!(
            target: LOG,
            "the training is finished, but its remaining files in the mirror are not deleted: {}",
            with_causes(&error),
        );
    }
}
