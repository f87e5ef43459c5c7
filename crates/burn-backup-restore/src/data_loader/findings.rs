//! What a loader can tell of its dataset that keeps a training from being exact. Like the place where an
//! epoch is entered, it is told by the thread that asks for the iterator.

use std::any::type_name;
use std::cell::Cell;

thread_local! {
    static FOUND: Cell<Option<BurnsSampler>> = const { Cell::new(None) };
}

/// A loader of ours has a dataset with Burn's sampler, whose samples follow from how often it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BurnsSampler {
    /// Whether workers ask it, in an order that is another one each time.
    pub has_workers: bool,
}

/// What the loaders told that this thread has asked for iterators since the last call.
pub(crate) fn take_finding() -> Option<BurnsSampler> {
    FOUND.take()
}

pub(super) fn note(num_workers: usize) {
    FOUND.set(Some(BurnsSampler {
        has_workers: num_workers > 0,
    }));
}

/// Whether the type's name tells of Burn's sampler. One behind a `dyn` is not seen.
pub(super) fn has_burns_sampler<D>() -> bool {
    // Ours has the same name in another crate.
    type_name::<D>().contains("burn_dataset::transform::sampler::SamplerDataset<")
}

#[cfg(test)]
mod tests {
    use burn::data::dataset::InMemDataset;
    use burn::data::dataset::transform::{PartialDataset, SamplerDataset};

    use super::*;

    type Items = InMemDataset<u8>;

    #[test]
    fn burns_sampler_is_told_from_ours_inside_other_datasets_too() {
        assert!(has_burns_sampler::<SamplerDataset<Items, u8>>());
        assert!(has_burns_sampler::<
            PartialDataset<SamplerDataset<Items, u8>, u8>,
        >());
        assert!(!has_burns_sampler::<Items>());
        assert!(!has_burns_sampler::<
            PartialDataset<crate::data::SamplerDataset<Items, u8>, u8>,
        >());
    }
}
