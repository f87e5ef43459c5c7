//! Removing the generations that the retention policy no longer keeps.

use crate::commit::Committed;
use crate::error::StoreError;
use crate::layout::GenerationId;
use crate::store::Store;
use crate::{discover, remove};

const LOG: &str = "burn_backup::prune";

/// Which generations go when the newest `keep` stay. One always stays.
pub fn to_prune(generations: &[GenerationId], keep: usize) -> Vec<GenerationId> {
    let mut newest_first = generations.to_vec();
    newest_first.sort_unstable_by(|a, b| b.cmp(a));
    newest_first.into_iter().skip(keep.max(1)).collect()
}

impl Store {
    /// Removes all generations but the newest `keep`, oldest first, and returns them. It takes a
    /// commit to prune.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if a call fails. The generations that stay are not touched.
    pub fn prune(
        &self,
        committed: &Committed,
        keep: usize,
    ) -> Result<Vec<GenerationId>, StoreError> {
        let generations = discover::generations(self.fs.as_ref(), &self.layout)?;
        let mut pruned = to_prune(&generations, keep);
        pruned.reverse();
        for id in &pruned {
            remove::retire(self.fs.as_ref(), &self.layout, &self.layout.generation(*id))?;
            log::debug!(target: LOG, "generation {id} pruned, {} is there", committed.id());
        }
        Ok(pruned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let ids: Vec<_> = generations.iter().copied().map(GenerationId::new).collect();
            let pruned: Vec<_> = to_prune(&ids, *keep).iter().map(|id| id.number()).collect();
            assert_eq!(pruned, *expected, "{generations:?} keep {keep}");
        }
    }
}
