//! Taking a generation from the mirror: in ranges, many at a time, each of which is verified as it arrives.

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

/// How many ranges are on their way at once.
const CONCURRENCY: usize = 4;

/// How long to wait before what has not arrived as it should is asked for again.
const RETRIES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(2)];

/// How many of them wait until they are written.
const WAITING: usize = 4;

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Transfer {
    /// How many bytes are there.
    pub done: u64,
    /// How many there are to be.
    pub of: u64,
}

/// A generation that is about to be fetched.
pub(crate) struct Prepared {
    pub sealed: String,
    pub manifest: Manifest,
    pub plan: Plan,
}

/// Finds out what there is to get of a generation.
///
/// # Errors
///
/// [`MirrorError::Damaged`] and [`StoreError::Damaged`](burn_backup_store::StoreError::Damaged) if its document is,
/// those of newer formats, and errors of requests.
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
        let reason = Damage::Contents("it says what can't be".to_owned());
        place.damaged(&path, reason)
    })?;
    Ok(Prepared {
        sealed: document.manifest,
        manifest,
        plan,
    })
}

/// Takes a generation into `store`. `next` gives its blocks.
///
/// # Errors
///
/// Those of `next`, and those of the store, which has nothing new then.
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

/// A block of a part. As long as it is there, it counts as waiting.
pub(crate) struct Block {
    bytes: Bytes,
    _waiting: OwnedSemaphorePermit,
}

impl Block {
    pub(crate) fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

/// Where one block of a part is.
struct Range {
    entry: Arc<PartEntry>,
    path: Path,
    number: usize,
    offset: u64,
    bytes: u64,
}

/// The blocks of all parts of a manifest, one part after the other. They are sent to whoever writes them, until
/// nobody receives them any more, or the first error.
pub(crate) async fn fetch(place: Place, plan: Plan, out: Sender<Result<Block, MirrorError>>) {
    let waiting = Arc::new(Semaphore::new(WAITING));
    let got = plan.ranges.into_iter().map(|range| get(&place, range));
    let mut got = stream::iter(got).buffered(CONCURRENCY);
    while let Some(bytes) = got.next().await {
        // It is never closed.
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

/// Gets a block. What does not arrive as it should is asked for again.
async fn get(place: &Place, range: Range) -> Result<Bytes, MirrorError> {
    for wait in RETRIES {
        match try_get(place, &range).await {
            Ok(bytes) => return Ok(bytes),
            Err(error) => log::debug!(target: crate::LOG, "{error}: once more, in {wait:?}"),
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
    // A backup of an earlier version has one hash for the whole part, which is checked at its end.
    let is_verifiable = !entry.blocks.is_empty() || entry.bytes <= PartEntry::BLOCK_BYTES;
    match !is_verifiable || entry.is_block(*number, &read) {
        true => Ok(read),
        false => Err(place.damaged(path, Damage::Hash { offset, bytes })),
    }
}

/// What there is to get of a generation.
pub(crate) struct Plan {
    ranges: Vec<Range>,
}

impl Plan {
    /// That of the generation whose document says so; `None` if that can't be one.
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

/// The number, offset and length of each block of a part. One without bytes has an empty one: its object must be
/// there, too.
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
