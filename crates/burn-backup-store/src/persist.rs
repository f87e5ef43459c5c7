//! Staging a generation: its parts are written beside the committed ones, hashed on the way, and synced
//! meanwhile. What is unchanged since the generation before is linked to it instead.

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
use crate::possession::IfGone;
use crate::store::Store;
use crate::{discover, files, remove};
use reuse::Reusable;
use workers::Workers;

pub(crate) use open_part::OpenPart;
pub use part::PartWriter;

const LOG: &str = "burn_backup::persist";

/// A generation in the making. It does not exist until [`commit`](Self::commit) says so; dropped
/// before, it leaves nothing behind.
pub struct Staging<'s> {
    pub(crate) store: &'s Store,
    pub(crate) id: GenerationId,
    pub(crate) dir: PathBuf,
    pub(crate) parts: Vec<StagedPart>,
    names: HashSet<String>,
    /// How many bytes of them are linked.
    pub(crate) linked: u64,
    pub(crate) reusable: Reusable,
    workers: Workers,
}

/// A part of a generation in the making.
pub(crate) enum StagedPart {
    Linked(PartEntry),
    Written(OpenPart),
}

impl Store {
    /// Begins a generation. If the directory is gone and nobody else has begun at its path, it is made
    /// again first, which a warning in the log says.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if its staging directory can't be created, [`StoreError::Gone`] if the
    /// directory can't be made again, [`StoreError::TakenOver`] if somebody else uses the path, and
    /// [`StoreError::NumbersUsedUp`].
    pub fn stage(&self) -> Result<Staging<'_>, StoreError> {
        self.stage_unexplained()
            .map_err(|error| self.explain(error))
    }

    fn stage_unexplained(&self) -> Result<Staging<'_>, StoreError> {
        self.possess(IfGone::Make)?;
        let (fs, layout) = (self.dir.fs(), &self.dir.layout);
        let greatest = discover::greatest_number(fs, layout, &self.identity)?;
        let next = self.knowledge.last(greatest).next();
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
    /// [`StoreError::PartName`] if the name can't be a file's or was used before,
    /// [`StoreError::TooManyParts`], and [`StoreError::Io`] if the file can't be created.
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

    /// Waits until every part is written, and gives them as they stand in the manifest. Those whose sync is
    /// left to the commit stay in [`parts`](Self::parts).
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
        // Nobody may write into the directory any more when it goes.
        self.workers = Workers::default();
        self.parts.clear();
        // After a commit nothing is here any more; before it, the next prune tries again.
        if let Err(error) = remove::finish(&self.store.dir, &self.dir) {
            log::debug!(target: LOG, "left to the next prune: {}", error.with_cause());
        }
    }
}
