use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use burn_backup_store::{GenerationId, Manifest, Store};

use crate::error::MirrorError;
use crate::fetch::{Block, Transfer, adopt, fetch, prepare};
use crate::finish::finish;
use crate::keys::{Keys, Ordinal};
use crate::lease::{Keeper, Terms};
use crate::mirror::Mirror;
use crate::mirroring::{Leftovers, Listener, Mirroring, Task};
use crate::pace::Pace;
use crate::place::Place;
use crate::retention::Retention;
use crate::survey::{Question, Survey, present, survey};
use crate::worker::Worker;
use crate::{holder, open};

/// How long the end waits until others know of it.
const RELEASE_LIMIT: Duration = Duration::from_secs(4);

/// An open mirror: what is in it is found and fetched with this, before anything is mirrored.
pub struct Connection {
    worker: Arc<Worker>,
    place: Place,
    terms: Terms,
    max_bytes_per_second: Option<u64>,
    /// Taken before anything is fetched.
    keeper: Option<Keeper>,
    /// What could not be fetched.
    damaged: Vec<Ordinal>,
    /// Up to which number the training leaves behind what is in the mirror.
    beyond: Option<GenerationId>,
}

/// What a mirror has of a training.
#[derive(Debug, Clone)]
pub struct Found {
    survey: Survey,
    question: Question,
}

impl Found {
    /// The newest generation in the mirror, if there is one.
    pub fn newest(&self) -> Option<GenerationId> {
        let newest = self.survey.generations.first();
        newest.map(|ordinal| ordinal.number)
    }

    /// The greatest number that anything in the mirror has: new generations have greater ones.
    pub fn greatest(&self) -> GenerationId {
        self.survey.greatest
    }

    /// If the mirror says that this training has run to its end: the number of its last generation there.
    pub fn finished(&self) -> Option<GenerationId> {
        self.survey
            .finished
            .as_ref()
            .map(|finished| finished.newest)
    }

    /// Which process has written last, if it has not let go of the mirror, and how long it takes to find out whether it
    /// still runs.
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
            terms: Terms {
                nonce,
                holder: holder::name(),
                ttl: mirror.lease_ttl,
                single_writer: mirror.single_writer,
            },
            max_bytes_per_second: mirror.max_bytes_per_second,
            keeper: None,
            damaged: Vec::new(),
            beyond: None,
        })
    }

    /// Looks for the training of a backup directory. `has_backup` says whether there is, or was, a backup in it: if
    /// not, the training in the mirror is taken for this one.
    ///
    /// # Errors
    ///
    /// [`MirrorError::AnotherTraining`], [`MirrorError::SeveralTrainings`], [`MirrorError::InUse`] if another process
    /// has just begun a training there, [`MirrorError::NoDirectory`], [`MirrorError::NewerFormat`],
    /// [`MirrorError::Damaged`] if a lease is, and [`MirrorError::Request`].
    pub fn find(&self, run_id: &str, has_backup: bool) -> Result<Found, MirrorError> {
        let question = Question {
            run_id: run_id.to_owned(),
            has_backup,
        };
        let (place, terms, asked) = (self.place.clone(), self.terms.clone(), question.clone());
        let survey = self
            .worker
            .call(async move { survey(&place, &asked, &terms).await })?;
        Ok(Found { survey, question })
    }

    /// Takes the newest whole generation that is newer than `here` into `store`, whose directory becomes that of the
    /// same training. First the lease is taken: another process that writes to the mirror trains the same. What is
    /// damaged is left out, and the one before is tried. `on_transfer` is called after each block.
    ///
    /// # Errors
    ///
    /// [`MirrorError::InUse`] if another process writes to the mirror, [`MirrorError::NoneWhole`],
    /// [`MirrorError::Store`], [`MirrorError::NewerFormat`], and [`MirrorError::Request`]. The store has nothing new
    /// then.
    pub fn fetch(
        &mut self,
        found: &Found,
        here: Option<GenerationId>,
        store: &mut Store,
        on_transfer: &mut dyn FnMut(Transfer),
    ) -> Result<GenerationId, MirrorError> {
        self.fetch_of(found, |id| Some(id) > here, store, on_transfer)
    }

    /// Takes the generation `id` into `store`, as [`fetch`](Self::fetch) does with the newest one.
    ///
    /// # Errors
    ///
    /// Those of [`fetch`](Self::fetch).
    pub fn fetch_only(
        &mut self,
        found: &Found,
        id: GenerationId,
        store: &mut Store,
        on_transfer: &mut dyn FnMut(Transfer),
    ) -> Result<(), MirrorError> {
        let fetched = self.fetch_of(found, |there| there == id, store, on_transfer);
        fetched.map(drop)
    }

    /// The training goes on from a generation that is not the newest one: those in the mirror up to this number are
    /// left behind, and no sign that another process is ahead.
    pub fn leave_behind(&mut self, up_to: GenerationId) {
        self.beyond = Some(up_to);
    }

    /// The manifests of the generations that are to be read, newest first. Damaged ones are left out. No lease is taken.
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
                        "generation {ordinal} in the mirror is passed over: {error}"
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
                        "generation {ordinal} in the mirror is left out: {error}"
                    );
                    self.damaged.push(ordinal);
                    damage = damage.or(Some((ordinal.number, error)));
                }
                Err(error) => return Err(error),
            }
        }
        let (newest, reason) = match damage {
            Some((newest, error)) => (newest, error.to_string()),
            None => (
                found.newest().unwrap_or_default(),
                "it is not there any more".to_owned(),
            ),
        };
        Err(MirrorError::NoneWhole {
            mirror: self.place.name.to_string(),
            newest,
            reason,
        })
    }

    /// Takes the lease, and has it renewed. Gives the generations that are to be read. Those that are not there are
    /// named no longer: who puts them now has lost the lease.
    fn take(&mut self, keys: &Keys, found: &Found) -> Result<Vec<Ordinal>, MirrorError> {
        let (place, terms) = (self.place.clone(), self.terms.clone());
        let (keys, listed) = (keys.clone(), found.survey.generations.clone());
        let (keeper, there) = self.worker.call(async move {
            let keeper = Keeper::take(&place, &keys, &terms, &listed).await?;
            let named = keeper.lease.generations().await;
            let there = present(&place, &keys, &named, &BTreeSet::new()).await?;
            let names = there.clone();
            keeper
                .lease
                .rename(|generations| *generations = names)
                .await?;
            Ok((keeper, there))
        })?;
        self.keeper = Some(keeper);
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

    /// Mirrors what is committed to `store` from now on; `retention` says which generations stay in the mirror. `found` is
    /// `None` if the mirror could not be used: it is looked into once it can be. `here` is the generation that the
    /// training goes on from, which is mirrored first unless the mirror has it. `listener` hears what has to be said at
    /// once.
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
            question: Question {
                run_id: store.identity().run_id.clone(),
                has_backup: true,
            },
            survey: found.map(|found| found.survey.clone()),
            keeper: self.keeper.take(),
            damaged: std::mem::take(&mut self.damaged),
            base: here.max(self.beyond),
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

    /// Marks what was found as finished: from then on nothing of it is read any more. What is left of it is to be
    /// [cleared](Leftovers::clear) once the local backup is gone. `None` if the mirror has nothing of the training.
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
                let keeper = Keeper::take(&place, &keys, &terms, &listed).await?;
                let finished = finish(&place, &keys, &keeper.lease).await;
                if finished.is_err() {
                    // It is renewed no longer in any case.
                    let _ = keeper.lease.release().await;
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

/// Lets go of the mirror, if it was taken and nothing is mirrored.
impl Drop for Connection {
    fn drop(&mut self) {
        let Some(keeper) = self.keeper.take() else {
            return;
        };
        let released = self.worker.call(async move {
            let release = tokio::time::timeout(RELEASE_LIMIT, keeper.lease.release());
            // In time or not, this process has ended.
            drop(release.await);
            Ok(())
        });
        drop(released);
    }
}
