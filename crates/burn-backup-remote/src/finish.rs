//! The end of a training: its backups are no longer needed, and must not be restored again.

use std::collections::BTreeSet;

use burn_backup_store::GenerationId;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::document::{self, FORMAT};
use crate::error::MirrorError;
use crate::keys::{Keys, Kind, parse};
use crate::lease::Lease;
use crate::place::{Place, Put};
use crate::prune::Deleter;

/// `finished.json`. It stays in the mirror, so that what a suspended process puts later belongs to a finished training.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FinishedDocument {
    format: u32,
    epoch: u64,
    nonce: String,
    /// The newest generation, from the end of the training.
    pub newest: GenerationId,
}

impl FinishedDocument {
    /// The document of the training, if it is finished.
    pub(crate) async fn get(place: &Place, keys: &Keys) -> Result<Option<Self>, MirrorError> {
        let path = keys.finished();
        let object = place.get(&path).await?;
        let read = object.map(|object| document::read(place, &path, &object.bytes));
        read.transpose()
    }
}

/// Marks the training as finished. From then on, nothing of it is read.
///
/// # Errors
///
/// [`MirrorError::LeaseLost`], [`MirrorError::LeaseDeleted`], and errors of requests. The backups are then unchanged.
pub(crate) async fn finish(place: &Place, keys: &Keys, lease: &Lease) -> Result<(), MirrorError> {
    lease.update_generations(|_| ()).await?;
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
        // The training is finished, even if another process has marked it.
        Ok(Put::Done(_) | Put::Refused) => Ok(()),
        Err(error) => match place.head(&path).await {
            Ok(Some(_)) => Ok(()),
            _ => Err(error),
        },
    }
}

/// Deletes the rest of a finished training: the documents, the parts, and the lease. `known` are objects that a listing
/// may not have yet. The next training in the same mirror deletes what can't be deleted now.
///
/// # Errors
///
/// The errors of the listing.
pub(crate) async fn clear(
    place: &Place,
    keys: &Keys,
    known: BTreeSet<Path>,
    deleter: &mut Deleter,
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
        deleter.sweep(place, path).await;
    }
    deleter.sweep(place, &keys.lease()).await;
    Ok(())
}
