//! Reads a mirror without taking a lease, and without putting or deleting anything. A training that mirrors to it is
//! not disturbed.

use std::time::Duration;

use burn_backup_store::{GenerationId, Manifest, Store};

use crate::connection::Connection;
use crate::error::MirrorError;
use crate::fetch::{Prepared, Transfer};
use crate::finish::FinishedDocument;
use crate::keys::{Keys, Ordinal};
use crate::place::Place;
use crate::survey::{Run, runs};

/// A training that the mirror has objects of.
#[derive(Debug, Clone)]
pub struct MirroredTraining {
    run_id: String,
    generations: Vec<Ordinal>,
    greatest: GenerationId,
    holder: Option<(String, Duration)>,
    finished: Option<GenerationId>,
}

impl MirroredTraining {
    /// The id of the training.
    pub fn run_id(&self) -> &str {
        &self.run_id
    }

    /// The readable generations, newest first.
    pub fn generations(&self) -> impl Iterator<Item = GenerationId> + '_ {
        self.generations.iter().map(|ordinal| ordinal.number)
    }

    /// The greatest number among its objects.
    pub fn greatest(&self) -> GenerationId {
        self.greatest
    }

    /// The process that has written last, if it has not released the lease, and the time to live of the lease after
    /// each renewal.
    pub fn holder(&self) -> Option<(&str, Duration)> {
        let holder = self.holder.as_ref();
        holder.map(|(name, ttl)| (name.as_str(), *ttl))
    }

    /// If the training is finished: the number of its last generation.
    pub fn finished(&self) -> Option<GenerationId> {
        self.finished
    }

    fn ordinal(&self, id: GenerationId) -> Option<Ordinal> {
        let mut all = self.generations.iter();
        all.find(|ordinal| ordinal.number == id).copied()
    }
}

impl Connection {
    /// All trainings that the mirror has objects of. Takes no lease.
    ///
    /// # Errors
    ///
    /// [`MirrorError::NoDirectory`], [`MirrorError::NewerFormat`], [`MirrorError::Damaged`] if a lease is damaged, and
    /// [`MirrorError::Request`].
    pub fn observe(&self) -> Result<Vec<MirroredTraining>, MirrorError> {
        let place = self.place().clone();
        self.worker().call(async move { trainings(&place).await })
    }

    /// The manifest of the generation `id`. Its parts are not read. Takes no lease.
    ///
    /// # Errors
    ///
    /// [`MirrorError::Pruned`] if the generation was removed, [`MirrorError::Damaged`] and [`MirrorError::Store`] if
    /// its document is damaged, [`MirrorError::NewerFormat`], and [`MirrorError::Request`].
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

    /// Copies the generation `id` into `store`, whose directory then belongs to the same training. Verifies each byte.
    /// Takes no lease. Calls `on_transfer` after each block.
    ///
    /// # Errors
    ///
    /// The errors of [`manifest`](Self::manifest), and also [`MirrorError::Damaged`] and [`MirrorError::Store`] if a
    /// part is damaged. The store then has no new generation.
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

    /// Replaces an error by [`MirrorError::Pruned`] if the training has pruned the generation meanwhile.
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
