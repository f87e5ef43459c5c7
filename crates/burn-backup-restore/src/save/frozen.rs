//! Finds parameters that do not change, which don't have to be written again.

use std::collections::{HashMap, HashSet};

use burn_backup_store::PartDigest;
use burn_pack::Tensor;

/// The minimum size of a part of frozen tensors. A smaller one is not worth another file to sync.
const MIN_BYTES: usize = 1024 * 1024;

/// Divides a model's tensors into those that the training changes and frozen ones.
///
/// A tensor without a gradient counts as frozen until it changes, as running statistics do. A wrong guess costs one
/// additional write and nothing else, because a part is linked only if its bytes are the same.
#[derive(Default)]
pub(crate) struct Frozen {
    /// The digest of all frozen tensors in the last backup.
    last: Option<PartDigest>,
    /// The hashes of the tensors that have not changed so far.
    hashes: HashMap<String, u128>,
    /// The tensors without a gradient that have changed.
    changing: HashSet<String>,
    /// The only tensors that may be frozen, if the training was resumed from a backup that records them.
    only: Option<HashSet<String>>,
}

/// A model's tensors, divided.
pub(super) struct Divided {
    pub changing: Vec<Tensor>,
    /// Empty if the frozen tensors are too small for a part.
    pub frozen: Vec<Tensor>,
}

impl Frozen {
    /// Continues with the division of the restored backup.
    pub(crate) fn continued(frozen: HashSet<String>) -> Self {
        Self {
            only: Some(frozen),
            ..Self::default()
        }
    }

    /// Divides `tensors`. Only those named in `without_gradient` may be frozen.
    pub(super) fn divide(&self, tensors: &[Tensor], without_gradient: &HashSet<String>) -> Divided {
        let is_frozen = |tensor: &&Tensor| {
            without_gradient.contains(&tensor.name)
                && !self.changing.contains(&tensor.name)
                && (self.only.as_ref()).is_none_or(|only| only.contains(&tensor.name))
        };
        let bytes: usize = tensors.iter().filter(is_frozen).map(Tensor::byte_len).sum();
        let (frozen, changing) = match bytes >= MIN_BYTES {
            true => tensors
                .iter()
                .cloned()
                .partition(|tensor| is_frozen(&tensor)),
            false => (Vec::new(), tensors.to_vec()),
        };
        Divided { changing, frozen }
    }

    /// Whether all frozen tensors have the same names and contents as in the last backup.
    pub(super) fn is_as_before(&self, digest: &PartDigest) -> bool {
        self.last.as_ref().is_some_and(|last| last.is_same(digest))
    }

    pub(super) fn remember(&mut self, digest: PartDigest) {
        self.last = Some(digest);
    }

    /// Records the hashes of the frozen tensors, and returns whether any tensor has changed. If so, the tensors must
    /// be divided again.
    pub(super) fn note(&mut self, hashes: HashMap<String, u128>) -> bool {
        let mut has_changed = false;
        for (name, hash) in hashes {
            let before = self.hashes.insert(name.clone(), hash);
            if before.is_some_and(|before| before != hash) {
                has_changed = true;
                self.hashes.remove(&name);
                self.changing.insert(name);
            }
        }
        has_changed
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Bytes, DType};

    use super::*;

    fn tensor(name: &str, len: usize) -> Tensor {
        let bytes = Bytes::from_bytes_vec(vec![0; len]);
        Tensor::new(name.to_owned(), DType::U8, vec![len], None, bytes)
    }

    fn names(tensors: &[Tensor]) -> Vec<&str> {
        tensors.iter().map(|tensor| tensor.name.as_str()).collect()
    }

    #[test]
    fn a_tensor_changed_without_a_gradient_is_not_frozen() {
        let tensors = [
            tensor("base", MIN_BYTES),
            tensor("head", MIN_BYTES),
            tensor("mean", 8),
        ];
        let without_gradient = ["base", "mean"].map(str::to_owned).into();
        let mut frozen = Frozen::default();

        let divided = frozen.divide(&tensors, &without_gradient);
        assert_eq!(names(&divided.frozen), ["base", "mean"]);
        assert_eq!(names(&divided.changing), ["head"]);
        let hashes = |base, mean| [("base".to_owned(), base), ("mean".to_owned(), mean)].into();
        assert!(!frozen.note(hashes(1, 1)));
        assert!(!frozen.note(hashes(1, 1)));

        assert!(frozen.note(hashes(1, 2)));
        let divided = frozen.divide(&tensors, &without_gradient);
        assert_eq!(names(&divided.frozen), ["base"]);
        assert_eq!(names(&divided.changing), ["head", "mean"]);
        assert!(!frozen.note([("base".to_owned(), 1)].into()));
    }

    #[test]
    fn a_continued_training_divides_as_before() {
        let tensors = ["base", "mean", "head"].map(|name| tensor(name, MIN_BYTES));
        let without_gradient = ["base", "mean"].map(str::to_owned).into();
        let frozen = Frozen::continued(["base", "head"].map(str::to_owned).into());
        let divided = frozen.divide(&tensors, &without_gradient);
        assert_eq!(names(&divided.frozen), ["base"]);
    }

    #[test]
    fn a_small_part_is_not_divided() {
        let tensors = [tensor("base", MIN_BYTES - 1), tensor("head", MIN_BYTES)];
        let divided = Frozen::default().divide(&tensors, &["base".to_owned()].into());
        assert!(divided.frozen.is_empty());
        assert_eq!(names(&divided.changing), ["base", "head"]);
    }
}
