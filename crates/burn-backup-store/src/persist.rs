//! Staging a generation: its parts are hashed, written beside the committed generations, and synced at the same time. A
//! part that is unchanged since the previous generation is linked instead.

mod link;
mod open_part;
mod part;
mod reuse;
mod workers;

use std::collections::HashSet;
use std::path::PathBuf;

use crate::error::{NOT_COMMITTED, StoreError};
use crate::layout::{self, GenerationId};
use crate::manifest::{MAX_PARTS, PartEntry};
use crate::ownership::IfGone;
use crate::store::Store;
use crate::{discover, files, remove};
use reuse::Reusable;
use workers::Workers;

pub(crate) use open_part::OpenPart;
pub use part::PartWriter;

const LOG: &str = "burn_backup::persist";

/// A generation that is being written. It exists only after [`commit`](Self::commit) has succeeded. If it is dropped
/// before, it leaves nothing behind.
pub struct Staging<'s> {
    pub(crate) store: &'s Store,
    pub(crate) id: GenerationId,
    pub(crate) dir: PathBuf,
    pub(crate) parts: Vec<StagedPart>,
    names: HashSet<String>,
    /// How many bytes of the parts are linked.
    pub(crate) linked: u64,
    pub(crate) reusable: Reusable,
    workers: Workers,
}

/// A part of a generation that is being written.
pub(crate) enum StagedPart {
    Linked(PartEntry),
    Written(OpenPart),
}

impl Store {
    /// Begins a generation. If the directory is missing and no other process uses its path, the directory is created
    /// again first, with a warning in the log.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if its staging directory can't be created, [`StoreError::Gone`] if the directory can't be
    /// created again, [`StoreError::TakenOver`] if another process uses the path, and [`StoreError::NumbersUsedUp`].
    pub fn stage(&self) -> Result<Staging<'_>, StoreError> {
        self.stage_inner().map_err(|error| self.explain(error))
    }

    fn stage_inner(&self) -> Result<Staging<'_>, StoreError> {
        self.ensure_owned(IfGone::Create)?;
        let (fs, layout) = (self.dir.fs(), &self.dir.layout);
        let greatest = discover::greatest_number(fs, layout, &self.identity)?;
        let next = self.index.last(greatest).next();
        let next = next.ok_or_else(|| StoreError::NumbersUsedUp {
            path: layout.generations(),
        })?;
        Staging::create(self, next)
    }
}

impl<'s> Staging<'s> {
    pub(crate) fn create(store: &'s Store, id: GenerationId) -> Result<Self, StoreError> {
        let dir = store.dir.layout.staging(&id.to_string(), files::draw()?);
        let reusable = match Reusable::take(&store.dir, &dir) {
            Some(reusable) => reusable,
            None => {
                let created = store.dir.fs().create_dir(&dir);
                created.map_err(StoreError::io("create", &dir, NOT_COMMITTED))?;
                Reusable::default()
            }
        };
        Ok(Self {
            store,
            id,
            dir,
            parts: Vec::new(),
            names: HashSet::new(),
            linked: 0,
            reusable,
            workers: Workers::default(),
        })
    }

    /// The number that the generation will have.
    pub fn id(&self) -> GenerationId {
        self.id
    }

    /// Begins the part `name`.
    ///
    /// # Errors
    ///
    /// [`StoreError::PartName`] if the name can't be a file name or was used before, [`StoreError::TooManyParts`], and
    /// [`StoreError::Io`] if the file can't be created.
    pub fn part(&mut self, name: &str) -> Result<PartWriter<'_, 's>, StoreError> {
        self.check_name(name)?;
        let path = self.dir.join(layout::part_file(name));
        let created = self.reusable.create_file(self.store.dir.fs(), &path);
        let file = created
            .map_err(StoreError::io("create", &path, NOT_COMMITTED))
            .map_err(|error| self.store.explain(error))?;
        Ok(PartWriter::new(self, name, path, file))
    }

    fn add(&mut self, name: &str, part: StagedPart) {
        self.names.insert(name.to_owned());
        self.parts.push(part);
    }

    /// Waits until every part is written, and returns their manifest entries. Parts that the commit must sync stay in
    /// [`parts`](Self::parts).
    pub(crate) fn join(&mut self) -> Result<Vec<PartEntry>, StoreError> {
        let entry = |part: &StagedPart| match part {
            StagedPart::Linked(entry) => Ok(entry.clone()),
            StagedPart::Written(part) => part.join(),
        };
        let entries = self.parts.iter().map(entry).collect::<Result<_, _>>()?;
        // Some systems don't rename a directory while a file in it is open.
        self.workers = Workers::default();
        self.parts.retain(|part| match part {
            StagedPart::Linked(_) => false,
            StagedPart::Written(part) => part.progress.is_small(),
        });
        Ok(entries)
    }

    fn check_name(&self, name: &str) -> Result<(), StoreError> {
        if !layout::is_part_name(name) || self.names.contains(name) {
            return Err(StoreError::PartName {
                name: name.to_owned(),
            });
        }
        if self.parts.len() >= MAX_PARTS {
            return Err(StoreError::TooManyParts { limit: MAX_PARTS });
        }
        Ok(())
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        // No thread may write into the directory while it is removed.
        self.workers = Workers::default();
        self.parts.clear();
        // After a commit, the directory is not at this path any more. Before a commit, the next prune tries again.
        if let Err(error) = remove::finish(&self.store.dir, &self.dir) {
            log::debug!(target: LOG, "the next prune removes the staging directory: {}", error.with_cause());
        }
    }
}
