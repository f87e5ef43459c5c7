//! Reports properties of a loader's dataset that keep a training from being exact. As in `entry`, the report is kept
//! in a thread-local of the thread that asks for the iterator.

use std::any::type_name;
use std::cell::Cell;

thread_local! {
    static FOUND: Cell<Option<BurnsSampler>> = const { Cell::new(None) };
}

/// A loader of this crate has a dataset with Burn's sampler. Its samples depend on the number of earlier reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BurnsSampler {
    /// Whether workers read it. Their order differs in each run.
    pub has_workers: bool,
}

/// The findings of the loaders that this thread has asked for iterators since the last call.
pub(crate) fn take_finding() -> Option<BurnsSampler> {
    FOUND.take()
}

pub(super) fn note(num_workers: usize) {
    FOUND.set(Some(BurnsSampler {
        has_workers: num_workers > 0,
    }));
}

/// Whether the type's name contains Burn's sampler. A sampler behind a `dyn` is not seen.
pub(super) fn has_burns_sampler<D>() -> bool {
    // The crate path is needed: our sampler has the same type name.
    type_name::<D>().contains("burn_dataset::transform::sampler::SamplerDataset<")
}

#[cfg(test)]
mod tests {
    use burn::data::dataset::InMemDataset;
    use burn::data::dataset::transform::{PartialDataset, SamplerDataset};

    use super::*;

    type Items = InMemDataset<u8>;

    #[test]
    fn burns_sampler_is_recognized_inside_other_datasets_too() {
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
