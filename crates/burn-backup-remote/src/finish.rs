//! The end of a training: its backups are needed no longer, and must not come back.

use std::collections::BTreeSet;

use burn_backup_store::GenerationId;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::document::{self, FORMAT};
use crate::error::MirrorError;
use crate::keys::{Keys, Kind, parse};
use crate::lease::Lease;
use crate::place::{Place, Put};
use crate::prune::Broom;

/// `finished.json`. It stays: what a process that was asleep puts later belongs to a training that has ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FinishedDocument {
    format: u32,
    epoch: u64,
    nonce: String,
    /// The newest generation: that of the end.
    pub newest: GenerationId,
}

impl FinishedDocument {
    /// That of the training, if it is finished.
    pub(crate) async fn get(place: &Place, keys: &Keys) -> Result<Option<Self>, MirrorError> {
        let path = keys.finished();
        let object = place.get(&path).await?;
        let read = object.map(|object| document::read(place, &path, &object.bytes));
        read.transpose()
    }
}

/// Marks the training as finished. From then on nothing of it is read.
///
/// # Errors
///
/// [`MirrorError::LeaseLost`], and errors of requests: the backups are as they were.
pub(crate) async fn finish(place: &Place, keys: &Keys, lease: &Lease) -> Result<(), MirrorError> {
    lease.rename(|_| ()).await?;
    let newest = lease.generations().await;
    let newest = newest.iter().map(|ordinal| ordinal.number).max();
    let document = FinishedDocument {
        format: FORMAT,
        epoch: lease.epoch().await,
        nonce: lease.nonce().to_owned(),
        newest: newest.unwrap_or_default(),
    };
    let path = keys.finished();
    let put = place.put(&path, document::write(&document), lease.if_absent());
    match put.await {
        // Whoever it was: it is finished.
        Ok(Put::Done(_) | Put::Refused) => Ok(()),
        Err(error) => match place.head(&path).await {
            Ok(Some(_)) => Ok(()),
            _ => Err(error),
        },
    }
}

/// Deletes all that is left of a training that is finished: the documents, the parts, and the lease. `known` are
/// objects that a listing may not have yet. What can't be deleted is left to the next training in the same mirror.
///
/// # Errors
///
/// Those of the listing.
pub(crate) async fn clear(
    place: &Place,
    keys: &Keys,
    known: BTreeSet<Path>,
    broom: &mut Broom,
) -> Result<(), MirrorError> {
    let listed = place.list(keys.root()).await?;
    let listed = listed.into_iter().map(|object| object.location);
    let all: BTreeSet<Path> = listed.chain(known).collect();
    let is = |kind: fn(&Kind) -> bool| {
        let place = place.clone();
        move |path: &&Path| parse(&place.prefix, path).is_some_and(|(_, found)| kind(&found))
    };
    let documents = all
        .iter()
        .filter(is(|kind| matches!(kind, Kind::Generation(_))));
    let parts = all.iter().filter(is(|kind| matches!(kind, Kind::Part(_))));
    for path in documents.chain(parts) {
        broom.sweep(place, path).await;
    }
    broom.sweep(place, &keys.lease()).await;
    Ok(())
}
