//! The mirror of the backups: what is in it is fetched if the disk has less, and what is committed goes there.

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
use crate::mirror::{Connection, Found, Leftovers, Mirror, MirrorError, MirrorEvent, Mirroring};
use crate::save::Retention;
use crate::say::{announce, warn};

/// The mirror that a training goes on with.
pub(crate) struct Reached {
    connection: Connection,
    /// `None` if it could not be used.
    found: Option<Found>,
    /// The backup that the training goes on from.
    here: Option<GenerationId>,
}

/// The newest backup, of those on the disk and in the mirror: one that is in the mirror only is fetched first. `read`
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
        // There may be a whole one in the mirror.
        Err(StoreError::NoneLeft { .. }) => None,
        Err(_) => return Ok((local?, None)),
    };
    let was_here = here.is_some() || local.is_err();
    let mut connection = mirror.connect()?;
    let found = match connection.find(&store.identity().run_id, was_here) {
        Ok(found) => found,
        Err(error) if error.is_unavailable() => {
            if here.is_none() && !mirror.begins_anew_if_unreachable() {
                return Err(BackupError::mirror_unreachable(backup_dir, error));
            }
            go_on_without(handle, &error, here);
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
        // Killed between the two: this is the end of the training, and the mirror knows of it.
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
    // It may be as large as all the memory that there is.
    drop(local);
    let mut found = Some(found);
    if let Some(there) = &found
        && let Err(error) = fetch(handle, &mut connection, &mirror, there, here, store)
    {
        if here.is_none() || !(error.is_unavailable() || error.is_none_whole()) {
            return Err(error.into());
        }
        go_on_without(handle, &error, here);
        if !error.is_none_whole() {
            // The newer one may be whole. What this training makes must not take its place.
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

/// What a mirror has, for a training that asks for a certain backup.
pub(super) struct Asked {
    mirror: Mirror,
    connection: Connection,
    /// `None` if it could not be used.
    found: Option<Found>,
    /// Of the backups in it, newest first.
    pub manifests: Vec<Manifest>,
}

impl Asked {
    /// Whether the mirror says that the training has run to its end.
    pub(super) fn is_finished(&self) -> bool {
        let found = self.found.as_ref();
        found.is_some_and(|found| found.finished().is_some())
    }
}

/// Looks into the mirror, if there is one. `has_backup` says whether there is a backup on the disk: then the mirror
/// may be out of reach.
pub(super) fn ask(
    handle: &BackupHandle,
    backup_dir: &Path,
    store: &Store,
    has_backup: bool,
) -> Result<Option<Asked>, BackupError> {
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
                    "{}; only the backups on this disk are looked at",
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
    Ok(Some(Asked {
        mirror,
        connection,
        found,
        manifests,
    }))
}

/// The training goes back to the backup `id`, which is fetched unless it `is_here`.
pub(super) fn go_back(
    handle: &BackupHandle,
    asked: Option<Asked>,
    id: GenerationId,
    is_here: bool,
    store: &mut Store,
) -> Result<Option<Reached>, BackupError> {
    let Some(asked) = asked else {
        return Ok(None);
    };
    let Asked {
        mirror,
        mut connection,
        found,
        ..
    } = asked;
    if let Some(found) = &found {
        store.count_from(found.greatest());
        if !is_here {
            let line = TransferLine::new(format!("fetching backup {id} from {mirror}"));
            connection.fetch_only(found, id, store, &mut |transfer| {
                handle.lives();
                line.show(transfer.done, transfer.of);
            })?;
            drop(line);
            announce(&format!("backup {id} was fetched from the mirror {mirror}"));
        }
    }
    connection.leave_behind(store.greatest());
    Ok(Some(Reached {
        connection,
        found,
        here: Some(id),
    }))
}

/// Says that the training goes on although the mirror can't be used.
fn go_on_without(handle: &BackupHandle, error: &MirrorError, here: Option<GenerationId>) {
    let goes_on = match here {
        Some(_) => "the training goes on from the backup on this disk",
        None => "the training is begun anew, as Mirror::begin_anew_if_unreachable says",
    };
    let message = format!(
        "{}; {goes_on}, and is mirrored once the mirror can be used",
        with_causes(error)
    );
    warn(handle, &message);
}

/// Whether there is a mirror, and a backup in it.
pub(crate) fn has_backup(handle: &BackupHandle, backup_dir: &Path) -> Result<bool, BackupError> {
    let Some(mirror) = handle.mirror() else {
        return Ok(false);
    };
    match mirror.connect()?.find("", false) {
        Ok(found) => Ok(found.newest().is_some()),
        Err(error) if error.is_unavailable() => match mirror.begins_anew_if_unreachable() {
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
            "the newest backup is in the mirror {mirror}, which {holder} has not let go of: waiting up to {:.0} s to see \
             whether that still runs",
            wait.as_secs_f64(),
        ));
    }
    let line = TransferLine::new(format!("fetching the newest backup from {mirror}"));
    let id = connection.fetch(found, here, store, &mut |transfer| {
        handle.lives();
        line.show(transfer.done, transfer.of);
    });
    drop(line);
    let id = id?;
    announce(&format!("backup {id} was fetched from the mirror {mirror}"));
    Ok(())
}

impl Reached {
    /// Mirrors what is committed to `store` from now on.
    pub(super) fn begin(
        self,
        store: &Arc<Store>,
        retention: Arc<Retention>,
        handle: &BackupHandle,
    ) -> Arc<Mirroring> {
        let told = handle.clone();
        let listener = Box::new(move |event| match event {
            MirrorEvent::Failed(error) => {
                let error = with_causes(error.as_ref());
                let message =
                    format!("a backup could not be mirrored, and is tried again: {error}");
                warn(&told, &message);
                told.tell(Event::MirrorFailed { error });
            }
            MirrorEvent::Recovered => announce("the mirror works again"),
            MirrorEvent::Mirrored(id) => told.tells_mirrored(id),
            MirrorEvent::Stopped(error) => {
                let error = with_causes(error.as_ref());
                warn(&told, &format!("NOTHING IS MIRRORED ANY MORE: {error}"));
                told.tell(Event::MirrorStopped { error });
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

/// Waits until the newest backup is in the mirror, or it is `until`. Without a time, it gives up after two failed
/// tries. `is_urged` says whether there is no more time all the same.
pub(super) fn flush(
    handle: &BackupHandle,
    mirroring: &Mirroring,
    until: Option<Instant>,
    mut is_urged: impl FnMut() -> bool,
) -> Result<(), Arc<MirrorError>> {
    let line = TransferLine::new("mirroring the last backup".to_owned());
    let mut sent = 0;
    let flushed = mirroring.flush(until, &mut |transfer| {
        if std::mem::replace(&mut sent, transfer.done) != transfer.done {
            handle.lives();
        }
        line.show(transfer.done, transfer.of);
        match is_urged() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    drop(line);
    flushed
}

/// Marks the training as finished in the mirror, after its last backup is there. Gives what is left to be deleted.
pub(super) fn finish(
    handle: &BackupHandle,
    mirroring: &Mirroring,
    is_urged: impl FnMut() -> bool,
) -> Result<Leftovers, Arc<MirrorError>> {
    flush(handle, mirroring, None, is_urged)?;
    mirroring.finish()
}

/// Deletes what is left of a finished training in the mirror.
pub(super) fn clear(leftovers: Leftovers) {
    if let Err(error) = leftovers.clear() {
        log::warn!(
            target: LOG,
            "what is left in the mirror of the finished training is not deleted: {}",
            with_causes(&error),
        );
    }
}
