//! Removes the generations that the retention policy no longer keeps.

use std::collections::BTreeSet;

use crate::commit::Committed;
use crate::error::{Damage, StoreError};
use crate::index::Known;
use crate::layout::GenerationId;
use crate::observe::{Observation, Observer, OpenGeneration};
use crate::ownership::IfGone;
use crate::store::Store;
use crate::{discover, remove, sweep, verify};

const LOG: &str = "burn_backup::prune";

/// The generations to remove if the newest `keep` stay. At least one always stays.
pub fn to_prune(generations: &[GenerationId], keep: usize) -> Vec<GenerationId> {
    let mut newest_first = generations.to_vec();
    newest_first.sort_unstable_by(|a, b| b.cmp(a));
    newest_first.into_iter().skip(keep.max(1)).collect()
}

/// Given whole generations, newest first, returns the ones to keep.
pub type Decide<'d> = dyn Fn(&[GenerationId]) -> BTreeSet<GenerationId> + 'd;

/// Keeps the newest `keep` ones.
fn newest(keep: usize) -> impl Fn(&[GenerationId]) -> BTreeSet<GenerationId> {
    move |generations| generations.iter().take(keep.max(1)).copied().collect()
}

/// The generations to remove, newest first. The newest whole one always stays. A damaged one does not count as kept: it
/// is removed if a whole one in its position would be removed.
fn to_prune_past(
    whole: &[GenerationId],
    damaged: &[GenerationId],
    decide: &Decide<'_>,
) -> Vec<GenerationId> {
    let kept = |generations: &[GenerationId]| {
        let mut newest_first = generations.to_vec();
        newest_first.sort_unstable_by(|a, b| b.cmp(a));
        let mut kept = decide(&newest_first);
        kept.extend(newest_first.first());
        kept
    };
    let stay = kept(whole);
    let mut pruned: Vec<_> = whole.iter().filter(|id| !stay.contains(id)).collect();
    pruned.extend(damaged.iter().filter(|id| {
        let with_it: Vec<_> = whole.iter().chain([*id]).copied().collect();
        !kept(&with_it).contains(id)
    }));
    let mut pruned: Vec<_> = pruned.into_iter().copied().collect();
    pruned.sort_unstable_by(|a, b| b.cmp(a));
    pruned
}

impl Store {
    /// Removes all generations of this training except the newest `keep` whole ones, oldest first, and returns them. A
    /// generation known to be damaged is not counted. It is removed once `keep` newer whole ones exist. Also tries
    /// again to remove what could not be removed before. Pruning requires a commit.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if a call fails. The others are removed in any case, and the generations that stay are not
    /// touched. [`StoreError::Gone`] and [`StoreError::TakenOver`] if the directory no longer belongs to this store.
    pub fn prune(
        &self,
        committed: &Committed,
        keep: usize,
    ) -> Result<Vec<GenerationId>, StoreError> {
        self.prune_with(committed, &newest(keep))
    }

    /// Like [`prune`](Self::prune), but `decide` chooses which whole generations of this training stay, given newest
    /// first. The newest one always stays. For each damaged generation, `decide` is called again as if that one were
    /// whole.
    ///
    /// # Errors
    ///
    /// The errors of [`prune`](Self::prune).
    pub fn prune_with(
        &self,
        committed: &Committed,
        decide: &Decide<'_>,
    ) -> Result<Vec<GenerationId>, StoreError> {
        self.prune_inner(committed.id(), decide)
            .map_err(|error| self.explain(error))
    }

    /// Like [`prune_with`](Self::prune_with), but without a commit. First reads and verifies the generation `newest`,
    /// and makes it durable. Calls `on_read` with the number of bytes read since its last call.
    ///
    /// # Errors
    ///
    /// [`StoreError::GenerationDamaged`] if the generation is damaged; nothing is removed then. Also the errors of
    /// [`prune`](Self::prune).
    pub fn prune_beside(
        &self,
        newest: &OpenGeneration,
        keep: usize,
        on_read: &mut dyn FnMut(u64),
    ) -> Result<Vec<GenerationId>, StoreError> {
        let mut prune = || {
            self.ensure_owned(IfGone::Fail)?;
            verify::check_run(newest.manifest(), &self.identity, newest.path())?;
            for part in newest.parts() {
                if let Err(damage) = part.verify(on_read)? {
                    return Err(StoreError::GenerationDamaged {
                        path: newest.path().to_path_buf(),
                        damage,
                    });
                }
            }
            self.make_durable(newest.manifest())?;
            self.prune_inner(newest.id(), &self::newest(keep))
        };
        let pruned = prune();
        pruned.map_err(|error| self.explain(error))
    }

    fn prune_inner(
        &self,
        whole_one: GenerationId,
        decide: &Decide<'_>,
    ) -> Result<Vec<GenerationId>, StoreError> {
        self.ensure_owned(IfGone::Fail)?;
        sweep::leftovers(&self.dir);
        let mut failures = Vec::new();
        let (mut whole, mut damaged) = (Vec::new(), Vec::new());
        for id in discover::generations(self.dir.fs(), &self.dir.layout)? {
            match self.know(id) {
                Ok(Known::Whole) => whole.push(id),
                Ok(Known::Damaged) => damaged.push(id),
                Ok(Known::Foreign) => {}
                Err(error) => failures.push(error),
            }
        }
        let mut pruned = to_prune_past(&whole, &damaged, decide);
        pruned.reverse();
        // The newest pruned generation is most likely as large as the next one.
        let mut free = pruned.iter().rev();
        let spare = free.find(|id| !self.index.is_pinned(**id)).copied();
        pruned.retain(|id| {
            let place = self.dir.layout.generation(*id);
            let is_spare = spare == Some(*id) && self.dir.fs().reuses_files();
            let retire = || match is_spare && !self.dir.has_spare() {
                true => remove::keep_as_spare(&self.dir, &place),
                false => remove::retire(&self.dir, &place),
            };
            match self.index.unless_pinned(*id, retire) {
                Some(Ok(())) => log::debug!(
                    target: LOG,
                    "generation {id} pruned, {whole_one} is whole",
                ),
                Some(Err(error)) => failures.push(error),
                None => {
                    log::debug!(target: LOG, "generation {id} is being read, and is kept for now");
                    return false;
                }
            }
            true
        });
        match failures.into_iter().next() {
            Some(error) => Err(error),
            None => Ok(pruned),
        }
    }

    /// The state of the generation `id`, read from its manifest if it is not known yet.
    fn know(&self, id: GenerationId) -> Result<Known, StoreError> {
        if let Some(known) = self.index.known(id) {
            return Ok(known);
        }
        let (fs, layout) = (self.dir.fs(), &self.dir.layout);
        let known = match verify::manifest(fs, layout, id, Some(&self.identity)) {
            Ok(Ok(_)) => Known::Whole,
            // No other process can have written it, because the directory is locked.
            Ok(Err(_)) => Known::Damaged,
            Err(error @ StoreError::Io { .. }) => return Err(error),
            Err(error) => {
                log::warn!(target: LOG, "generation {id} is not pruned: {error}");
                Known::Foreign
            }
        };
        self.index.learn(id, known);
        Ok(known)
    }
}

impl Observer {
    /// The generations that a prune would remove if the newest `keep` stay, oldest first. Nothing is changed.
    ///
    /// # Errors
    ///
    /// [`StoreError::NewerFormat`], and [`StoreError::Io`].
    pub fn to_prune(&self, keep: usize) -> Result<Vec<GenerationId>, StoreError> {
        let identity = self.identity()?;
        let mut ours = identity.map(|identity| (identity.run_id, identity.run_seed));
        let (mut whole, mut damaged) = (Vec::new(), Vec::new());
        for id in self.generations()? {
            match self.open(id)? {
                Observation::Manifest(generation) => {
                    let manifest = generation.manifest();
                    let run = (manifest.run_id.clone(), manifest.run_seed);
                    // If the identity is missing, the newest manifest gives the run.
                    if *ours.get_or_insert_with(|| run.clone()) == run {
                        whole.push(id);
                    }
                }
                // A store checks only the manifest.
                Observation::Damaged(Damage::PartMissing { .. }) => whole.push(id),
                Observation::Damaged(_) => damaged.push(id),
                Observation::Gone => {}
            }
        }
        let mut pruned = to_prune_past(&whole, &damaged, &newest(keep));
        pruned.reverse();
        Ok(pruned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[u64]) -> Vec<GenerationId> {
        numbers.iter().copied().map(GenerationId::new).collect()
    }

    fn numbers(ids: &[GenerationId]) -> Vec<u64> {
        ids.iter().map(|id| id.number()).collect()
    }

    #[test]
    fn the_newest_stay_whatever_the_order() {
        let table: &[(&[u64], usize, &[u64])] = &[
            (&[], 1, &[]),
            (&[7], 1, &[]),
            (&[7, 6], 1, &[6]),
            (&[6, 7], 1, &[6]),
            (&[5, 7, 6], 2, &[5]),
            (&[5, 7, 6], 3, &[]),
            (&[1, 9, 4, 7], 2, &[4, 1]),
            (&[7, 6], 0, &[6]),
        ];
        for (generations, keep, expected) in table {
            let pruned = to_prune(&ids(generations), *keep);
            assert_eq!(numbers(&pruned), *expected, "{generations:?} keep {keep}");
        }
    }

    #[test]
    fn damaged_generations_do_not_count() {
        /// Whole and damaged generations, how many to keep, and the removed ones.
        type Row = (&'static [u64], &'static [u64], usize, &'static [u64]);
        let table: &[Row] = &[
            (&[6, 4], &[5], 2, &[]),
            (&[7, 6, 4], &[5], 2, &[5, 4]),
            (&[7], &[5, 6], 1, &[6, 5]),
            (&[7], &[5, 6], 2, &[]),
            (&[7, 6], &[8], 1, &[6]),
            (&[], &[8], 1, &[]),
        ];
        for (whole, damaged, keep, expected) in table {
            let pruned = to_prune_past(&ids(whole), &ids(damaged), &newest(*keep));
            assert_eq!(
                numbers(&pruned),
                *expected,
                "{whole:?}, damaged {damaged:?}, keep {keep}"
            );
        }
    }

    #[test]
    fn the_decisions_selection_stays_and_the_newest_always() {
        /// Whole and damaged generations, the ones that `decide` keeps, and the removed ones.
        type Row = (
            &'static [u64],
            &'static [u64],
            &'static [u64],
            &'static [u64],
        );
        let table: &[Row] = &[
            (&[9, 7, 5, 3], &[], &[5], &[7, 3]),
            (&[9, 7, 5, 3], &[], &[], &[7, 5, 3]),
            (&[9, 7], &[], &[7, 42], &[]),
            // The damaged ones are judged as if they were whole.
            (&[9, 7], &[8, 6], &[6], &[8, 7]),
            (&[9], &[10], &[], &[]),
        ];
        for (whole, damaged, named, expected) in table {
            let named: BTreeSet<_> = ids(named).into_iter().collect();
            let decide = |generations: &[GenerationId]| {
                assert!(generations.is_sorted_by(|a, b| a > b), "newest first");
                named.clone()
            };
            let pruned = to_prune_past(&ids(whole), &ids(damaged), &decide);
            assert_eq!(numbers(&pruned), *expected, "{whole:?}, {damaged:?}");
        }
    }
}
