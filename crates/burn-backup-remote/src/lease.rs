//! Who may write to a mirror: one process at a time, as a lock does it for a directory.
//!
//! An object store has no locks. So the process that writes has put its name into `lease.json`, and puts it there
//! again and again (*renews* it). Another process takes it over once it has seen the same lease for as long as
//! the lease says, by its own clock. Every holder has an *epoch* that is greater than the ones before. A holder that
//! was asleep meanwhile notices at its next renewal: the object is not the one that it has put.
//!
//! The lease also names the generations that are to be read. A generation is named before its document is put, so
//! that no listing is needed to find it. What a holder puts that has lost its lease is named by nobody.

use std::sync::Arc;
use std::time::Duration;

use object_store::UpdateVersion;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::document::{self, FORMAT};
use crate::error::MirrorError;
use crate::keys::{Keys, Ordinal};
use crate::place::{Place, Put, When};

/// A lease is good for so long at most.
pub(crate) const MAX_TTL: Duration = Duration::from_secs(600);

/// How often a lease is renewed in the time that it is good for.
const RENEWALS: u32 = 3;

/// How often another process's lease is looked at in that time.
const LOOKS: u32 = 5;

/// How often a put is tried that finds an earlier one of this process.
const TRIES: u32 = 3;

/// Of an object that is not there.
const NO_VERSION: UpdateVersion = UpdateVersion {
    e_tag: None,
    version: None,
};

/// `lease.json`. No two that are put are alike: some stores tell objects apart by their contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaseDocument {
    format: u32,
    pub epoch: u64,
    /// Drawn by the holder.
    pub nonce: String,
    /// What the holder calls itself: for people.
    pub holder: String,
    /// How long the lease is good for, in milliseconds.
    ttl_ms: u64,
    /// How often it was put.
    beat: u64,
    /// Whether its holder has ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_released: bool,
    /// The generations that are to be read, the oldest first. The document of the last one may not be there
    /// yet.
    pub generations: Vec<Ordinal>,
}

/// How a process holds a lease.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub nonce: String,
    pub holder: String,
    pub ttl: Duration,
    /// Nobody else ever writes: nothing is put on condition, and nobody is waited for.
    pub single_writer: bool,
}

/// The lease of this process.
pub(crate) struct Lease {
    place: Place,
    keys: Keys,
    terms: Terms,
    held: Mutex<Held>,
}

/// Renews a lease on a task of its own, as long as this is there.
pub(crate) struct Keeper {
    pub lease: Arc<Lease>,
    task: JoinHandle<MirrorError>,
}

struct Held {
    document: LeaseDocument,
    version: UpdateVersion,
    renewed: Instant,
    /// Whether another process has it.
    is_lost: bool,
}

impl LeaseDocument {
    /// The lease of a training; `None` if it has none.
    pub(crate) async fn get(
        place: &Place,
        keys: &Keys,
    ) -> Result<Option<(Self, UpdateVersion)>, MirrorError> {
        let path = keys.lease();
        let Some(object) = place.get(&path).await? else {
            return Ok(None);
        };
        let document = document::read(place, &path, &object.bytes)?;
        Ok(Some((document, object.version)))
    }

    pub(crate) fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms).min(MAX_TTL)
    }
}

impl Keeper {
    /// Takes the lease of the training, and keeps it. If another process seems to hold it, that takes as long as it is
    /// good for. `listed` are the generations that are to be read if there is no lease yet.
    ///
    /// # Errors
    ///
    /// [`MirrorError::InUse`] if another process holds it, [`MirrorError::NoConditionalPut`], and errors of
    /// requests.
    pub(crate) async fn take(
        place: &Place,
        keys: &Keys,
        terms: &Terms,
        listed: &[Ordinal],
    ) -> Result<Self, MirrorError> {
        let lease = Arc::new(Lease::take(place, keys, terms, listed).await?);
        let kept = lease.clone();
        let task = tokio::spawn(async move { kept.keep().await });
        Ok(Self { lease, task })
    }

    /// Waits until the lease is lost; gives how.
    pub(crate) async fn lost(&mut self) -> MirrorError {
        let lost = (&mut self.task).await;
        lost.unwrap_or(MirrorError::ThreadEnded)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits until the lease can be taken; gives what is there then.
///
/// # Errors
///
/// [`MirrorError::InUse`] if another process renews it meanwhile, and errors of requests.
pub(crate) async fn wait(
    place: &Place,
    keys: &Keys,
    terms: &Terms,
) -> Result<Option<(LeaseDocument, UpdateVersion)>, MirrorError> {
    let Some((first, version)) = LeaseDocument::get(place, keys).await? else {
        return Ok(None);
    };
    if first.is_released || first.nonce == terms.nonce || terms.single_writer {
        return Ok(Some((first, version)));
    }
    let seen = Instant::now();
    log::info!(
        target: crate::LOG,
        "the mirror {} was written by {}: it is taken over if nothing is heard of that for {:.0} s",
        place.name, first.holder, first.ttl().as_secs_f64(),
    );
    loop {
        sleep(first.ttl() / LOOKS).await;
        // Counted until the request begins: its answer may be as old as that.
        let seen_for = seen.elapsed();
        match LeaseDocument::get(place, keys).await? {
            Some((lease, version)) if lease == first => {
                if seen_for >= first.ttl() {
                    return Ok(Some((lease, version)));
                }
            }
            Some((lease, version)) if lease.is_released => return Ok(Some((lease, version))),
            Some((lease, _)) => {
                return Err(MirrorError::InUse {
                    mirror: place.name.to_string(),
                    holder: lease.holder,
                });
            }
            None => return Ok(None),
        }
    }
}

impl Lease {
    async fn take(
        place: &Place,
        keys: &Keys,
        terms: &Terms,
        listed: &[Ordinal],
    ) -> Result<Self, MirrorError> {
        let before = wait(place, keys, terms).await?;
        let epoch = before.as_ref().map_or(0, |(lease, _)| lease.epoch);
        let newest = listed.iter().map(|ordinal| ordinal.epoch).max();
        let generations = match &before {
            Some((lease, _)) => lease.generations.clone(),
            None => listed.to_vec(),
        };
        let lease = Self {
            place: place.clone(),
            keys: keys.clone(),
            terms: terms.clone(),
            held: Mutex::new(Held {
                document: LeaseDocument {
                    format: FORMAT,
                    epoch: epoch.max(newest.unwrap_or_default()) + 1,
                    nonce: terms.nonce.clone(),
                    holder: terms.holder.clone(),
                    ttl_ms: u64::try_from(terms.ttl.as_millis()).unwrap_or(u64::MAX),
                    beat: 0,
                    is_released: false,
                    generations,
                },
                version: before.map_or(NO_VERSION, |(_, version)| version),
                renewed: Instant::now(),
                is_lost: false,
            }),
        };
        lease.establish().await?;
        Ok(lease)
    }

    /// Puts the lease for the first time, and finds out whether the place lets only one process do that.
    async fn establish(&self) -> Result<(), MirrorError> {
        let mut held = self.held.lock().await;
        let taken = self.put(&mut held).await;
        taken.map_err(|error| match error {
            MirrorError::LeaseLost { mirror, holder } => MirrorError::InUse { mirror, holder },
            other => other,
        })?;
        if self.terms.single_writer {
            return Ok(());
        }
        let first = held.version.clone();
        self.put(&mut held).await?;
        // A place that takes no notice of conditions takes these, too. They change nothing.
        if let Put::Done(_) = self.probe(&held, When::Unchanged(first)).await? {
            return Err(self.place.unconditional());
        }
        if let Put::Done(version) = self.probe(&held, When::Absent).await? {
            // Or somebody has just deleted it.
            held.version = version;
            if let Put::Done(_) = self.probe(&held, When::Absent).await? {
                return Err(self.place.unconditional());
            }
        }
        Ok(())
    }

    async fn probe(&self, held: &Held, when: When) -> Result<Put, MirrorError> {
        let bytes = document::write(&held.document);
        self.place.put(&self.keys.lease(), bytes, when).await
    }

    /// The epoch of this process.
    pub(crate) async fn epoch(&self) -> u64 {
        self.held.lock().await.document.epoch
    }

    pub(crate) fn nonce(&self) -> &str {
        &self.terms.nonce
    }

    pub(crate) fn ttl(&self) -> Duration {
        self.terms.ttl
    }

    /// When to put an object that is not there yet: where nobody else writes, without a condition.
    pub(crate) fn if_absent(&self) -> When {
        match self.terms.single_writer {
            true => When::Always,
            false => When::Absent,
        }
    }

    /// The generations that are to be read, the oldest first.
    pub(crate) async fn generations(&self) -> Vec<Ordinal> {
        self.held.lock().await.document.generations.clone()
    }

    /// Renews the lease, and changes which generations are to be read.
    ///
    /// # Errors
    ///
    /// [`MirrorError::LeaseLost`] if another process has it, and errors of requests.
    pub(crate) async fn rename(
        &self,
        change: impl FnOnce(&mut Vec<Ordinal>),
    ) -> Result<(), MirrorError> {
        let mut held = self.held.lock().await;
        let before = held.document.generations.clone();
        change(&mut held.document.generations);
        let renewed = self.put(&mut held).await;
        if renewed.is_err() {
            held.document.generations = before;
        }
        renewed
    }

    /// Makes sure that the lease is this process's for a while: what nobody else may rely on can be deleted.
    ///
    /// # Errors
    ///
    /// Those of [`rename`](Self::rename).
    pub(crate) async fn fence(&self) -> Result<(), MirrorError> {
        let mut held = self.held.lock().await;
        match held.renewed.elapsed() < self.terms.ttl / RENEWALS && !held.is_lost {
            true => Ok(()),
            false => self.put(&mut held).await,
        }
    }

    /// Renews the lease whenever it is time to; ends when it is lost.
    async fn keep(&self) -> MirrorError {
        loop {
            sleep(self.terms.ttl / RENEWALS).await;
            match self.fence().await {
                Err(error) if error.is_loss() => return error,
                Err(error) => log::debug!(target: crate::LOG, "the lease is not renewed: {error}"),
                Ok(()) => {}
            }
        }
    }

    /// The process ends, and nobody has to wait for it.
    pub(crate) async fn release(&self) -> Result<(), MirrorError> {
        let mut held = self.held.lock().await;
        held.document.is_released = true;
        self.put(&mut held).await
    }

    /// Puts what is held, if nobody else has put a lease since. Whether a put without a clear answer was done is found
    /// out.
    async fn put(&self, held: &mut MutexGuard<'_, Held>) -> Result<(), MirrorError> {
        if held.is_lost {
            return Err(self.lost("another process".to_owned()));
        }
        let mut failure = None;
        for _ in 0..TRIES {
            held.document.beat += 1;
            let began = Instant::now();
            let when = match &held.version {
                _ if self.terms.single_writer => When::Always,
                version if *version == NO_VERSION => When::Absent,
                version => When::Unchanged(version.clone()),
            };
            let bytes = document::write(&held.document);
            failure = match self.place.put(&self.keys.lease(), bytes, when).await {
                Ok(Put::Done(version)) => {
                    (held.version, held.renewed) = (version, began);
                    return Ok(());
                }
                Ok(Put::Refused) => None,
                Err(error @ MirrorError::NoConditionalPut { .. }) => return Err(error),
                Err(error) => Some(error),
            };
            match LeaseDocument::get(&self.place, &self.keys).await {
                Ok(Some((lease, version))) if lease == held.document => {
                    (held.version, held.renewed) = (version, began);
                    return Ok(());
                }
                // An earlier one of this process, which was not known to be there.
                Ok(Some((lease, version))) if lease.nonce == held.document.nonce => {
                    held.version = version;
                }
                Ok(Some((lease, _))) if failure.is_none() || lease.epoch >= held.document.epoch => {
                    held.is_lost = true;
                    return Err(self.lost(lease.holder));
                }
                // Somebody has deleted it: a training that has ended, or its user.
                Ok(None) if failure.is_none() => {
                    held.is_lost = true;
                    return Err(self.lost("somebody who has deleted its lease".to_owned()));
                }
                Ok(_) | Err(_) => break,
            }
        }
        Err(failure.unwrap_or_else(|| self.unclear()))
    }

    fn unclear(&self) -> MirrorError {
        MirrorError::Request {
            action: "put",
            object: self.keys.lease().to_string(),
            mirror: self.place.name.to_string(),
            kind: crate::error::RequestFailure::Unreachable,
            source: crate::error::Cause("it was changed meanwhile".to_owned()),
        }
    }

    fn lost(&self, holder: String) -> MirrorError {
        MirrorError::LeaseLost {
            mirror: self.place.name.to_string(),
            holder,
        }
    }
}
