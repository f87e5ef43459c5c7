//! The layout of a transition in the replay buffer's memory: one row of bytes.

use std::fmt;
use std::ops::Range;

use burn::tensor::{DType, TensorData};
use serde::{Deserialize, Serialize};

use crate::error::BackupError;

/// The size in bytes of the reward and of the flag, both `f32`.
const SCALAR: usize = size_of::<f32>();

/// The order in a row: the tensors of the state, the next state and the action, then the reward and whether the
/// episode is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layout {
    states: Vec<Column>,
    actions: Vec<Column>,
}

/// One tensor of an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Column {
    dtype: DType,
    /// The shape without the first dimension.
    shape: Vec<usize>,
}

impl Column {
    fn of(data: &TensorData) -> Result<Self, BackupError> {
        let is_quantized = matches!(data.dtype(), DType::QFloat(_));
        match data.shape().as_slice() {
            [1, shape @ ..] if !is_quantized => Ok(Self {
                dtype: data.dtype(),
                shape: shape.to_vec(),
            }),
            _ => Err(BackupError::Transition {
                expected: "tensors of exactly one item, not quantized".to_owned(),
                given: format!("a tensor of shape {:?}, {:?}", data.shape(), data.dtype()),
            }),
        }
    }

    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }

    /// The shape of `rows` rows.
    fn batch_shape(&self, rows: usize) -> Vec<usize> {
        [&[rows], self.shape.as_slice()].concat()
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.dtype, self.shape)
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names =
            |columns: &[Column]| -> Vec<_> { columns.iter().map(Column::to_string).collect() };
        let (states, actions) = (names(&self.states), names(&self.actions));
        write!(
            f,
            "states ({}) and actions ({})",
            states.join(", "),
            actions.join(", ")
        )
    }
}

/// A part of a row, and the type and shape of its values.
pub(super) struct Field<'a> {
    pub column: &'a Column,
    pub bytes: Range<usize>,
}

impl Field<'_> {
    /// The tensor data whose rows are these bytes; `None` if they don't fit.
    pub(super) fn data(&self, rows: usize, bytes: Vec<u8>) -> Option<TensorData> {
        let shape = self.column.batch_shape(rows);
        TensorData::try_from_bytes_vec(bytes, shape, self.column.dtype).ok()
    }
}

impl Layout {
    pub(super) fn of(state: &[TensorData], action: &[TensorData]) -> Result<Self, BackupError> {
        let columns =
            |data: &[TensorData]| -> Result<Vec<_>, _> { data.iter().map(Column::of).collect() };
        Ok(Self {
            states: columns(state)?,
            actions: columns(action)?,
        })
    }

    /// The size of one transition in bytes.
    pub(super) fn row_bytes(&self) -> usize {
        self.reward().end + SCALAR
    }

    /// Like [`row_bytes`](Self::row_bytes), for a layout from a backup, which may be invalid.
    pub(super) fn checked_row_bytes(&self) -> Option<usize> {
        let columns = self.states.iter().chain(&self.states).chain(&self.actions);
        let mut sum = 2 * SCALAR;
        for column in columns {
            let mut elements = column.shape.iter();
            let elements = elements.try_fold(1_usize, |all, size| all.checked_mul(*size))?;
            sum = sum.checked_add(elements.checked_mul(column.dtype.size())?)?;
        }
        Some(sum)
    }

    pub(super) fn states(&self) -> Vec<Field<'_>> {
        fields(&self.states, 0)
    }

    pub(super) fn next_states(&self) -> Vec<Field<'_>> {
        fields(&self.states, total(&self.states))
    }

    pub(super) fn actions(&self) -> Vec<Field<'_>> {
        fields(&self.actions, 2 * total(&self.states))
    }

    pub(super) fn reward(&self) -> Range<usize> {
        let start = 2 * total(&self.states) + total(&self.actions);
        start..start + SCALAR
    }

    pub(super) fn done(&self) -> Range<usize> {
        let start = self.reward().end;
        start..start + SCALAR
    }
}

fn total(columns: &[Column]) -> usize {
    columns.iter().map(Column::bytes).sum()
}

fn fields(columns: &[Column], start: usize) -> Vec<Field<'_>> {
    let mut end = start;
    let fields = columns.iter().map(|column| {
        let start = end;
        end += column.bytes();
        Field {
            column,
            bytes: start..end,
        }
    });
    fields.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(shape: &[usize], dtype: DType) -> TensorData {
        let bytes = vec![0; shape.iter().product::<usize>() * dtype.size()];
        TensorData::try_from_bytes_vec(bytes, shape.to_vec(), dtype).unwrap()
    }

    #[test]
    fn a_row_has_state_next_state_action_reward_and_flag_in_this_order() {
        let states = [data(&[1, 4], DType::F32), data(&[1, 2, 2], DType::U8)];
        let actions = [data(&[1], DType::I64)];
        let layout = Layout::of(&states, &actions).unwrap();
        let places = |fields: Vec<Field<'_>>| -> Vec<_> {
            fields.into_iter().map(|field| field.bytes).collect()
        };
        assert_eq!(places(layout.states()), [0..16, 16..20]);
        assert_eq!(places(layout.next_states()), [20..36, 36..40]);
        let actions = places(layout.actions());
        assert_eq!(actions.as_slice(), std::slice::from_ref(&(40..48)));
        assert_eq!(layout.reward(), 48..52);
        assert_eq!(layout.done(), 52..56);
        assert_eq!(layout.row_bytes(), 56);
        assert_eq!(layout.checked_row_bytes(), Some(56));
    }

    #[test]
    fn tensors_of_no_row_or_several_are_refused() {
        for shape in [&[0, 4][..], &[2, 4], &[]] {
            let state = [data(shape, DType::F32)];
            let error = Layout::of(&state, &[]).unwrap_err();
            assert!(matches!(error, BackupError::Transition { .. }), "{error}");
        }
    }

    #[test]
    fn a_layout_that_no_memory_could_hold_has_no_row() {
        let column = Column {
            dtype: DType::F64,
            shape: vec![usize::MAX, 2],
        };
        let layout = Layout {
            states: vec![column],
            actions: Vec::new(),
        };
        assert_eq!(layout.checked_row_bytes(), None);
    }
}
