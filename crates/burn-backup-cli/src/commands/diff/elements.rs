//! Compares the elements of tensors as numbers.

use burn_pack::DType;
use half::{bf16, f16};

/// The comparison of two tensors with the same shape and type.
#[derive(Debug, Default)]
pub struct Comparison {
    pub is_changed: bool,
    /// `None` if this program can't read the elements as numbers.
    pub values: Option<Values>,
}

/// The size of the change.
#[derive(Debug, Default, PartialEq)]
pub struct Values {
    /// The sum of the squared differences, over the elements that are finite in both.
    pub squares: f64,
    pub largest: f64,
    /// The number of elements whose bytes differ.
    pub changed: u64,
    pub before: Kinds,
    pub after: Kinds,
}

/// The numbers of elements that are not finite.
#[derive(Debug, Default, PartialEq)]
pub struct Kinds {
    pub nan: u64,
    pub infinite: u64,
}

impl Comparison {
    /// Adds elements. Both slices have the same length.
    pub fn add(&mut self, dtype: DType, before: &[u8], after: &[u8]) {
        self.is_changed |= before != after;
        let size = dtype.size().max(1);
        let Some(read) = reader(dtype) else {
            return;
        };
        let values = self.values.get_or_insert_default();
        for (old, new) in before.chunks_exact(size).zip(after.chunks_exact(size)) {
            values.add(old != new, read(old), read(new));
        }
    }
}

impl Values {
    fn add(&mut self, is_changed: bool, before: f64, after: f64) {
        self.before.add(before);
        self.after.add(after);
        if !is_changed {
            return;
        }
        self.changed += 1;
        let change = (after - before).abs();
        if change.is_finite() {
            self.squares += change * change;
            self.largest = self.largest.max(change);
        }
    }
}

impl Kinds {
    fn add(&mut self, value: f64) {
        self.nan += u64::from(value.is_nan());
        self.infinite += u64::from(value.is_infinite());
    }
}

/// The function that reads an element; `None` if elements are not plain numbers.
fn reader(dtype: DType) -> Option<fn(&[u8]) -> f64> {
    Some(match dtype {
        DType::F64 => |bytes| f64::from_le_bytes(array(bytes)),
        DType::F32 | DType::Flex32 => |bytes| f32::from_le_bytes(array(bytes)).into(),
        DType::F16 => |bytes| f16::from_le_bytes(array(bytes)).into(),
        DType::BF16 => |bytes| bf16::from_le_bytes(array(bytes)).into(),
        DType::I64 => |bytes| i64::from_le_bytes(array(bytes)) as f64,
        DType::I32 => |bytes| i32::from_le_bytes(array(bytes)).into(),
        DType::I16 => |bytes| i16::from_le_bytes(array(bytes)).into(),
        DType::I8 => |bytes| i8::from_le_bytes(array(bytes)).into(),
        DType::U64 => |bytes| u64::from_le_bytes(array(bytes)) as f64,
        DType::U32 => |bytes| u32::from_le_bytes(array(bytes)).into(),
        DType::U16 => |bytes| u16::from_le_bytes(array(bytes)).into(),
        DType::U8 => |bytes| u8::from_le_bytes(array(bytes)).into(),
        DType::Bool(_) => |bytes| f64::from(u8::from(bytes.iter().any(|byte| *byte != 0))),
        DType::QFloat(_) => return None,
    })
}

/// The bytes of one element.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(dtype: DType, before: &[u8], after: &[u8]) -> Values {
        let mut comparison = Comparison::default();
        comparison.add(dtype, before, after);
        assert_eq!(comparison.is_changed, before != after);
        comparison.values.unwrap()
    }

    fn f32s(values: &[f32]) -> Vec<u8> {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    }

    #[test]
    fn the_norm_covers_the_finite_changes() {
        let before = f32s(&[1.0, 2.0, 3.0, f32::NAN, 5.0]);
        let after = f32s(&[4.0, 2.0, -1.0, f32::NAN, f32::INFINITY]);
        let values = values(DType::F32, &before, &after);
        assert_eq!(
            (values.squares.sqrt(), values.largest, values.changed),
            (5.0, 4.0, 3)
        );
        assert_eq!(
            values.before,
            Kinds {
                nan: 1,
                infinite: 0
            }
        );
        assert_eq!(
            values.after,
            Kinds {
                nan: 1,
                infinite: 1
            }
        );
    }

    #[test]
    fn every_type_of_numbers_is_read() {
        let table: [(DType, Vec<u8>, Vec<u8>); 12] = [
            (
                DType::F64,
                1_f64.to_le_bytes().into(),
                3_f64.to_le_bytes().into(),
            ),
            (DType::Flex32, f32s(&[1.0]), f32s(&[3.0])),
            (
                DType::F16,
                f16::from_f32(1.0).to_le_bytes().into(),
                f16::from_f32(3.0).to_le_bytes().into(),
            ),
            (
                DType::BF16,
                bf16::from_f32(1.0).to_le_bytes().into(),
                bf16::from_f32(3.0).to_le_bytes().into(),
            ),
            (
                DType::I64,
                1_i64.to_le_bytes().into(),
                (-1_i64).to_le_bytes().into(),
            ),
            (
                DType::I32,
                1_i32.to_le_bytes().into(),
                (-1_i32).to_le_bytes().into(),
            ),
            (
                DType::I16,
                1_i16.to_le_bytes().into(),
                (-1_i16).to_le_bytes().into(),
            ),
            (DType::I8, vec![1], vec![255]),
            (
                DType::U64,
                1_u64.to_le_bytes().into(),
                3_u64.to_le_bytes().into(),
            ),
            (
                DType::U32,
                1_u32.to_le_bytes().into(),
                3_u32.to_le_bytes().into(),
            ),
            (
                DType::U16,
                1_u16.to_le_bytes().into(),
                3_u16.to_le_bytes().into(),
            ),
            (DType::U8, vec![1], vec![3]),
        ];
        for (dtype, before, after) in table {
            assert_eq!(values(dtype, &before, &after).largest, 2.0, "{dtype:?}");
        }
    }
}
