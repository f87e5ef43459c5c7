//! What a store knows about the generations in its directory.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::layout::GenerationId;
use crate::manifest::PartEntry;

/// The state of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// It belongs to this training, and its manifest is whole.
    Whole,
    /// It is damaged. As far as is known, it belongs to this training.
    Damaged,
    /// It belongs to another training, or has a newer format.
    Foreign,
}

/// The parts of the generation that was verified or committed last.
#[derive(Debug, Clone)]
pub(crate) struct Latest {
    pub id: GenerationId,
    pub parts: Vec<PartEntry>,
}

#[derive(Default)]
pub(crate) struct GenerationIndex {
    entries: Mutex<Entries>,
    /// How often each generation is pinned. The lock is held while a generation is removed.
    pins: Mutex<BTreeMap<GenerationId, usize>>,
}

#[derive(Default)]
struct Entries {
    latest: Option<Latest>,
    /// The greatest number that was found or assigned.
    last: GenerationId,
    known: BTreeMap<GenerationId, Known>,
}

impl GenerationIndex {
    /// The generation that was verified or committed last.
    pub(crate) fn latest(&self) -> Option<Latest> {
        self.entries().latest.clone()
    }

    pub(crate) fn set_latest(&self, id: GenerationId, parts: Vec<PartEntry>) {
        let mut entries = self.entries();
        entries.latest = Some(Latest { id, parts });
        entries.last = entries.last.max(id);
        entries.known.insert(id, Known::Whole);
    }

    /// Takes `number` into account, and returns the greatest number that was ever found or assigned.
    pub(crate) fn last(&self, number: GenerationId) -> GenerationId {
        let mut entries = self.entries();
        entries.last = entries.last.max(number);
        entries.last
    }

    pub(crate) fn known(&self, id: GenerationId) -> Option<Known> {
        self.entries().known.get(&id).copied()
    }

    pub(crate) fn learn(&self, id: GenerationId, known: Known) {
        self.entries().known.insert(id, known);
    }

    /// Forgets everything except the numbers, because the directory was replaced.
    pub(crate) fn forget(&self) {
        let mut entries = self.entries();
        entries.latest = None;
        entries.known.clear();
    }

    /// Forgets the generations that are newer than `than`, except their numbers.
    pub(crate) fn forget_newer(&self, than: GenerationId) {
        let mut entries = self.entries();
        entries.latest.take_if(|latest| latest.id > than);
        entries.known.retain(|id, _| *id <= than);
    }

    /// Keeps a generation from being removed.
    pub(crate) fn pin(&self, id: GenerationId) {
        *self.pins().entry(id).or_default() += 1;
    }

    /// Removes one pin.
    pub(crate) fn unpin(&self, id: GenerationId) {
        let mut pins = self.pins();
        if let Some(count) = pins.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&id);
            }
        }
    }

    /// Whether a pin currently keeps the generation from being removed.
    pub(crate) fn is_pinned(&self, id: GenerationId) -> bool {
        self.pins().contains_key(&id)
    }

    /// Removes a generation with `remove`, unless it is pinned. It can't be pinned meanwhile.
    pub(crate) fn unless_pinned<T>(
        &self,
        id: GenerationId,
        remove: impl FnOnce() -> T,
    ) -> Option<T> {
        let pins = self.pins();
        (!pins.contains_key(&id)).then(remove)
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pins(&self) -> MutexGuard<'_, BTreeMap<GenerationId, usize>> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
