//! Removing the generations that the retention policy no longer keeps.

use crate::commit::Committed;
use crate::error::StoreError;
use crate::knowledge::Known;
use crate::layout::GenerationId;
use crate::possession::IfGone;
use crate::store::Store;
use crate::{discover, remove, sweep, verify};

const LOG: &str = "burn_backup::prune";

/// Which generations go when the newest `keep` stay. One always stays.
pub fn to_prune(generations: &[GenerationId], keep: usize) -> Vec<GenerationId> {
    let mut newest_first = generations.to_vec();
    newest_first.sort_unstable_by(|a, b| b.cmp(a));
    newest_first.into_iter().skip(keep.max(1)).collect()
}

/// The same where some are damaged: these are not among the newest `keep`, and go once all of those
/// are newer.
fn to_prune_past(
    whole: &[GenerationId],
    damaged: &[GenerationId],
    keep: usize,
) -> Vec<GenerationId> {
    let mut pruned = to_prune(whole, keep);
    let kept = whole.iter().filter(|id| !pruned.contains(id));
    if kept.clone().count() == keep.max(1)
        && let Some(oldest) = kept.min()
    {
        pruned.extend(damaged.iter().filter(|id| *id < oldest));
    }
    pruned.sort_unstable_by(|a, b| b.cmp(a));
    pruned
}

impl Store {
    /// Removes all generations of this training but the newest `keep` whole ones, oldest first, and
    /// returns them. One that is known to be damaged is not counted, and is removed once all of those
    /// are newer. What could not be removed before is tried again. It takes a commit to prune.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if a call fails; the others are removed all the same, and the generations
    /// that stay are not touched. [`StoreError::Gone`] and [`StoreError::TakenOver`] if the directory
    /// is not this store's any more.
    pub fn prune(
        &self,
        committed: &Committed,
        keep: usize,
    ) -> Result<Vec<GenerationId>, StoreError> {
        self.prune_unexplained(committed, keep)
            .map_err(|error| self.explain(error))
    }

    fn prune_unexplained(
        &self,
        committed: &Committed,
        keep: usize,
    ) -> Result<Vec<GenerationId>, StoreError> {
        self.possess(IfGone::Fail)?;
        sweep::leftovers(&self.dir);
        let mut failures = Vec::new();
        let (mut whole, mut damaged) = (Vec::new(), Vec::new());
        for id in discover::generations(self.dir.fs(), &self.dir.layout)? {
            match self.know(id) {
                Ok(Known::Whole) => whole.push(id),
                Ok(Known::Damaged) => damaged.push(id),
                Ok(Known::Theirs) => {}
                Err(error) => failures.push(error),
            }
        }
        let mut pruned = to_prune_past(&whole, &damaged, keep);
        pruned.reverse();
        // The newest of them is as large as the next one, if any is.
        let mut free = pruned.iter().rev();
        let spare = free.find(|id| !self.knowledge.is_pinned(**id)).copied();
        pruned.retain(|id| {
            let place = self.dir.layout.generation(*id);
            let is_spare = spare == Some(*id) && self.dir.fs().reuses_files();
            let retire = || match is_spare && !self.dir.has_spare() {
                true => remove::keep_as_spare(&self.dir, &place),
                false => remove::retire(&self.dir, &place),
            };
            match self.knowledge.unless_pinned(*id, retire) {
                Some(Ok(())) => log::debug!(
                    target: LOG,
                    "generation {id} pruned, {} is there", committed.id(),
                ),
                Some(Err(error)) => failures.push(error),
                None => {
                    log::debug!(target: LOG, "generation {id} is being read, and stays for now");
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

    /// What is known of the generation `id`; its manifest says it if nothing is.
    fn know(&self, id: GenerationId) -> Result<Known, StoreError> {
        if let Some(known) = self.knowledge.known(id) {
            return Ok(known);
        }
        let (fs, layout) = (self.dir.fs(), &self.dir.layout);
        let known = match verify::manifest(fs, layout, id, Some(&self.identity)) {
            Ok(Ok(_)) => Known::Whole,
            // Nobody else may have written it: the directory is locked.
            Ok(Err(_)) => Known::Damaged,
            Err(error @ StoreError::Io { .. }) => return Err(error),
            Err(error) => {
                log::warn!(target: LOG, "generation {id} is left alone: {error}");
                Known::Theirs
            }
        };
        self.knowledge.learn(id, known);
        Ok(known)
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
    fn damaged_ones_take_nobodys_place() {
        /// Whole and damaged ones, how many to keep, and which go.
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
            let pruned = to_prune_past(&ids(whole), &ids(damaged), *keep);
            assert_eq!(
                numbers(&pruned),
                *expected,
                "{whole:?}, damaged {damaged:?}, keep {keep}"
            );
        }
    }
}
