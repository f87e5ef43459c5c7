//! The transitions for the training of an off-policy agent.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use burn::rl::TransitionBatch;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::layout::{Field, Layout};
use super::replay_item::ReplayItem;
use super::replay_item::sealed::Tensors as _;
use super::segment::{self, Segment};
use crate::error::BackupError;
use crate::seed;

/// A ring of transitions in the host's memory. When it is full, the newest transition replaces the oldest.
///
/// It accepts and returns the same values as Burn's `TransitionBuffer`. But its bytes can be saved and loaded, and
/// the transitions in a batch follow from the seed and the training step.
pub(super) struct ReplayBuffer<O, A> {
    ring: Ring,
    types: PhantomData<fn() -> (O, A)>,
}

/// The rows, independent of the types of the tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ring {
    capacity: usize,
    /// The number of transitions added so far, including replaced ones.
    pushed: u64,
    /// Set by the first transition.
    layout: Option<Layout>,
    segments: Vec<Segment>,
}

/// What a backup records about the ring in addition to its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RingDocument {
    pub capacity: usize,
    pushed: u64,
    layout: Option<Layout>,
}

impl<O: ReplayItem, A: ReplayItem> ReplayBuffer<O, A> {
    pub(super) fn new(capacity: usize) -> Self {
        Self::from_ring(Ring::new(capacity))
    }

    pub(super) fn from_ring(ring: Ring) -> Self {
        Self {
            ring,
            types: PhantomData,
        }
    }

    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Adds a transition. Each argument is a single item.
    ///
    /// # Errors
    ///
    /// If its shapes or types differ from the first transition's, or the device fails.
    pub(super) fn push(
        &mut self,
        state: O,
        next_state: O,
        action: A,
        reward: f32,
        is_done: bool,
    ) -> Result<(), BackupError> {
        let (state, next_state, action) = (read(state)?, read(next_state)?, read(action)?);
        let layout = self.ring.layout_like(Layout::of(&state, &action)?)?;
        if Layout::of(&next_state, &action)? != layout {
            return Err(BackupError::Transition {
                expected: layout.to_string(),
                given: Layout::of(&next_state, &action)?.to_string(),
            });
        }
        let mut row = Vec::with_capacity(layout.row_bytes());
        for data in state.iter().chain(&next_state).chain(&action) {
            row.extend_from_slice(data.as_bytes());
        }
        row.extend_from_slice(&reward.to_ne_bytes());
        row.extend_from_slice(&f32::from(u8::from(is_done)).to_ne_bytes());
        self.ring.write(&row);
        Ok(())
    }

    /// A batch of `size` transitions. Each is drawn from all transitions with equal probability.
    ///
    /// # Errors
    ///
    /// If the rows have other tensors than the batch type.
    pub(super) fn sample(
        &self,
        size: usize,
        run_seed: u64,
        train_step: u64,
        device: &Device,
    ) -> Result<TransitionBatch<O, A>, BackupError> {
        let batch = self.ring.layout.as_ref().and_then(|layout| {
            let len = self.ring.len() as u64;
            let draw = |index| seed::sampled_transition(run_seed, train_step, index, len) as usize;
            let rows = (0..size).map(|index| self.ring.row(layout, draw(index)));
            let rows: Vec<&[u8]> = rows.collect::<Option<_>>()?;
            Some(TransitionBatch {
                states: write(&rows, &layout.states(), device)?,
                next_states: write(&rows, &layout.next_states(), device)?,
                actions: write(&rows, &layout.actions(), device)?,
                rewards: scalars(&rows, layout.reward(), device),
                dones: scalars(&rows, layout.done(), device),
            })
        });
        batch.ok_or_else(|| BackupError::Transition {
            expected: self.ring.description(),
            given: "tensors with another count or rank".to_owned(),
        })
    }
}

impl Ring {
    fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            pushed: 0,
            layout: None,
            segments: Vec::new(),
        }
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The number of transitions in the ring.
    pub(super) fn len(&self) -> usize {
        match usize::try_from(self.pushed) {
            Ok(pushed) => pushed.min(self.capacity),
            Err(_) => self.capacity,
        }
    }

    /// What a backup records about the ring in addition to its rows.
    pub(super) fn document(&self) -> RingDocument {
        RingDocument {
            capacity: self.capacity,
            pushed: self.pushed,
            layout: self.layout.clone(),
        }
    }

    /// The rows, as named segments. They are shared: the ring copies a segment at the next write to it.
    pub(super) fn segments(&self) -> impl Iterator<Item = (String, Arc<Vec<u8>>)> {
        let segments = self.segments.iter().enumerate();
        segments.map(|(index, segment)| (segment::name(index), segment.rows().clone()))
    }

    /// The ring with these rows, in the order of [`segments`](Self::segments). `None` if they don't match the
    /// document.
    pub(super) fn from_parts(
        document: RingDocument,
        segments: Vec<(String, Arc<Vec<u8>>)>,
    ) -> Option<Self> {
        let mut ring = Self {
            pushed: document.pushed,
            layout: document.layout,
            ..Self::new(document.capacity)
        };
        let row_bytes = match &ring.layout {
            Some(layout) => layout.checked_row_bytes()?,
            None if ring.pushed == 0 && segments.is_empty() => return Some(ring),
            None => return None,
        };
        let rows_per_segment = segment::rows_per_segment(row_bytes);
        let mut rows_left = ring.len();
        for (index, (name, bytes)) in segments.into_iter().enumerate() {
            let rows = rows_left.min(rows_per_segment);
            rows_left -= rows;
            let expected = rows.checked_mul(row_bytes)?;
            if name != segment::name(index) || rows == 0 || bytes.len() != expected {
                return None;
            }
            ring.segments.push(bytes.into());
        }
        (rows_left == 0).then_some(ring)
    }

    /// The layout of all rows. `given` becomes the layout if this is the first row.
    fn layout_like(&mut self, given: Layout) -> Result<Layout, BackupError> {
        let layout = self.layout.get_or_insert_with(|| given.clone());
        if given != *layout {
            return Err(BackupError::Transition {
                expected: layout.to_string(),
                given: given.to_string(),
            });
        }
        Ok(given)
    }

    fn description(&self) -> String {
        match &self.layout {
            Some(layout) => layout.to_string(),
            None => "nothing".to_owned(),
        }
    }

    /// Writes the next row. It may replace the oldest row.
    fn write(&mut self, row: &[u8]) {
        let rows_per_segment = segment::rows_per_segment(row.len());
        let slot = (self.pushed % self.capacity as u64) as usize;
        let index = slot / rows_per_segment;
        if index == self.segments.len() {
            self.segments.push(Segment::default());
        }
        self.pushed += 1;
        if let Some(segment) = self.segments.get_mut(index) {
            segment.write(slot % rows_per_segment, row);
        }
    }

    fn row(&self, layout: &Layout, slot: usize) -> Option<&[u8]> {
        let row_bytes = layout.row_bytes();
        let rows_per_segment = segment::rows_per_segment(row_bytes);
        let segment = self.segments.get(slot / rows_per_segment)?;
        let start = slot % rows_per_segment * row_bytes;
        segment.rows().get(start..start + row_bytes)
    }
}

fn read<I: ReplayItem>(item: I) -> Result<Vec<TensorData>, BackupError> {
    let mut data = Vec::new();
    let read = item.into_tensors().read(&mut data);
    read.map_err(BackupError::TransitionUnread)?;
    Ok(data)
}

/// The batch whose tensors contain these fields of the rows. `None` if its type has other tensors.
fn write<I: ReplayItem>(rows: &[&[u8]], fields: &[Field<'_>], device: &Device) -> Option<I> {
    let data = fields.iter().map(|field| {
        let bytes = gather(rows, &field.bytes);
        field.data(rows.len(), bytes)
    });
    let data: Vec<_> = data.collect::<Option<_>>()?;
    let tensors = I::Tensors::write(&mut data.into_iter(), device)?;
    Some(I::from_tensors(tensors))
}

fn gather(rows: &[&[u8]], field: &Range<usize>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(rows.len() * field.len());
    for row in rows {
        bytes.extend_from_slice(row.get(field.clone()).unwrap_or_default());
    }
    bytes
}

/// A column of shape `[rows, 1]`, in the device's own float type.
fn scalars(rows: &[&[u8]], field: Range<usize>, device: &Device) -> Tensor<2> {
    let bytes = gather(rows, &field);
    let (values, _) = bytes.as_chunks();
    let values: Vec<f32> = values.iter().copied().map(f32::from_ne_bytes).collect();
    Tensor::from_data(TensorData::new(values, [rows.len(), 1]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Buffer = ReplayBuffer<Tensor<2>, Tensor<2>>;

    /// Transitions in which every value is the transition's number, counted from 0.
    fn filled(capacity: usize, transitions: usize) -> Buffer {
        let device = Device::flex();
        let row = |value: f32, width| {
            Tensor::<2>::from_data(TensorData::new(vec![value; width], [1, width]), &device)
        };
        let mut buffer = Buffer::new(capacity);
        for number in 0..transitions {
            let value = number as f32;
            let pushed = buffer.push(
                row(value, 3),
                row(value, 3),
                row(value, 1),
                value,
                number % 2 == 1,
            );
            pushed.unwrap();
        }
        buffer
    }

    /// The numbers of the transitions in the ring, in the order of its slots.
    fn held(buffer: &Buffer) -> Vec<f32> {
        let ring = buffer.ring();
        let layout = ring.layout.as_ref();
        let rows = (0..ring.len()).map(|slot| ring.row(layout.unwrap(), slot).unwrap());
        let numbers = rows.map(|row| f32::from_ne_bytes(row[..4].try_into().unwrap()));
        numbers.collect()
    }

    #[test]
    fn the_newest_transition_replaces_the_oldest() {
        let table: &[(usize, usize, &[f32])] = &[
            (3, 0, &[]),
            (3, 2, &[0.0, 1.0]),
            (3, 3, &[0.0, 1.0, 2.0]),
            (3, 4, &[3.0, 1.0, 2.0]),
            (3, 8, &[6.0, 7.0, 5.0]),
            (1, 5, &[4.0]),
        ];
        for (capacity, transitions, expected) in table {
            let buffer = filled(*capacity, *transitions);
            assert_eq!(held(&buffer), *expected, "{capacity}, {transitions}");
        }
    }

    #[test]
    fn a_ring_of_several_segments_wraps_within_them() {
        // A row has 36 bytes, so a segment has 7281 rows.
        let (per_segment, capacity) = (7281, 10_000);
        let buffer = filled(capacity, capacity + 2);
        let held = held(&buffer);
        assert_eq!(held.len(), capacity);
        assert_eq!(held[..3], [10_000.0, 10_001.0, 2.0]);
        assert_eq!(held[per_segment], per_segment as f32);
        let lengths: Vec<_> = buffer
            .ring()
            .segments()
            .map(|(_, rows)| rows.len())
            .collect();
        assert_eq!(lengths, [per_segment * 36, (capacity - per_segment) * 36]);
    }

    #[test]
    fn a_ring_is_rebuilt_from_its_own_parts_only() {
        let buffer = filled(10_000, 8_000);
        let ring = buffer.ring();
        let parts = || (ring.document(), ring.segments().collect::<Vec<_>>());
        let (document, segments) = parts();
        assert_eq!(Ring::from_parts(document, segments).as_ref(), Some(ring));

        let (document, mut segments) = parts();
        segments.pop();
        assert_eq!(Ring::from_parts(document, segments), None, "one is missing");
        let (document, mut segments) = parts();
        segments.swap(0, 1);
        assert_eq!(Ring::from_parts(document, segments), None, "out of order");
        let (document, mut segments) = parts();
        segments.push(("00002".to_owned(), Arc::default()));
        assert_eq!(Ring::from_parts(document, segments), None, "one too many");
        let (document, mut segments) = parts();
        Arc::make_mut(&mut segments[1].1).pop();
        assert_eq!(Ring::from_parts(document, segments), None, "too short");
        let (mut document, segments) = parts();
        document.layout = None;
        assert_eq!(Ring::from_parts(document, segments), None, "no layout");
        let empty = Ring::new(5);
        let again = Ring::from_parts(empty.document(), Vec::new());
        assert_eq!(again, Some(empty));
    }

    #[test]
    fn a_batch_follows_from_the_seed_and_the_step_and_has_each_row_whole() {
        let buffer = filled(50, 60);
        let sample = |seed, step| {
            let batch = buffer.sample(64, seed, step, &Device::flex()).unwrap();
            let numbers = |tensor: Tensor<2>| tensor.into_data().try_to_vec::<f32>().unwrap();
            let states = numbers(batch.states);
            let rewards = numbers(batch.rewards);
            let dones = numbers(batch.dones);
            for ((state, reward), done) in states.chunks(3).zip(&rewards).zip(&dones) {
                assert_eq!(state, [*reward; 3]);
                assert_eq!(*done, f32::from(*reward as u32 % 2 == 1));
            }
            assert_eq!(numbers(batch.actions), rewards);
            assert_eq!(numbers(batch.next_states), states);
            rewards
        };
        let rewards = sample(1, 7);
        assert_eq!(rewards, sample(1, 7));
        assert_ne!(rewards, sample(1, 8));
        assert_ne!(rewards, sample(2, 7));
        // The first ten transitions are replaced.
        assert!(rewards.iter().all(|number| (10.0..60.0).contains(number)));
    }

    #[test]
    fn a_transition_of_another_form_is_refused() {
        let mut buffer = filled(5, 1);
        let zeros = |shape: [usize; 2]| Tensor::<2>::zeros(shape, &Device::flex());
        let table = [
            ([1, 4], [1, 4], [1, 1]),
            ([1, 3], [1, 4], [1, 1]),
            ([1, 3], [1, 3], [1, 2]),
            ([2, 3], [2, 3], [1, 1]),
        ];
        for (state, next_state, action) in table {
            let pushed = buffer.push(zeros(state), zeros(next_state), zeros(action), 0.0, false);
            let error = pushed.unwrap_err();
            assert!(matches!(error, BackupError::Transition { .. }), "{error}");
            assert_eq!(buffer.ring().len(), 1);
        }
    }
}
