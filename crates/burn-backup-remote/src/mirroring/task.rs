//! What the thread of a mirror does.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use burn_backup_store::{GenerationId, Manifest, Pinned};
use object_store::path::Path;
use tokio::time::{Instant, sleep, timeout};

use super::shared::{Ask, Next, Shared};
use super::{Listener, MirrorEvent};
use crate::document::Document;
use crate::error::{MirrorError, caused_by};
use crate::finish::{FinishedDocument, finish};
use crate::keys::{Keys, Kind, Ordinal, PartRef, parse};
use crate::lease::{Keeper, Lease, Terms};
use crate::pace::Pace;
use crate::place::Place;
use crate::prune::{Broom, GRACE, Retired};
use crate::publish::{Contents, Publisher};
use crate::retention::Retention;
use crate::survey::{Question, Survey, refuse_others, survey};

/// After a failure the next try waits this long, and twice as long after each further one in a row.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// How long the end of a process waits for requests.
const LEAVE_LIMIT: Duration = Duration::from_secs(4);

/// What is to be mirrored, and where.
pub(crate) struct Task {
    pub place: Place,
    pub terms: Terms,
    pub question: Question,
    /// `None` if the mirror could not be used.
    pub survey: Option<Survey>,
    /// If the lease is held already.
    pub keeper: Option<Keeper>,
    /// Generations that are known to be damaged.
    pub damaged: Vec<Ordinal>,
    /// The generation that the training goes on from.
    pub base: Option<GenerationId>,
    /// Whether the mirror has nothing of the training yet.
    pub begins: bool,
    pub pace: Arc<Pace>,
    pub retention: Arc<dyn Retention>,
    pub listener: Listener,
}

impl Task {
    pub(crate) fn keys(&self) -> Keys {
        Keys::new(&self.place.prefix, &self.question.run_id)
    }

    /// The training has run to its end. If that is what was restored, there is nothing to do.
    fn finished(&self, finished: &FinishedDocument, shared: &Shared) -> Result<Claim, MirrorError> {
        if self.base < Some(finished.newest) {
            return Err(MirrorError::Finished {
                mirror: self.place.name.to_string(),
            });
        }
        shared.held(self.base);
        Ok(Claim::IsFinished)
    }
}

/// Says that the thread has ended, however it does.
struct OnEnd(Arc<Shared>);

impl Drop for OnEnd {
    fn drop(&mut self) {
        self.0.ends(Some(Arc::new(MirrorError::ThreadEnded)));
    }
}

/// How the mirroring begins.
enum Claim {
    /// This process may write.
    Writes(Box<Writer>),
    /// There is nothing to mirror: the training has run to its end, and that is what was restored.
    IsFinished,
    /// It was asked to end before.
    IsLeft,
}

/// Mirrors what is committed, until it is asked to end or another process has the mirror.
pub(crate) async fn run(mut task: Task, shared: Arc<Shared>) {
    let _on_end = OnEnd(shared.clone());
    let mut tries = Tries::default();
    let ended = match claim(&mut task, &shared, &mut tries).await {
        Ok(Claim::Writes(writer)) => writer.run(&task.listener, &mut tries).await,
        Ok(Claim::IsFinished) => {
            idle(&shared).await;
            Ok(())
        }
        Ok(Claim::IsLeft) => {
            if let Some(keeper) = &task.keeper {
                release(&keeper.lease).await;
            }
            Ok(())
        }
        Err(error) => {
            // Another process need not wait for this one.
            if let Some(keeper) = &task.keeper {
                release(&keeper.lease).await;
            }
            Err(error)
        }
    };
    let error = ended.err().map(Arc::new);
    if let Some(error) = &error {
        log::error!(
            target: crate::LOG,
            "NOTHING IS MIRRORED ANY MORE: {error}{}", caused_by(error),
        );
        (task.listener)(MirrorEvent::Stopped(error.clone()));
    }
    shared.ends(error);
}

/// The process that may write to the mirror.
struct Writer {
    publisher: Publisher,
    keeper: Keeper,
    retention: Arc<dyn Retention>,
    broom: Broom,
    /// When it was last looked for what others have left behind.
    swept: Option<Instant>,
    /// What is left of other trainings.
    leftovers: Vec<Path>,
    shared: Arc<Shared>,
}

/// Waits until this process may write to the mirror.
async fn claim(
    task: &mut Task,
    shared: &Arc<Shared>,
    tries: &mut Tries,
) -> Result<Claim, MirrorError> {
    loop {
        let claimed = tokio::select! {
            claimed = try_claim(task, shared) => claimed,
            () = shared.is_left() => return Ok(Claim::IsLeft),
        };
        let error = match claimed {
            Err(error) if error.is_unavailable() => Arc::new(error),
            other => return other,
        };
        let wait = tries.failed(&error, &task.listener);
        shared.failed(error.clone());
        if shared.refuse_to_finish(&error) {
            return Ok(Claim::IsLeft);
        }
        pause(wait, shared).await;
    }
}

async fn try_claim(task: &mut Task, shared: &Arc<Shared>) -> Result<Claim, MirrorError> {
    let found = match task.survey.take() {
        Some(found) => found,
        None => survey(&task.place, &task.question, &task.terms).await?,
    };
    task.begins |= found.run_id.is_none();
    if let Some(document) = &found.finished {
        return task.finished(document, shared);
    }
    let keys = task.keys();
    let keeper = match task.keeper.take() {
        Some(keeper) => keeper,
        None => {
            let (place, terms) = (&task.place, &task.terms);
            Keeper::take(place, &keys, terms, &found.generations).await?
        }
    };
    // While the lease was waited for, its holder may have come to the end.
    if let Some(document) = FinishedDocument::get(&task.place, &keys).await? {
        release(&keeper.lease).await;
        return task.finished(&document, shared);
    }
    let mut leftovers = found.leftovers;
    if task.begins {
        match refuse_others(&task.place, &task.question.run_id, &task.terms).await {
            Ok(more) => leftovers.extend(more),
            Err(error) if error.is_unavailable() => {
                task.keeper = Some(keeper);
                return Err(error);
            }
            // Both may say so: then neither has begun.
            Err(error) => {
                task.place.delete(&keys.lease()).await?;
                return Err(error);
            }
        }
    }
    let mut writer = Writer {
        publisher: Publisher {
            place: task.place.clone(),
            keys,
            lease: keeper.lease.clone(),
            pace: task.pace.clone(),
            contents: Contents::default(),
            retired: Retired::default(),
            sent: shared.sent.clone(),
            open: Default::default(),
        },
        keeper,
        retention: task.retention.clone(),
        broom: Broom::default(),
        swept: None,
        leftovers,
        shared: shared.clone(),
    };
    match writer.learn(&task.damaged, task.base).await {
        Ok(()) => Ok(Claim::Writes(Box::new(writer))),
        Err(error) => {
            task.keeper = Some(writer.keeper);
            Err(error)
        }
    }
}

impl Writer {
    /// Finds out what is in the mirror.
    async fn learn(
        &mut self,
        damaged: &[Ordinal],
        base: Option<GenerationId>,
    ) -> Result<(), MirrorError> {
        let Publisher {
            place,
            keys,
            lease,
            contents,
            ..
        } = &mut self.publisher;
        let named = lease.generations().await;
        let sizes = match named.is_empty() {
            true => HashMap::new(),
            false => sizes(place, keys).await?,
        };
        let (mut missing, mut newest) = (Vec::new(), None);
        for ordinal in named {
            let path = keys.generation(ordinal);
            if place.head(&path).await?.is_none() {
                missing.push(ordinal);
                continue;
            }
            if damaged.contains(&ordinal) {
                continue;
            }
            newest = newest.max(Some(ordinal.number));
            let document = match Document::get(place, &path, ordinal).await {
                Ok(document) => document,
                Err(error) if error.is_damage() => continue,
                Err(error) => return Err(error),
            };
            if !are_there(place, keys, &document.parts, &sizes).await? {
                continue;
            }
            if let Ok(manifest) = Manifest::unseal(document.manifest.as_bytes()) {
                self.retention.learn(&manifest);
                for (entry, part) in document.located(&manifest).into_iter().flatten() {
                    contents.learn_hash(entry, part);
                }
            }
            contents.learn(ordinal, document);
        }
        if newest > base {
            return Err(MirrorError::Newer {
                mirror: place.name.to_string(),
                found: newest.unwrap_or_default(),
            });
        }
        // They were named and never put there: who puts them now has lost the lease.
        lease
            .rename(|generations| generations.retain(|ordinal| !missing.contains(ordinal)))
            .await?;
        self.shared.held(contents.newest());
        Ok(())
    }

    async fn run(mut self, listener: &Listener, tries: &mut Tries) -> Result<(), MirrorError> {
        let shared = self.shared.clone();
        tries.succeeded(listener);
        loop {
            let next = tokio::select! {
                error = self.keeper.lost() => return Err(error),
                next = shared.next() => next,
            };
            let pinned = match next {
                Next::Publish(pinned) => pinned,
                Next::End(ask) => {
                    self.end(ask).await;
                    return Ok(());
                }
            };
            let put = tokio::select! {
                put = publish(&mut self.publisher, &pinned, &shared, listener) => put.map(|()| true),
                error = self.keeper.lost() => Err(error),
                // Who leaves is asked for at the next turn.
                () = shared.is_left() => Ok(false),
            };
            // It may not have come to its end.
            self.publisher.abort().await;
            let put = match put {
                Ok(true) => self.tidy().await.map(|()| true),
                other => other,
            };
            let error = match put {
                Ok(is_done) => {
                    if is_done {
                        tries.succeeded(listener);
                    }
                    continue;
                }
                Err(error) if error.is_loss() => return Err(error),
                Err(error) => Arc::new(error),
            };
            shared.again(pinned);
            let wait = tries.failed(&error, listener);
            shared.failed(error.clone());
            if shared.refuse_to_finish(&error) {
                release(&self.keeper.lease).await;
                return Ok(());
            }
            tokio::select! {
                error = self.keeper.lost() => return Err(error),
                () = pause(wait, &shared) => {}
            }
        }
    }

    /// Takes away what is not needed any more. What fails except for the lease is left to the next time.
    async fn tidy(&mut self) -> Result<(), MirrorError> {
        match self.try_tidy().await {
            Err(error) if !error.is_loss() => {
                log::debug!(target: crate::LOG, "left to the next time: {error}");
                Ok(())
            }
            tidied => tidied,
        }
    }

    async fn try_tidy(&mut self) -> Result<(), MirrorError> {
        let (publisher, broom) = (&mut self.publisher, &mut self.broom);
        publisher.prune(self.retention.as_ref(), broom).await?;
        for path in std::mem::take(&mut self.leftovers) {
            broom.sweep(&publisher.place, &path).await;
        }
        if self.swept.is_none_or(|swept| swept.elapsed() >= GRACE) {
            publisher.prune_orphans(broom).await?;
            self.swept = Some(Instant::now());
        }
        Ok(())
    }

    async fn end(self, ask: Ask) {
        let Publisher {
            place,
            keys,
            lease,
            contents,
            ..
        } = &self.publisher;
        match ask {
            Ask::Finish(out) => match finish(place, keys, lease).await {
                Ok(()) => {
                    let named = lease.generations().await.into_iter();
                    let documents = named.map(|ordinal| keys.generation(ordinal));
                    let parts = contents.live();
                    let parts = parts.iter().map(|part| keys.part(part));
                    drop(out.send(Ok(documents.chain(parts).collect())));
                }
                Err(error) => {
                    release(lease).await;
                    drop(out.send(Err(Arc::new(error))));
                }
            },
            Ask::Leave(out) => {
                release(lease).await;
                // It may not wait any longer.
                let _ = out.send(());
            }
        }
    }
}

async fn publish(
    publisher: &mut Publisher,
    pinned: &Arc<Pinned>,
    shared: &Shared,
    listener: &Listener,
) -> Result<(), MirrorError> {
    shared.begins();
    let is_new = publisher.publish(pinned).await?;
    if is_new {
        // Before whoever waits for it goes on.
        listener(MirrorEvent::Mirrored(pinned.id()));
    }
    shared.mirrored(pinned.id(), is_new);
    log::debug!(target: crate::LOG, "generation {} is mirrored", pinned.id());
    Ok(())
}

/// There is nothing to mirror: waits for the end.
async fn idle(shared: &Shared) {
    loop {
        match shared.next().await {
            Next::Publish(pinned) => shared.mirrored(pinned.id(), false),
            Next::End(Ask::Finish(out)) => return drop(out.send(Ok(BTreeSet::new()))),
            Next::End(Ask::Leave(out)) => {
                // It may not wait any longer.
                let _ = out.send(());
                return;
            }
        }
    }
}

/// The length of each part that a listing shows.
async fn sizes(place: &Place, keys: &Keys) -> Result<HashMap<PartRef, u64>, MirrorError> {
    let listed = place.list(&keys.parts()).await?;
    let sizes =
        listed
            .into_iter()
            .filter_map(|object| match parse(&place.prefix, &object.location) {
                Some((_, Kind::Part(part))) => Some((part, object.size)),
                _ => None,
            });
    Ok(sizes.collect())
}

/// Whether all parts are there, with their lengths. A listing may not have all of them yet.
async fn are_there(
    place: &Place,
    keys: &Keys,
    parts: &[PartRef],
    listed: &HashMap<PartRef, u64>,
) -> Result<bool, MirrorError> {
    for part in parts {
        let is_there = match listed.get(part) {
            Some(bytes) => *bytes == part.bytes,
            None => {
                let there = place.head(&keys.part(part)).await?;
                there.is_some_and(|there| there.size == part.bytes)
            }
        };
        if !is_there {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Lets another process have the mirror at once.
async fn release(lease: &Lease) {
    match timeout(LEAVE_LIMIT, lease.release()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log::debug!(target: crate::LOG, "the lease is not released: {error}"),
        Err(_) => log::debug!(target: crate::LOG, "the lease is not released in time"),
    }
}

/// Tries in a row that have failed.
#[derive(Default)]
struct Tries {
    failed: u32,
}

impl Tries {
    /// The first failure in a row is said. Gives how long to wait now.
    fn failed(&mut self, error: &Arc<MirrorError>, listener: &Listener) -> Duration {
        let factor = 2_u32.saturating_pow(self.failed);
        let wait = RETRY_AFTER.saturating_mul(factor).min(MAX_RETRY_AFTER);
        let (cause, seconds) = (caused_by(error), wait.as_secs());
        let said = format!("{error}{cause}; it is tried again in {seconds} s");
        match self.failed {
            0 => {
                log::warn!(target: crate::LOG, "{said}");
                listener(MirrorEvent::Failed(error.clone()));
            }
            _ => log::debug!(target: crate::LOG, "{said}"),
        }
        self.failed = self.failed.saturating_add(1);
        wait
    }

    fn succeeded(&mut self, listener: &Listener) {
        if std::mem::take(&mut self.failed) > 0 {
            log::warn!(target: crate::LOG, "the mirror works again");
            listener(MirrorEvent::Recovered);
        }
    }
}

/// Waits so long, unless somebody waits for this.
async fn pause(wait: Duration, shared: &Shared) {
    tokio::select! {
        () = sleep(wait) => {}
        () = shared.is_hurried() => {}
    }
}
