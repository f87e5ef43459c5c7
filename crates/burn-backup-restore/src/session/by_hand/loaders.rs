//! The progress of a loop's loaders and streams.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use burn::data::dataloader::DataLoader;

use crate::burn_api::Items;
use crate::divergence::Fetched;
use crate::state::{EnteredEpoch, LoaderProgress, StreamProgress, TrainingState};

/// The loaders and streams of a loop, identified by the order in which the loop requests them.
pub(super) struct Loaders {
    slots: Vec<Slot>,
    streams: Vec<StreamProgress>,
    /// The total number of fetched batches.
    fetched: u64,
    /// Whether batches were fetched since the last step.
    has_pending: bool,
    next_slot: usize,
    next_stream: usize,
    /// The loaders of this process, by their address.
    known: BTreeMap<usize, KnownLoader>,
    /// The batches that were fetched for the current step or the last one.
    step: Vec<Fetched>,
}

/// One of the calls in an epoch that request batches.
struct Slot {
    progress: LoaderProgress,
    /// The address of the loader last passed to this call in this process.
    address: Option<usize>,
    /// Whether the current epoch has made this call in this process.
    is_open: bool,
}

/// A loader that this process has used.
struct KnownLoader {
    /// The number of iterators requested from it since the last rollback.
    iterators: u64,
    /// The number of iterators requested before the last rollback, by which the loader must still go back.
    to_go_back: u64,
    /// Whether the loader still exists. It also keeps the loader's memory allocated, so that no other loader gets its
    /// address.
    is_alive: Box<dyn Fn() -> bool + Send>,
}

/// Where a loader continues.
pub(super) struct ResumePoint {
    pub slot: usize,
    /// The number of iterators to request and drop before the one for this epoch.
    pub to_ask: u64,
    /// The number of iterators to go back before that.
    pub to_go_back: u64,
    pub progress: LoaderProgress,
    /// Whether it is now known that the program creates the loader anew in each epoch.
    pub is_found_rebuilt: bool,
}

impl Loaders {
    /// The progress recorded in `state`.
    pub(super) fn resumed(state: &TrainingState) -> Self {
        let slot = |progress: &LoaderProgress| Slot {
            progress: *progress,
            address: None,
            is_open: false,
        };
        Self {
            slots: state.loaders.iter().map(slot).collect(),
            streams: state.streams.clone(),
            fetched: state.fetched(),
            has_pending: false,
            next_slot: 0,
            next_stream: 0,
            known: BTreeMap::new(),
            step: Vec::new(),
        }
    }

    /// Goes back to the progress recorded in `state`. The loaders of this process are ahead of it.
    pub(super) fn roll_back(&mut self, state: &TrainingState) {
        let mut known = std::mem::take(&mut self.known);
        for loader in known.values_mut() {
            loader.to_go_back += std::mem::take(&mut loader.iterators);
        }
        *self = Self {
            known,
            ..Self::resumed(state)
        };
    }

    /// The batches that were fetched for the current step or the last one.
    pub(super) fn step(&self) -> Vec<Fetched> {
        self.step.clone()
    }

    /// Skips the next step: the batches that it would have fetched are dropped.
    pub(super) fn leave_out(&mut self, step: &[Fetched]) {
        for fetched in step {
            let left_out = match fetched.is_stream {
                true => self
                    .streams
                    .get_mut(fetched.place)
                    .map(|stream| &mut stream.left_out),
                false => self
                    .progress(fetched.place)
                    .map(|progress| &mut progress.left_out),
            };
            if let Some(left_out) = left_out {
                *left_out = left_out.saturating_add(fetched.batches);
            }
        }
    }

    /// Whether the batch just fetched from this loader or stream must be dropped.
    pub(super) fn is_left_out(&mut self, place: usize, is_stream: bool) -> bool {
        let left_out = match is_stream {
            true => self
                .streams
                .get_mut(place)
                .map(|stream| &mut stream.left_out),
            false => self.progress(place).map(|progress| &mut progress.left_out),
        };
        match left_out {
            Some(left_out) if *left_out > 0 => {
                *left_out -= 1;
                true
            }
            _ => false,
        }
    }

    /// Records that a batch fetched from this loader or stream is part of the current step.
    pub(super) fn takes_part(&mut self, place: usize, is_stream: bool) {
        if !std::mem::replace(&mut self.has_pending, true) {
            self.step.clear();
        }
        let mut step = self.step.iter_mut();
        match step.find(|known| known.place == place && known.is_stream == is_stream) {
            Some(known) => known.batches += 1,
            None => self.step.push(Fetched {
                place,
                is_stream,
                batches: 1,
            }),
        }
    }

    pub(super) fn fetched(&self) -> u64 {
        self.fetched
    }

    pub(super) fn has_pending(&self) -> bool {
        self.has_pending
    }

    /// Called when the epoch requests the batches of a loader.
    pub(super) fn open<O: 'static>(&mut self, loader: &Arc<dyn DataLoader<O>>) -> ResumePoint {
        let address = Arc::as_ptr(loader).cast::<()>() as usize;
        let asked = self.known.get(&address).map_or(0, |known| known.iterators);
        let slot = self.next(asked);
        let mut is_found_rebuilt = false;
        let mut progress = LoaderProgress::default();
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.is_open = true;
            // If this process has not used the loader yet, the backup's record is used.
            if let Some(before) = slot.address.replace(address) {
                let is_other = before != address;
                if is_other {
                    let before = self.known.get(&before);
                    let is_rebuilt = before.is_some_and(|before| !(before.is_alive)());
                    is_found_rebuilt = is_rebuilt && !slot.progress.is_rebuilt;
                    slot.progress.is_rebuilt = is_rebuilt;
                }
                slot.progress.iterators = match is_other {
                    true => asked,
                    // Requests that were not repeated after a restart are made up for.
                    false => slot.progress.iterators.max(asked),
                };
            }
            progress = slot.progress;
        }
        let known = self.known.entry(address).or_insert_with(|| KnownLoader {
            iterators: 0,
            to_go_back: 0,
            is_alive: watch(Arc::downgrade(loader)),
        });
        known.iterators = progress.iterators.max(asked) + 1;
        ResumePoint {
            slot,
            to_go_back: std::mem::take(&mut known.to_go_back),
            to_ask: progress.iterators.saturating_sub(asked),
            progress,
            is_found_rebuilt,
        }
    }

    /// Called when the epoch requests the batches of an iterator. Returns its slot and how many batches it has given.
    pub(super) fn open_iterator(&mut self) -> (usize, u64) {
        let slot = self.next(0);
        let batches = self.slots.get(slot).map(|slot| slot.progress.batches);
        (slot, batches.unwrap_or_default())
    }

    /// Called when the loop requests a stream. Returns its index and how many batches it has given.
    pub(super) fn open_stream(&mut self) -> (usize, u64) {
        let place = self.next_stream;
        self.next_stream += 1;
        if place == self.streams.len() {
            self.streams.push(StreamProgress::default());
        }
        let batches = self.streams.get(place).map(|stream| stream.batches);
        (place, batches.unwrap_or_default())
    }

    /// The number of batches that a slot has given in this epoch.
    pub(super) fn batches(&self, slot: usize) -> u64 {
        let slot = self.slots.get(slot);
        slot.map_or(0, |slot| slot.progress.batches)
    }

    /// The number of batches that a stream has given in total and in this epoch.
    pub(super) fn stream(&self, place: usize) -> (u64, u64) {
        let stream = self.streams.get(place).copied().unwrap_or_default();
        (
            stream.batches,
            stream.batches - stream.before_epoch.min(stream.batches),
        )
    }

    /// The recorded progress of a slot's loader.
    pub(super) fn progress(&mut self, slot: usize) -> Option<&mut LoaderProgress> {
        self.slots.get_mut(slot).map(|slot| &mut slot.progress)
    }

    /// Records that a batch was fetched from a slot. `items` is the loader's progress after it, if the loader reports
    /// any.
    pub(super) fn fetched_from(&mut self, slot: usize, items: Option<Items>) {
        self.fetched += 1;
        if let Some(progress) = self.progress(slot) {
            progress.batches += 1;
            if let Some(items) = items {
                progress.data.after_batch(items, progress.batches == 1);
            }
        }
    }

    /// Records that a batch was fetched from a stream.
    pub(super) fn fetched_from_stream(&mut self, place: usize) {
        self.fetched += 1;
        if let Some(stream) = self.streams.get_mut(place) {
            stream.batches += 1;
        }
    }

    /// Records where the loader of a slot continues in this epoch, after batches or data were changed on purpose.
    pub(super) fn enter(&mut self, slot: usize, at: EnteredEpoch) {
        if let Some(progress) = self.progress(slot) {
            progress.data.entered = Some(at);
        }
    }

    /// Whether the current epoch has requested several loaders or iterators.
    pub(super) fn has_several_open(&self) -> bool {
        self.next_slot > 1 || !self.streams.is_empty()
    }

    /// Restarts the epoch.
    pub(super) fn restart_epoch(&mut self) {
        for slot in &mut self.slots {
            slot.progress.batches = 0;
            slot.progress.data = Default::default();
        }
    }

    /// The progress of the epoch's first loader, if it reports any.
    pub(super) fn first_items(&self) -> Option<Items> {
        let first = self.slots.first()?;
        let data = first.progress.data;
        (data.items_total > 0).then_some(Items {
            processed: data.items_processed,
            total: data.items_total,
        })
    }

    /// Records in `state` that all fetched batches are used.
    pub(super) fn commit(&mut self, state: &mut TrainingState) {
        self.has_pending = false;
        state.loaders.clear();
        let slots = self.slots.iter().map(|slot| slot.progress);
        state.loaders.extend(slots);
        state.streams.clone_from(&self.streams);
        state.fetched = Some(self.fetched);
    }

    /// Records how many iterators each loader will have given at the next epoch, because the program may not request
    /// those of this epoch again after a restart.
    pub(super) fn expect_no_further_request(&mut self) {
        let mut asked_before = BTreeMap::<usize, u64>::new();
        for slot in self.slots.iter_mut().filter(|slot| slot.is_open) {
            let Some(address) = slot.address else {
                continue;
            };
            // The next epoch may use the same loader several times.
            let before = asked_before.entry(address).or_default();
            let asked = self.known.get(&address).map_or(0, |known| known.iterators);
            let recorded = slot.progress.iterators_after.unwrap_or_default();
            slot.progress.iterators_after = Some(match slot.progress.is_rebuilt {
                true => 0,
                false => recorded.max(asked + *before),
            });
            *before += 1;
        }
    }

    /// Called when the epoch is over.
    pub(super) fn end_epoch(&mut self) {
        self.expect_no_further_request();
        for slot in &mut self.slots {
            slot.is_open = false;
            slot.progress.batches = 0;
            slot.progress.data.end_epoch();
            if let Some(iterators) = slot.progress.iterators_after.take() {
                slot.progress.iterators = iterators;
            }
        }
        for stream in &mut self.streams {
            stream.before_epoch = stream.batches;
        }
        self.next_slot = 0;
    }

    /// The next slot of this epoch. If the slot is new, its loader has already given `iterators` iterators.
    fn next(&mut self, iterators: u64) -> usize {
        let slot = self.next_slot;
        self.next_slot += 1;
        if slot == self.slots.len() {
            self.slots.push(Slot {
                progress: LoaderProgress {
                    iterators,
                    ..LoaderProgress::default()
                },
                address: None,
                is_open: false,
            });
        }
        slot
    }
}

fn watch<O: 'static>(loader: Weak<dyn DataLoader<O>>) -> Box<dyn Fn() -> bool + Send> {
    Box::new(move || loader.strong_count() > 0)
}
