use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use burn_backup_store::{GenerationId, Manifest, Store};

use crate::error::MirrorError;
use crate::fetch::{Block, Transfer, adopt, fetch, prepare};
use crate::finish::finish;
use crate::keys::{Keys, Ordinal};
use crate::lease::{LeaseRenewer, LeaseSettings};
use crate::mirror::Mirror;
use crate::mirroring::{Leftovers, Listener, Mirroring, Task};
use crate::pace::Pace;
use crate::place::Place;
use crate::retention::Retention;
use crate::survey::{Survey, SurveyQuery, present, survey};
use crate::worker::Worker;
use crate::{holder, open};

/// How long the end of a process waits until the lease is released.
const RELEASE_LIMIT: Duration = Duration::from_secs(4);

/// An open mirror. It finds and fetches generations before mirroring begins.
pub struct Connection {
    worker: Arc<Worker>,
    place: Place,
    terms: LeaseSettings,
    max_bytes_per_second: Option<u64>,
    /// The lease, which is taken before anything is fetched.
    renewer: Option<LeaseRenewer>,
    /// The generations that could not be fetched because of damage.
    damaged: Vec<Ordinal>,
    /// The training abandons the generations in the mirror up to this number.
    abandoned_up_to: Option<GenerationId>,
}

/// What a mirror holds of a training.
#[derive(Debug, Clone)]
pub struct Found {
    survey: Survey,
    question: SurveyQuery,
}

impl Found {
    /// The newest generation in the mirror, if there is one.
    pub fn newest(&self) -> Option<GenerationId> {
        let newest = self.survey.generations.first();
        newest.map(|ordinal| ordinal.number)
    }

    /// The greatest number in the mirror. New generations have greater ones.
    pub fn greatest(&self) -> GenerationId {
        self.survey.greatest
    }

    /// If the mirror marks this training as finished: the number of its last generation there.
    pub fn finished(&self) -> Option<GenerationId> {
        self.survey
            .finished
            .as_ref()
            .map(|finished| finished.newest)
    }

    /// The process that has written last, if it has not released the lease, and how long it takes to find out whether
    /// it still runs.
    pub fn holder(&self) -> Option<(&str, Duration)> {
        let holder = self.survey.holder.as_ref();
        holder.map(|(name, ttl)| (name.as_str(), *ttl))
    }
}

impl Connection {
    pub(crate) fn open(mirror: &Mirror) -> Result<Self, MirrorError> {
        let place = open::place(&mirror.target)?;
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|error| MirrorError::Thread(error.into()))?;
        let nonce: String = nonce.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self {
            worker: Arc::new(Worker::start()?),
            place,
            terms: LeaseSettings {
                nonce,
                holder: holder::name(),
                ttl: mirror.lease_ttl,
                single_writer: mirror.single_writer,
            },
            max_bytes_per_second: mirror.max_bytes_per_second,
            renewer: None,
            damaged: Vec::new(),
            abandoned_up_to: None,
        })
    }

    /// Finds the training of a backup directory in the mirror. `has_backup` says whether the directory has, or had, a
    /// backup. If not, the training in the mirror is assumed to be this one.
    ///
    /// # Errors
    ///
    /// [`MirrorError::AnotherTraining`], [`MirrorError::SeveralTrainings`], [`MirrorError::InUse`] if another process
    /// has just begun a training there, [`MirrorError::NoDirectory`], [`MirrorError::NewerFormat`],
    /// [`MirrorError::Damaged`] if a lease is damaged, and [`MirrorError::Request`].
    pub fn find(&self, run_id: &str, has_backup: bool) -> Result<Found, MirrorError> {
        let question = SurveyQuery {
            run_id: run_id.to_owned(),
            has_backup,
        };
        let (place, terms, asked) = (self.place.clone(), self.terms.clone(), question.clone());
        let survey = self
            .worker
            .call(async move { survey(&place, &asked, &terms).await })?;
        Ok(Found { survey, question })
    }

    /// Copies the newest whole generation that is newer than `here` into `store`, whose directory then belongs to the
    /// same training. Takes the lease first, because another process that writes to the mirror runs the same training.
    /// Skips damaged generations, and tries the previous one. Calls `on_transfer` after each block.
    ///
    /// # Errors
    ///
    /// [`MirrorError::InUse`] if another process writes to the mirror, [`MirrorError::NoneIntact`],
    /// [`MirrorError::Store`], [`MirrorError::NewerFormat`], and [`MirrorError::Request`]. The store then has no new
    /// generation.
    pub fn fetch(
        &mut self,
        found: &Found,
        here: Option<GenerationId>,
        store: &mut Store,
        on_transfer: &mut dyn FnMut(Transfer),
    ) -> Result<GenerationId, MirrorError> {
        let newest = found.newest().unwrap_or_default();
        self.fetch_of(found, newest, |id| Some(id) > here, store, on_transfer)
    }

    /// Copies the generation `id` into `store`, as [`fetch`](Self::fetch) does with the newest one.
    ///
    /// # Errors
    ///
    /// The errors of [`fetch`](Self::fetch).
    pub fn fetch_only(
        &mut self,
        found: &Found,
        id: GenerationId,
        store: &mut Store,
        on_transfer: &mut dyn FnMut(Transfer),
    ) -> Result<(), MirrorError> {
        let fetched = self.fetch_of(found, id, |there| there == id, store, on_transfer);
        fetched.map(drop)
    }

    /// Records that the training resumes from a generation that is not the newest one. Generations in the mirror up to
    /// this number are then abandoned. They do not mean that another process is ahead.
    pub fn abandon_up_to(&mut self, up_to: GenerationId) {
        self.abandoned_up_to = Some(up_to);
    }

    /// The manifests of the readable generations, newest first. Skips damaged ones. Takes no lease.
    ///
    /// # Errors
    ///
    /// [`MirrorError::NewerFormat`], and [`MirrorError::Request`].
    pub fn manifests(&self, found: &Found) -> Result<Vec<Manifest>, MirrorError> {
        let (place, keys) = (self.place.clone(), self.keys(found));
        let generations = found.survey.generations.clone();
        self.worker.call(async move {
            let mut manifests = Vec::with_capacity(generations.len());
            for ordinal in generations {
                match prepare(&place, &keys, ordinal).await {
                    Ok(prepared) => manifests.push(prepared.manifest),
                    Err(error) if error.is_damage() => log::warn!(
                        target: crate::LOG,
                        "generation {ordinal} in the mirror is skipped: {error}"
                    ),
                    Err(error) => return Err(error),
                }
            }
            Ok(manifests)
        })
    }

    fn fetch_of(
        &mut self,
        found: &Found,
        newest_wanted: GenerationId,
        is_wanted: impl Fn(GenerationId) -> bool,
        store: &mut Store,
        on_transfer: &mut dyn FnMut(Transfer),
    ) -> Result<GenerationId, MirrorError> {
        let keys = self.keys(found);
        let mut generations = self.take(&keys, found)?;
        generations.retain(|ordinal| is_wanted(ordinal.number));
        generations.sort_unstable_by(|a, b| b.cmp(a));
        let mut damage: Option<(GenerationId, MirrorError)> = None;
        for ordinal in generations {
            match self.fetch_one(&keys, ordinal, store, on_transfer) {
                Ok(id) => return Ok(id),
                Err(error) if error.is_damage() => {
                    log::error!(
                        target: crate::LOG,
                        "generation {ordinal} in the mirror is skipped: {error}"
                    );
                    self.damaged.push(ordinal);
                    damage = damage.or(Some((ordinal.number, error)));
                }
                Err(error) => return Err(error),
            }
        }
        let (newest, reason) = match damage {
            Some((newest, error)) => (newest, error.to_string()),
            None => (newest_wanted, "it is not in the mirror any more".to_owned()),
        };
        Err(MirrorError::NoneIntact {
            mirror: self.place.name.to_string(),
            newest,
            reason,
        })
    }

    /// Takes the lease, and keeps it renewed. Returns the readable generations. Generations without a document are
    /// removed from the lease, because a process that puts one now has lost the lease.
    fn take(&mut self, keys: &Keys, found: &Found) -> Result<Vec<Ordinal>, MirrorError> {
        let (place, terms) = (self.place.clone(), self.terms.clone());
        let (keys, listed) = (keys.clone(), found.survey.generations.clone());
        let (renewer, there) = self.worker.call(async move {
            let renewer = LeaseRenewer::take(&place, &keys, &terms, &listed).await?;
            let named = renewer.lease.generations().await;
            let there = present(&place, &keys, &named, &BTreeSet::new()).await?;
            let names = there.clone();
            renewer
                .lease
                .update_generations(|generations| *generations = names)
                .await?;
            Ok((renewer, there))
        })?;
        self.renewer = Some(renewer);
        Ok(there)
    }

    pub(crate) fn fetch_one(
        &self,
        keys: &Keys,
        ordinal: Ordinal,
        store: &mut Store,
        on_transfer: &mut dyn FnMut(Transfer),
    ) -> Result<GenerationId, MirrorError> {
        let (place, keys) = (self.place.clone(), keys.clone());
        let prepared = self
            .worker
            .call(async move { prepare(&place, &keys, ordinal).await })?;
        let (out, blocks) = channel();
        let work = fetch(self.place.clone(), prepared.plan, out);
        self.worker.spawn(work);
        let next = || match blocks.recv() {
            Ok(block) => block.map(Block::into_bytes),
            Err(_) => Err(MirrorError::ThreadEnded),
        };
        let sealed = prepared.sealed.as_bytes();
        adopt(store, sealed, &prepared.manifest, next, on_transfer)
    }

    /// Mirrors what is committed to `store` from now on. `retention` decides which generations stay in the mirror.
    /// `found` is `None` if the mirror could not be used; it is surveyed as soon as it can be. `here` is the generation
    /// that the training resumed from. It is mirrored first unless the mirror has it. `listener` receives events
    /// immediately.
    pub fn mirror(
        mut self,
        found: Option<&Found>,
        store: &Arc<Store>,
        here: Option<GenerationId>,
        retention: Arc<dyn Retention>,
        listener: Listener,
    ) -> Mirroring {
        let task = Task {
            place: self.place.clone(),
            terms: self.terms.clone(),
            question: SurveyQuery {
                run_id: store.identity().run_id.clone(),
                has_backup: true,
            },
            survey: found.map(|found| found.survey.clone()),
            renewer: self.renewer.take(),
            damaged: std::mem::take(&mut self.damaged),
            base: here.max(self.abandoned_up_to),
            begins: false,
            pace: Arc::new(Pace::new(self.max_bytes_per_second)),
            retention,
            listener,
        };
        let mirroring = Mirroring::start(self.worker.clone(), task, store.clone());
        if let Some(here) = here {
            mirroring.announce(here);
            mirroring.committed(here);
        }
        mirroring
    }

    /// Marks the found training as finished. From then on, nothing of it is read. [Clear](Leftovers::clear) the rest
    /// once the local backup is gone. `None` if the mirror has nothing of the training.
    ///
    /// # Errors
    ///
    /// [`MirrorError::InUse`] if another process writes to the mirror, and [`MirrorError::Request`].
    pub fn finish(self, found: &Found) -> Result<Option<Leftovers>, MirrorError> {
        if found.survey.run_id.is_none() {
            return Ok(None);
        }
        let (place, keys) = (self.place.clone(), self.keys(found));
        if found.survey.finished.is_none() {
            let (place, keys, terms) = (place.clone(), keys.clone(), self.terms.clone());
            let listed = found.survey.generations.clone();
            self.worker.call(async move {
                let renewer = LeaseRenewer::take(&place, &keys, &terms, &listed).await?;
                let finished = finish(&place, &keys, &renewer.lease).await;
                if finished.is_err() {
                    // The lease is not renewed any more in any case.
                    let _ = renewer.lease.release().await;
                }
                finished
            })?;
        }
        Ok(Some(Leftovers::new(
            self.worker.clone(),
            place,
            keys,
            BTreeSet::new(),
        )))
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn worker(&self) -> &Worker {
        &self.worker
    }

    fn keys(&self, found: &Found) -> Keys {
        let run_id = found.survey.run_id.as_ref();
        let run_id = run_id.unwrap_or(&found.question.run_id);
        Keys::new(&self.place.prefix, run_id)
    }
}

/// Releases the lease, if it was taken and nothing is mirrored.
impl Drop for Connection {
    fn drop(&mut self) {
        let Some(renewer) = self.renewer.take() else {
            return;
        };
        let released = self.worker.call(async move {
            let release = tokio::time::timeout(RELEASE_LIMIT, renewer.lease.release());
            // The process ends, whether the release was in time or not.
            drop(release.await);
            Ok(())
        });
        drop(released);
    }
}
