//! Removes what is no longer needed: first manifests, then parts that no manifest names.

use std::collections::HashSet;
use std::time::Duration;

use object_store::path::Path;
use tokio::time::Instant;

use crate::error::{MirrorError, caused_by};
use crate::keys::{Kind, Ordinal, PartRef, parse};
use crate::place::Place;
use crate::publish::Publisher;
use crate::retention::Retention;

/// How long unnamed objects of other processes are kept, because a process may be about to name them.
pub(crate) const GRACE: Duration = Duration::from_secs(3600);

/// Deletes objects. An object that can't be deleted stays, with one warning, because some buckets are made to keep
/// objects.
#[derive(Default)]
pub(crate) struct Deleter {
    has_said: bool,
}

impl Deleter {
    pub(crate) async fn sweep(&mut self, place: &Place, path: &Path) {
        let Err(error) = place.delete(path).await else {
            return;
        };
        match self.has_said {
            true => log::debug!(target: crate::LOG, "{error}"),
            false => log::warn!(
                target: crate::LOG,
                "old data stays in the mirror: {error}{}", caused_by(&error),
            ),
        }
        self.has_said = true;
    }
}

/// Parts that no generation names any more. They are deleted once no other process can depend on them: a new lease
/// holder has waited for the lease's time to live.
#[derive(Default)]
pub(crate) struct UnreferencedParts(Vec<(Instant, PartRef)>);

impl UnreferencedParts {
    pub(crate) fn add(&mut self, parts: impl IntoIterator<Item = PartRef>) {
        let now = Instant::now();
        self.0.extend(parts.into_iter().map(|part| (now, part)));
    }

    /// Removes and returns the parts that no generation has named for at least `min_age`.
    fn take(&mut self, min_age: Duration) -> Vec<PartRef> {
        let is_over = |(since, _): &mut (Instant, PartRef)| since.elapsed() >= min_age;
        let over = self.0.extract_if(.., is_over);
        over.map(|(_, part)| part).collect()
    }
}

impl Publisher {
    /// Keeps the generations that `retention` chooses. It is asked only about whole ones; all others are removed.
    ///
    /// # Errors
    ///
    /// [`MirrorError::LeaseLost`], [`MirrorError::LeaseDeleted`], and errors of requests.
    pub(crate) async fn prune(
        &mut self,
        retention: &dyn Retention,
        deleter: &mut Deleter,
    ) -> Result<(), MirrorError> {
        let named = self.lease.generations().await;
        let mut kept: Vec<Ordinal> = named.clone();
        kept.retain(|ordinal| self.contents.has_generation(*ordinal));
        // If several generations have the same number, the one that was put last is kept.
        kept.sort_unstable_by(|a, b| b.cmp(a));
        let mut numbers = HashSet::new();
        kept.retain(|ordinal| numbers.insert(ordinal.number));
        let newest_first: Vec<_> = kept.iter().map(|ordinal| ordinal.number).collect();
        let stay = retention.kept(&newest_first);
        kept.retain(|ordinal| stay.contains(&ordinal.number));
        kept.reverse();
        let pruned: Vec<Ordinal> = named
            .into_iter()
            .filter(|ordinal| !kept.contains(ordinal))
            .collect();
        if !pruned.is_empty() {
            // From here on, no process reads the pruned ones.
            self.lease
                .update_generations(|generations| *generations = kept)
                .await?;
            for ordinal in pruned {
                self.lease.fence().await?;
                deleter
                    .sweep(&self.place, &self.keys.generation(ordinal))
                    .await;
                let parts = self.contents.forget(ordinal);
                self.retired.add(parts);
            }
        }
        for part in self.retired.take(self.lease.ttl()) {
            // The part may be needed again.
            if !self.contents.has(&part) {
                self.lease.fence().await?;
                deleter.sweep(&self.place, &self.keys.part(&part)).await;
            }
        }
        Ok(())
    }

    /// Removes the remains of processes that have ended.
    ///
    /// # Errors
    ///
    /// [`MirrorError::LeaseLost`], [`MirrorError::LeaseDeleted`], and errors of requests.
    pub(crate) async fn prune_orphans(&mut self, deleter: &mut Deleter) -> Result<(), MirrorError> {
        let objects = self.place.list(self.keys.root()).await?;
        // The lease is renewed after the listing, so that the current holder knows all named generations.
        self.lease.update_generations(|_| ()).await?;
        // Ages are measured by the server's clock.
        let lease = self.place.head(&self.keys.lease()).await?;
        let Some(now) = lease.map(|lease| lease.last_modified) else {
            return Ok(());
        };
        let named: HashSet<Ordinal> = self.lease.generations().await.into_iter().collect();
        if !named
            .iter()
            .all(|ordinal| self.contents.has_generation(*ordinal))
        {
            // It is unknown which parts are needed.
            return Ok(());
        }
        let live: HashSet<PartRef> = self.contents.live();
        let (mut manifests, mut parts) = (Vec::new(), Vec::new());
        for object in objects {
            let age = (now - object.last_modified).to_std().unwrap_or_default();
            if age < GRACE {
                continue;
            }
            match parse(&self.place.prefix, &object.location) {
                Some((_, Kind::Generation(ordinal))) if !named.contains(&ordinal) => {
                    manifests.push(object.location);
                }
                Some((_, Kind::Part(part))) if !live.contains(&part) => parts.push(object.location),
                _ => {}
            }
        }
        for path in manifests.iter().chain(&parts) {
            self.lease.fence().await?;
            deleter.sweep(&self.place, path).await;
        }
        Ok(())
    }
}
