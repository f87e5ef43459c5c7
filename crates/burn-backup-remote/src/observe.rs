//! Looking at a mirror: no lease is taken, nothing is put or deleted, and a training that mirrors to it goes on
//! undisturbed.

use std::time::Duration;

use burn_backup_store::{GenerationId, Manifest, Store};

use crate::connection::Connection;
use crate::error::MirrorError;
use crate::fetch::{Prepared, Transfer};
use crate::finish::FinishedDocument;
use crate::keys::{Keys, Ordinal};
use crate::place::Place;
use crate::survey::{Run, runs};

/// A training that a mirror has something of.
#[derive(Debug, Clone)]
pub struct MirroredTraining {
    run_id: String,
    generations: Vec<Ordinal>,
    greatest: GenerationId,
    holder: Option<(String, Duration)>,
    finished: Option<GenerationId>,
}

impl MirroredTraining {
    /// The training.
    pub fn run_id(&self) -> &str {
        &self.run_id
    }

    /// The generations that are to be read, the newest first.
    pub fn generations(&self) -> impl Iterator<Item = GenerationId> + '_ {
        self.generations.iter().map(|ordinal| ordinal.number)
    }

    /// The greatest number that anything of it has.
    pub fn greatest(&self) -> GenerationId {
        self.greatest
    }

    /// Which process has written last, if it has not let go of the mirror, and for how long the lease is good after it was
    /// renewed.
    pub fn holder(&self) -> Option<(&str, Duration)> {
        let holder = self.holder.as_ref();
        holder.map(|(name, ttl)| (name.as_str(), *ttl))
    }

    /// If it has run to its end: the number of its last generation.
    pub fn finished(&self) -> Option<GenerationId> {
        self.finished
    }

    fn ordinal(&self, id: GenerationId) -> Option<Ordinal> {
        let mut all = self.generations.iter();
        all.find(|ordinal| ordinal.number == id).copied()
    }
}

impl Connection {
    /// All trainings that the mirror has something of. No lease is taken.
    ///
    /// # Errors
    ///
    /// [`MirrorError::NoDirectory`], [`MirrorError::NewerFormat`], [`MirrorError::Damaged`] if a lease is, and
    /// [`MirrorError::Request`].
    pub fn observe(&self) -> Result<Vec<MirroredTraining>, MirrorError> {
        let place = self.place().clone();
        self.worker().call(async move { trainings(&place).await })
    }

    /// The manifest of the generation `id`, of which the parts are not read. No lease is taken.
    ///
    /// # Errors
    ///
    /// [`MirrorError::Pruned`] if it is not there any more, [`MirrorError::Damaged`] and [`MirrorError::Store`] if its
    /// document is damaged, [`MirrorError::NewerFormat`], and [`MirrorError::Request`].
    pub fn manifest(
        &self,
        training: &MirroredTraining,
        id: GenerationId,
    ) -> Result<Manifest, MirrorError> {
        let manifest = || {
            let (keys, ordinal) = self.locate(training, id)?;
            Ok(self.prepare(&keys, ordinal)?.manifest)
        };
        self.unless_pruned(training, id, manifest())
    }

    /// Copies the generation `id` into `store`, whose directory becomes that of the same training. Each byte is verified.
    /// No lease is taken. `on_transfer` is called after each block.
    ///
    /// # Errors
    ///
    /// Those of [`manifest`](Self::manifest), [`MirrorError::Damaged`] and [`MirrorError::Store`] also if a part is damaged.
    /// The store has nothing new then.
    pub fn copy(
        &self,
        training: &MirroredTraining,
        id: GenerationId,
        store: &mut Store,
        on_transfer: &mut dyn FnMut(Transfer),
    ) -> Result<(), MirrorError> {
        let copied = self.locate(training, id).and_then(|(keys, ordinal)| {
            let fetched = self.fetch_one(&keys, ordinal, store, on_transfer);
            fetched.map(drop)
        });
        self.unless_pruned(training, id, copied)
    }

    fn locate(
        &self,
        training: &MirroredTraining,
        id: GenerationId,
    ) -> Result<(Keys, Ordinal), MirrorError> {
        let ordinal = training.ordinal(id).ok_or_else(|| self.pruned(id))?;
        Ok((Keys::new(&self.place().prefix, &training.run_id), ordinal))
    }

    fn prepare(&self, keys: &Keys, ordinal: Ordinal) -> Result<Prepared, MirrorError> {
        let (place, keys) = (self.place().clone(), keys.clone());
        let prepare = async move { crate::fetch::prepare(&place, &keys, ordinal).await };
        self.worker().call(prepare)
    }

    /// What has failed because the training has pruned the generation meanwhile is no damage.
    fn unless_pruned<T>(
        &self,
        training: &MirroredTraining,
        id: GenerationId,
        outcome: Result<T, MirrorError>,
    ) -> Result<T, MirrorError> {
        let Err(error) = outcome else {
            return outcome;
        };
        if !error.is_damage() {
            return Err(error);
        }
        let now = self.observe()?;
        let now = now.iter().find(|now| now.run_id == training.run_id);
        match now.and_then(|now| now.ordinal(id)) == training.ordinal(id) {
            true => Err(error),
            false => Err(self.pruned(id)),
        }
    }

    fn pruned(&self, id: GenerationId) -> MirrorError {
        MirrorError::Pruned {
            mirror: self.place().name.to_string(),
            generation: id,
        }
    }
}

pub(crate) async fn trainings(place: &Place) -> Result<Vec<MirroredTraining>, MirrorError> {
    place.check_directory().await?;
    let mut trainings = Vec::new();
    for (run_id, run) in runs(place).await? {
        trainings.push(training(place, run_id, run).await?);
    }
    Ok(trainings)
}

async fn training(
    place: &Place,
    run_id: String,
    run: Run,
) -> Result<MirroredTraining, MirrorError> {
    let finished = match run.is_finished {
        true => FinishedDocument::get(place, &Keys::new(&place.prefix, &run_id)).await?,
        false => None,
    };
    Ok(MirroredTraining {
        greatest: run.greatest(),
        finished: finished.map(|finished| finished.newest),
        holder: run
            .lease
            .filter(|lease| !lease.is_released)
            .map(|lease| (lease.holder.clone(), lease.ttl())),
        generations: run.to_read,
        run_id,
    })
}
