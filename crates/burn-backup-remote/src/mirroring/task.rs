//! The work of a mirror's thread.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use burn_backup_store::{GenerationId, Manifest, Pinned};
use object_store::path::Path;
use tokio::time::{Instant, sleep, timeout};

use super::shared::{EndRequest, Next, Shared};
use super::{Listener, MirrorEvent};
use crate::document::Document;
use crate::error::{MirrorError, caused_by};
use crate::finish::{FinishedDocument, finish};
use crate::keys::{Keys, Kind, Ordinal, PartRef, parse};
use crate::lease::{Lease, LeaseRenewer, LeaseSettings};
use crate::pace::Pace;
use crate::place::Place;
use crate::prune::{Deleter, GRACE, UnreferencedParts};
use crate::publish::{Contents, Publisher};
use crate::retention::Retention;
use crate::survey::{Survey, SurveyQuery, refuse_others, survey};

/// The wait after a failure before the next try. It doubles with each further failure in a row.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// How long the end of a process waits for requests.
const LEAVE_LIMIT: Duration = Duration::from_secs(4);

/// What to mirror, and where.
pub(crate) struct Task {
    pub place: Place,
    pub terms: LeaseSettings,
    pub question: SurveyQuery,
    /// What the mirror holds; `None` if it could not be used.
    pub survey: Option<Survey>,
    /// The lease, if it is already held.
    pub renewer: Option<LeaseRenewer>,
    /// Generations that are known to be damaged.
    pub damaged: Vec<Ordinal>,
    /// The generation that the training resumed from.
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

    /// Handles a finished training. If its last generation was restored, there is nothing to do.
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

/// Records that the thread has ended, in any way.
struct OnEnd(Arc<Shared>);

impl Drop for OnEnd {
    fn drop(&mut self) {
        self.0.ends(Some(Arc::new(MirrorError::ThreadEnded)));
    }
}

/// The outcome of claiming the mirror.
enum Claim {
    /// This process may write.
    Writes(Box<Writer>),
    /// The training is finished and its last generation was restored, so there is nothing to mirror.
    IsFinished,
    /// A request to leave came first.
    IsLeft,
}

/// Mirrors committed generations, until it is asked to end or another process takes the lease.
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
            if let Some(renewer) = &task.renewer {
                release(&renewer.lease).await;
            }
            Ok(())
        }
        Err(error) => {
            // Release the lease, so that another process need not wait.
            if let Some(renewer) = &task.renewer {
                release(&renewer.lease).await;
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

/// The state of the process that holds the lease.
struct Writer {
    publisher: Publisher,
    renewer: LeaseRenewer,
    retention: Arc<dyn Retention>,
    deleter: Deleter,
    /// When the remains of other processes were last removed.
    swept: Option<Instant>,
    /// The remains of other trainings.
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
    let renewer = match task.renewer.take() {
        Some(renewer) => renewer,
        None => {
            let (place, terms) = (&task.place, &task.terms);
            LeaseRenewer::take(place, &keys, terms, &found.generations).await?
        }
    };
    // The previous lease holder may have finished the training during the wait.
    if let Some(document) = FinishedDocument::get(&task.place, &keys).await? {
        release(&renewer.lease).await;
        return task.finished(&document, shared);
    }
    let mut leftovers = found.leftovers;
    if task.begins {
        match refuse_others(&task.place, &task.question.run_id, &task.terms).await {
            Ok(more) => leftovers.extend(more),
            Err(error) if error.is_unavailable() => {
                task.renewer = Some(renewer);
                return Err(error);
            }
            // This lease must not stay in another process's way. If two processes refuse each other, both do this, and
            // neither begins.
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
            lease: renewer.lease.clone(),
            pace: task.pace.clone(),
            contents: Contents::default(),
            retired: UnreferencedParts::default(),
            sent: shared.sent.clone(),
            open: Default::default(),
        },
        renewer,
        retention: task.retention.clone(),
        deleter: Deleter::default(),
        swept: None,
        leftovers,
        shared: shared.clone(),
    };
    match writer.learn(&task.damaged, task.base).await {
        Ok(()) => Ok(Claim::Writes(Box::new(writer))),
        Err(error) => {
            task.renewer = Some(writer.renewer);
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
        // These were named but never put. A process that puts one now has lost the lease.
        lease
            .update_generations(|generations| {
                generations.retain(|ordinal| !missing.contains(ordinal))
            })
            .await?;
        self.shared.held(contents.newest());
        Ok(())
    }

    async fn run(mut self, listener: &Listener, tries: &mut Tries) -> Result<(), MirrorError> {
        let shared = self.shared.clone();
        tries.succeeded(listener);
        loop {
            let next = tokio::select! {
                error = self.renewer.lost() => return Err(error),
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
                error = self.renewer.lost() => Err(error),
                // The next turn handles the request to leave.
                () = shared.is_left() => Ok(false),
            };
            // The upload may be incomplete.
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
                release(&self.renewer.lease).await;
                return Ok(());
            }
            tokio::select! {
                error = self.renewer.lost() => return Err(error),
                () = pause(wait, &shared) => {}
            }
        }
    }

    /// Removes what is no longer needed. Only a lost lease is an error; other failures are left to the next time.
    async fn tidy(&mut self) -> Result<(), MirrorError> {
        match self.try_tidy().await {
            Err(error) if !error.is_loss() => {
                log::debug!(target: crate::LOG, "the removal is tried again later: {error}");
                Ok(())
            }
            tidied => tidied,
        }
    }

    async fn try_tidy(&mut self) -> Result<(), MirrorError> {
        let (publisher, deleter) = (&mut self.publisher, &mut self.deleter);
        publisher.prune(self.retention.as_ref(), deleter).await?;
        for path in std::mem::take(&mut self.leftovers) {
            deleter.sweep(&publisher.place, &path).await;
        }
        if self.swept.is_none_or(|swept| swept.elapsed() >= GRACE) {
            publisher.prune_orphans(deleter).await?;
            self.swept = Some(Instant::now());
        }
        Ok(())
    }

    async fn end(self, ask: EndRequest) {
        let Publisher {
            place,
            keys,
            lease,
            contents,
            ..
        } = &self.publisher;
        match ask {
            EndRequest::Finish(out) => match finish(place, keys, lease).await {
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
            EndRequest::Leave(out) => {
                release(lease).await;
                // The asking process may have stopped waiting.
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
        // The listener is told before a waiting caller continues.
        listener(MirrorEvent::Mirrored(pinned.id()));
    }
    shared.mirrored(pinned.id(), is_new);
    log::debug!(target: crate::LOG, "generation {} is mirrored", pinned.id());
    Ok(())
}

/// Waits for the end, because there is nothing to mirror.
async fn idle(shared: &Shared) {
    loop {
        match shared.next().await {
            Next::Publish(pinned) => shared.mirrored(pinned.id(), false),
            Next::End(EndRequest::Finish(out)) => return drop(out.send(Ok(BTreeSet::new()))),
            Next::End(EndRequest::Leave(out)) => {
                // The asking process may have stopped waiting.
                let _ = out.send(());
                return;
            }
        }
    }
}

/// The length of each part in a listing.
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

/// Whether all parts exist with their lengths. A listing may not show all of them yet.
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

/// Releases the lease, so that another process can take it at once.
async fn release(lease: &Lease) {
    match timeout(LEAVE_LIMIT, lease.release()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log::debug!(target: crate::LOG, "the lease is not released: {error}"),
        Err(_) => log::debug!(target: crate::LOG, "the lease is not released in time"),
    }
}

/// The number of failed tries in a row.
#[derive(Default)]
struct Tries {
    failed: u32,
}

impl Tries {
    /// Logs the first failure in a row as a warning. Returns how long to wait.
    fn failed(&mut self, error: &Arc<MirrorError>, listener: &Listener) -> Duration {
        let factor = 2_u32.saturating_pow(self.failed);
        let wait = RETRY_AFTER.saturating_mul(factor).min(MAX_RETRY_AFTER);
        let (cause, seconds) = (caused_by(error), wait.as_secs());
        let said = format!("{error}{cause}; the next try is in {seconds} s");
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

/// Waits this long, unless a caller is waiting for the result.
async fn pause(wait: Duration, shared: &Shared) {
    tokio::select! {
        () = sleep(wait) => {}
        () = shared.is_hurried() => {}
    }
}
