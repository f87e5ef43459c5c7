//! How far the loaders and streams of a loop are.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use burn::data::dataloader::DataLoader;

use crate::burn_api::Items;
use crate::divergence::Fetched;
use crate::state::{Entered, LoaderProgress, StreamProgress, TrainingState};

/// The loaders and streams of a loop, told apart by the order in which it asks for them.
pub(super) struct Loaders {
    slots: Vec<Slot>,
    streams: Vec<StreamProgress>,
    /// How many batches were fetched in all.
    fetched: u64,
    /// Whether batches were fetched since the last step.
    has_pending: bool,
    next_slot: usize,
    next_stream: usize,
    /// The loaders of this process, by their address.
    known: BTreeMap<usize, KnownLoader>,
    /// What was fetched for the step in progress, or for the last one.
    step: Vec<Fetched>,
}

/// One of the calls with which an epoch asks for batches.
struct Slot {
    progress: LoaderProgress,
    /// The address of the loader that it was given last in this process.
    address: Option<usize>,
    /// Whether the epoch in progress has asked, in this process.
    is_open: bool,
}

/// A loader that was asked in this process.
struct KnownLoader {
    /// How many iterators it was asked for, since the training went back last.
    iterators: u64,
    /// How many before that. It goes back before it is asked again.
    ahead: u64,
    /// Holds the loader's memory, so that no other one gets its address.
    is_alive: Box<dyn Fn() -> bool + Send>,
}

/// Where a loader goes on.
pub(super) struct Opened {
    pub slot: usize,
    /// How many iterators it is still to be asked for before the one of this epoch.
    pub to_ask: u64,
    /// By how many it is to go back before that.
    pub to_go_back: u64,
    pub progress: LoaderProgress,
    /// Whether it turns out now that the program builds the loader anew in each epoch.
    pub is_found_rebuilt: bool,
}

impl Loaders {
    /// As they are in `state`.
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

    /// As they are in `state`, with the loaders of this process further than that.
    pub(super) fn go_back(&mut self, state: &TrainingState) {
        let mut known = std::mem::take(&mut self.known);
        for loader in known.values_mut() {
            loader.ahead += std::mem::take(&mut loader.iterators);
        }
        *self = Self {
            known,
            ..Self::resumed(state)
        };
    }

    /// What was fetched for the step in progress, or for the last one.
    pub(super) fn step(&self) -> Vec<Fetched> {
        self.step.clone()
    }

    /// The next step is skipped: what it would have fetched is left out.
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

    /// Whether the batch that was just fetched from there is left out.
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

    /// A batch that was fetched from there takes part in the step in progress.
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

    /// The epoch asks for the batches of a loader.
    pub(super) fn open<O: 'static>(&mut self, loader: &Arc<dyn DataLoader<O>>) -> Opened {
        let address = Arc::as_ptr(loader).cast::<()>() as usize;
        let asked = self.known.get(&address).map_or(0, |known| known.iterators);
        let slot = self.next(asked);
        let mut is_found_rebuilt = false;
        let mut progress = LoaderProgress::default();
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.is_open = true;
            // Of one that this process has not asked yet, the backup tells.
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
                    // What was not asked for again after a restart is made up for.
                    false => slot.progress.iterators.max(asked),
                };
            }
            progress = slot.progress;
        }
        let known = self.known.entry(address).or_insert_with(|| KnownLoader {
            iterators: 0,
            ahead: 0,
            is_alive: watch(Arc::downgrade(loader)),
        });
        known.iterators = progress.iterators.max(asked) + 1;
        Opened {
            slot,
            to_go_back: std::mem::take(&mut known.ahead),
            to_ask: progress.iterators.saturating_sub(asked),
            progress,
            is_found_rebuilt,
        }
    }

    /// The epoch asks for the batches of an iterator. Gives its slot, and how many it has given.
    pub(super) fn open_iterator(&mut self) -> (usize, u64) {
        let slot = self.next(0);
        let batches = self.slots.get(slot).map(|slot| slot.progress.batches);
        (slot, batches.unwrap_or_default())
    }

    /// The loop asks for a stream. Gives its place, and how many batches it has given.
    pub(super) fn open_stream(&mut self) -> (usize, u64) {
        let place = self.next_stream;
        self.next_stream += 1;
        if place == self.streams.len() {
            self.streams.push(StreamProgress::default());
        }
        let batches = self.streams.get(place).map(|stream| stream.batches);
        (place, batches.unwrap_or_default())
    }

    /// How many batches a slot has given in this epoch.
    pub(super) fn batches(&self, slot: usize) -> u64 {
        let slot = self.slots.get(slot);
        slot.map_or(0, |slot| slot.progress.batches)
    }

    /// How many batches a stream has given in all, and how many of these in this epoch.
    pub(super) fn stream(&self, place: usize) -> (u64, u64) {
        let stream = self.streams.get(place).copied().unwrap_or_default();
        (
            stream.batches,
            stream.batches - stream.before_epoch.min(stream.batches),
        )
    }

    /// What is recorded of a slot's loader.
    pub(super) fn progress(&mut self, slot: usize) -> Option<&mut LoaderProgress> {
        self.slots.get_mut(slot).map(|slot| &mut slot.progress)
    }

    /// A batch was fetched from a slot, whose loader is this far then, if it says so.
    pub(super) fn fetched_from(&mut self, slot: usize, items: Option<Items>) {
        self.fetched += 1;
        if let Some(progress) = self.progress(slot) {
            progress.batches += 1;
            if let Some(items) = items {
                progress.data.after_batch(items, progress.batches == 1);
            }
        }
    }

    /// A batch was fetched from a stream.
    pub(super) fn fetched_from_stream(&mut self, place: usize) {
        self.fetched += 1;
        if let Some(stream) = self.streams.get_mut(place) {
            stream.batches += 1;
        }
    }

    /// The loader of a slot goes on in this epoch after so many items, of batches or data that are changed on
    /// purpose.
    pub(super) fn enter(&mut self, slot: usize, at: Entered) {
        if let Some(progress) = self.progress(slot) {
            progress.data.entered = Some(at);
        }
    }

    /// Whether the epoch in progress has asked for several loaders or iterators.
    pub(super) fn has_several_open(&self) -> bool {
        self.next_slot > 1 || !self.streams.is_empty()
    }

    /// The epoch begins anew.
    pub(super) fn begin_epoch_anew(&mut self) {
        for slot in &mut self.slots {
            slot.progress.batches = 0;
            slot.progress.data = Default::default();
        }
    }

    /// How far the first loader of the epoch is, if it says so.
    pub(super) fn first_items(&self) -> Option<Items> {
        let first = self.slots.first()?;
        let data = first.progress.data;
        (data.items_total > 0).then_some(Items {
            processed: data.items_processed,
            total: data.items_total,
        })
    }

    /// All that was fetched is used: this is where the training is.
    pub(super) fn commit(&mut self, state: &mut TrainingState) {
        self.has_pending = false;
        state.loaders.clear();
        let slots = self.slots.iter().map(|slot| slot.progress);
        state.loaders.extend(slots);
        state.streams.clone_from(&self.streams);
        state.fetched = Some(self.fetched);
    }

    /// The program may not ask once more in this epoch, also if it is resumed in it.
    pub(super) fn may_not_ask_again(&mut self) {
        let mut asked_before = BTreeMap::<usize, u64>::new();
        for slot in self.slots.iter_mut().filter(|slot| slot.is_open) {
            let Some(address) = slot.address else {
                continue;
            };
            // The next epoch may ask the same loader several times.
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

    /// The epoch is over.
    pub(super) fn end_epoch(&mut self) {
        self.may_not_ask_again();
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

    /// The next slot of this epoch; if it is new, its loader was asked for so many iterators before.
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
