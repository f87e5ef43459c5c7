//! Fetches a generation from the mirror in ranges, several at a time. Each range is verified as it arrives.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use burn_backup_store::{GenerationId, Manifest, PartEntry, Store};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use object_store::path::Path;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use crate::document::Document;
use crate::error::{Damage, MirrorError};
use crate::keys::{Keys, Ordinal};
use crate::place::Place;

/// How many ranges are requested at the same time.
const CONCURRENCY: usize = 4;

/// How long to wait before a range that failed to arrive intact is requested again.
const RETRIES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(2)];

/// How many arrived ranges may wait to be written.
const WAITING: usize = 4;

/// The progress of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Transfer {
    /// The number of bytes transferred.
    pub done: u64,
    /// The total number of bytes.
    pub of: u64,
}

/// A generation that is about to be fetched.
pub(crate) struct Prepared {
    pub sealed: String,
    pub manifest: Manifest,
    pub plan: Plan,
}

/// Finds out what must be fetched for a generation.
///
/// # Errors
///
/// [`MirrorError::Damaged`] and [`StoreError::Damaged`](burn_backup_store::StoreError::Damaged) if its document is
/// damaged, the errors for newer formats, and errors of requests.
pub(crate) async fn prepare(
    place: &Place,
    keys: &Keys,
    ordinal: Ordinal,
) -> Result<Prepared, MirrorError> {
    let path = keys.generation(ordinal);
    let document = Document::get(place, &path, ordinal).await?;
    let manifest = Manifest::unseal(document.manifest.as_bytes())?;
    let plan = Plan::new(keys, &document, &manifest);
    let plan = plan.filter(|_| manifest.generation == ordinal.number);
    let plan = plan.ok_or_else(|| {
        let reason = Damage::Contents("it is inconsistent".to_owned());
        place.damaged(&path, reason)
    })?;
    Ok(Prepared {
        sealed: document.manifest,
        manifest,
        plan,
    })
}

/// Adopts a generation into `store`. `next` returns its blocks in order.
///
/// # Errors
///
/// The errors of `next`, and the errors of the store, which then has no new generation.
pub(crate) fn adopt(
    store: &mut Store,
    sealed: &[u8],
    manifest: &Manifest,
    mut next: impl FnMut() -> Result<Bytes, MirrorError>,
    on_transfer: &mut dyn FnMut(Transfer),
) -> Result<GenerationId, MirrorError> {
    store.become_run(&manifest.run_id, manifest.run_seed)?;
    let mut adoption = store.adopt(sealed)?;
    let mut transfer = Transfer {
        done: 0,
        of: manifest.bytes(),
    };
    for entry in &manifest.parts {
        let mut part = adoption.part(entry)?;
        for _ in blocks(entry.bytes) {
            let bytes = next()?;
            transfer.done += bytes.len() as u64;
            part.append(bytes)?;
            on_transfer(transfer);
        }
        part.finish()?;
    }
    Ok(adoption.commit()?.id())
}

/// A block of a part. While it exists, it counts as waiting.
pub(crate) struct Block {
    bytes: Bytes,
    _waiting: OwnedSemaphorePermit,
}

impl Block {
    pub(crate) fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

/// The place of one block of a part.
struct Range {
    entry: Arc<PartEntry>,
    path: Path,
    number: usize,
    offset: u64,
    bytes: u64,
}

/// Fetches the blocks of all parts of a manifest, one part after the other. They are sent to the writing thread, until
/// it no longer receives them, or until the first error.
pub(crate) async fn fetch(place: Place, plan: Plan, out: Sender<Result<Block, MirrorError>>) {
    let waiting = Arc::new(Semaphore::new(WAITING));
    let got = plan.ranges.into_iter().map(|range| get(&place, range));
    let mut got = stream::iter(got).buffered(CONCURRENCY);
    while let Some(bytes) = got.next().await {
        // The semaphore is never closed.
        let Ok(permit) = waiting.clone().acquire_owned().await else {
            return;
        };
        let is_over = bytes.is_err();
        let block = bytes.map(|bytes| Block {
            bytes,
            _waiting: permit,
        });
        if out.send(block).is_err() || is_over {
            return;
        }
    }
}

/// Gets a block, and tries again if it does not arrive intact.
async fn get(place: &Place, range: Range) -> Result<Bytes, MirrorError> {
    for wait in RETRIES {
        match try_get(place, &range).await {
            Ok(bytes) => return Ok(bytes),
            Err(error) => log::debug!(target: crate::LOG, "{error}: trying again in {wait:?}"),
        }
        sleep(wait).await;
    }
    try_get(place, &range).await
}

async fn try_get(place: &Place, range: &Range) -> Result<Bytes, MirrorError> {
    let Range {
        entry,
        path,
        number,
        offset,
        bytes,
    } = range;
    let (offset, bytes) = (*offset, *bytes);
    let read = place.get_range(path, offset..offset + bytes).await?;
    // A backup of an earlier version has only one hash for the whole part. It is checked at the end of the part.
    let is_verifiable = !entry.blocks.is_empty() || entry.bytes <= PartEntry::BLOCK_BYTES;
    match !is_verifiable || entry.is_block(*number, &read) {
        true => Ok(read),
        false => Err(place.damaged(path, Damage::Hash { offset, bytes })),
    }
}

/// The blocks to fetch for a generation.
pub(crate) struct Plan {
    ranges: Vec<Range>,
}

impl Plan {
    /// The plan for the generation of `document`; `None` if the document is inconsistent.
    fn new(keys: &Keys, document: &Document, manifest: &Manifest) -> Option<Self> {
        let ranges = document.located(manifest)?.flat_map(|(entry, part)| {
            let (entry, path) = (Arc::new(entry.clone()), keys.part(part));
            blocks(entry.bytes).map(move |(number, offset, bytes)| Range {
                entry: entry.clone(),
                path: path.clone(),
                number,
                offset,
                bytes,
            })
        });
        Some(Self {
            ranges: ranges.collect(),
        })
    }
}

/// The number, offset and length of each block of a part. An empty part has one empty block, because its object must
/// exist too.
fn blocks(bytes: u64) -> impl Iterator<Item = (usize, u64, u64)> {
    let count = bytes.div_ceil(PartEntry::BLOCK_BYTES).max(1);
    (0..count).map(move |number| {
        let offset = number * PartEntry::BLOCK_BYTES;
        let length = PartEntry::BLOCK_BYTES.min(bytes - offset);
        (
            usize::try_from(number).unwrap_or(usize::MAX),
            offset,
            length,
        )
    })
}
