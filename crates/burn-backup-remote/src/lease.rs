//! The permission to write to a mirror. One process at a time has it, as with the lock of a directory.
//!
//! An object store has no locks. So the process that writes puts its name into `lease.json`, and puts it again and
//! again (*renews* it). Another process takes the lease over after it has seen the same lease for as long as the lease
//! says, by its own clock. Every holder has an *epoch* that is greater than the epochs before. A holder that was
//! suspended meanwhile notices the loss at its next renewal, because the object is not the one that it put.
//!
//! The lease also names the generations that readers use, called the *readable* ones. A generation is named before its
//! document is put, so no listing is needed to find it. A generation that is put by a process without the lease is
//! never named.

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
use crate::place::{Place, Put, PutCondition};

/// The longest possible time to live of a lease.
pub(crate) const MAX_TTL: Duration = Duration::from_secs(600);

/// How often a lease is renewed during its time to live.
const RENEWALS: u32 = 3;

/// How many times another process's lease is read during its time to live.
const LEASE_READS: u32 = 5;

/// How often a put is tried again if an earlier one of this process is found instead.
const TRIES: u32 = 3;

/// The version of an object that is missing.
const NO_VERSION: UpdateVersion = UpdateVersion {
    e_tag: None,
    version: None,
};

/// `lease.json`. Every version that is put is different, because some stores tell objects apart by their contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaseDocument {
    format: u32,
    pub epoch: u64,
    /// A random number of the holder's.
    pub nonce: String,
    /// The name that the holder gave itself, for people to read.
    pub holder: String,
    /// The lease's time to live, in milliseconds.
    ttl_ms: u64,
    /// How often the holder has put the lease.
    beat: u64,
    /// Whether the holder has released the lease.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_released: bool,
    /// The readable generations, oldest first. The document of the last one may be missing yet.
    pub generations: Vec<Ordinal>,
}

/// The settings for a lease.
#[derive(Debug, Clone)]
pub(crate) struct LeaseSettings {
    pub nonce: String,
    pub holder: String,
    pub ttl: Duration,
    /// Whether no other process ever writes: puts are then unconditional, and no lease is waited for.
    pub single_writer: bool,
}

/// The lease that this process holds.
pub(crate) struct Lease {
    place: Place,
    keys: Keys,
    terms: LeaseSettings,
    held: Mutex<Held>,
}

/// Renews a lease on its own task, while this value exists.
pub(crate) struct LeaseRenewer {
    pub lease: Arc<Lease>,
    task: JoinHandle<MirrorError>,
}

struct Held {
    document: LeaseDocument,
    version: UpdateVersion,
    renewed: Instant,
    /// How this process lost the lease, if it did.
    loss: Option<Loss>,
}

/// How a lease was lost.
enum Loss {
    /// Another process, which gave itself this name, has taken it.
    Taken(String),
    Deleted,
}

impl LeaseDocument {
    /// Gets the lease of a training; `None` if it has none.
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

impl LeaseRenewer {
    /// Takes the lease of the training, and keeps it renewed. If another process seems to hold the lease, this takes as
    /// long as its time to live. `listed` are the readable generations if there is no lease yet.
    ///
    /// # Errors
    ///
    /// [`MirrorError::InUse`] if another process holds it, [`MirrorError::NoConditionalPut`], and errors of
    /// requests.
    pub(crate) async fn take(
        place: &Place,
        keys: &Keys,
        terms: &LeaseSettings,
        listed: &[Ordinal],
    ) -> Result<Self, MirrorError> {
        let lease = Arc::new(Lease::take(place, keys, terms, listed).await?);
        let kept = lease.clone();
        let task = tokio::spawn(async move { kept.keep().await });
        Ok(Self { lease, task })
    }

    /// Waits until the lease is lost, and returns the reason.
    pub(crate) async fn lost(&mut self) -> MirrorError {
        let lost = (&mut self.task).await;
        lost.unwrap_or(MirrorError::ThreadEnded)
    }
}

impl Drop for LeaseRenewer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits until the lease can be taken, and returns the current lease.
///
/// # Errors
///
/// [`MirrorError::InUse`] if another process renews the lease meanwhile, and errors of requests.
pub(crate) async fn wait(
    place: &Place,
    keys: &Keys,
    terms: &LeaseSettings,
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
        "the mirror {} was written by {}: its lease is taken over if it is not renewed for {:.0} s",
        place.name, first.holder, first.ttl().as_secs_f64(),
    );
    loop {
        sleep(first.ttl() / LEASE_READS).await;
        // The time is measured up to the start of the request, because its answer may be as old as that.
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
        terms: &LeaseSettings,
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
                loss: None,
            }),
        };
        lease.establish().await?;
        Ok(lease)
    }

    /// Puts the lease for the first time, and checks that the place lets only one process do so.
    async fn establish(&self) -> Result<(), MirrorError> {
        let mut held = self.held.lock().await;
        let taken = self.put(&mut held).await;
        taken.map_err(|error| match error {
            MirrorError::LeaseLost { mirror, holder } => MirrorError::InUse { mirror, holder },
            // The previous holder's lease was deleted meanwhile.
            MirrorError::LeaseDeleted { .. } => self.unclear(),
            other => other,
        })?;
        if self.terms.single_writer {
            return Ok(());
        }
        let first = held.version.clone();
        self.put(&mut held).await?;
        // A place that ignores conditions accepts these puts too. They change nothing.
        if let Put::Done(_) = self.probe(&held, PutCondition::Unchanged(first)).await? {
            return Err(self.place.unconditional());
        }
        if let Put::Done(version) = self.probe(&held, PutCondition::Absent).await? {
            // Or the lease was just deleted.
            held.version = version;
            if let Put::Done(_) = self.probe(&held, PutCondition::Absent).await? {
                return Err(self.place.unconditional());
            }
        }
        Ok(())
    }

    async fn probe(&self, held: &Held, when: PutCondition) -> Result<Put, MirrorError> {
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

    /// The condition for a put of a new object: none if no other process writes.
    pub(crate) fn if_absent(&self) -> PutCondition {
        match self.terms.single_writer {
            true => PutCondition::Always,
            false => PutCondition::Absent,
        }
    }

    /// The readable generations, oldest first.
    pub(crate) async fn generations(&self) -> Vec<Ordinal> {
        self.held.lock().await.document.generations.clone()
    }

    /// Renews the lease with a changed list of readable generations.
    ///
    /// # Errors
    ///
    /// [`MirrorError::LeaseLost`] if another process holds the lease, [`MirrorError::LeaseDeleted`], and errors of
    /// requests.
    pub(crate) async fn update_generations(
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

    /// Makes sure that this process holds the lease for some time. Then it can delete what no other process may depend
    /// on.
    ///
    /// # Errors
    ///
    /// The errors of [`update_generations`](Self::update_generations).
    pub(crate) async fn fence(&self) -> Result<(), MirrorError> {
        let mut held = self.held.lock().await;
        match held.renewed.elapsed() < self.terms.ttl / RENEWALS && held.loss.is_none() {
            true => Ok(()),
            false => self.put(&mut held).await,
        }
    }

    /// Renews the lease whenever it is due; returns when the lease is lost.
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

    /// Releases the lease at the end of the process, so that no other process has to wait.
    pub(crate) async fn release(&self) -> Result<(), MirrorError> {
        let mut held = self.held.lock().await;
        held.document.is_released = true;
        self.put(&mut held).await
    }

    /// Puts the held lease, if no other process has put one since. If the answer of a put is unclear, reads the lease
    /// to find out whether it succeeded.
    async fn put(&self, held: &mut MutexGuard<'_, Held>) -> Result<(), MirrorError> {
        match &held.loss {
            Some(Loss::Taken(holder)) => return Err(self.lost(holder.clone())),
            Some(Loss::Deleted) => return Err(self.deleted()),
            None => {}
        }
        let mut failure = None;
        for _ in 0..TRIES {
            held.document.beat += 1;
            let began = Instant::now();
            let when = match &held.version {
                _ if self.terms.single_writer => PutCondition::Always,
                version if *version == NO_VERSION => PutCondition::Absent,
                version => PutCondition::Unchanged(version.clone()),
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
                // An earlier put of this process, which seemed to have failed.
                Ok(Some((lease, version))) if lease.nonce == held.document.nonce => {
                    held.version = version;
                }
                Ok(Some((lease, _))) if failure.is_none() || lease.epoch >= held.document.epoch => {
                    held.loss = Some(Loss::Taken(lease.holder.clone()));
                    return Err(self.lost(lease.holder));
                }
                // The lease was deleted, by a training that has ended or by a user.
                Ok(None) if failure.is_none() => {
                    held.loss = Some(Loss::Deleted);
                    return Err(self.deleted());
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

    fn deleted(&self) -> MirrorError {
        MirrorError::LeaseDeleted {
            mirror: self.place.name.to_string(),
        }
    }

    fn lost(&self, holder: String) -> MirrorError {
        MirrorError::LeaseLost {
            mirror: self.place.name.to_string(),
            holder,
        }
    }
}
