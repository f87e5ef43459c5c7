//! Finds NaN in a model's record, so that a training that has gone wrong does not replace the last good backup.

use burn::tensor::DType;

/// How many bytes are checked before the loop can stop early.
const CHUNK_BYTES: usize = 64 * 1024;

/// Whether a tensor's bytes contain NaN. Quantized tensors are not checked.
///
/// Checks the bits of little-endian numbers. Every value beyond infinity is NaN, regardless of the sign (IEEE 754,
/// section 3.4; bfloat16 is the upper half of a 32-bit float).
pub(crate) fn holds_nan(dtype: DType, bytes: &[u8]) -> bool {
    /// The inner loop has no early exit, so that it can be vectorized.
    fn any<const N: usize>(bytes: &[u8], is_nan: impl Fn([u8; N]) -> bool) -> bool {
        let (numbers, _) = bytes.as_chunks::<N>();
        numbers.chunks(CHUNK_BYTES / N).any(|chunk| {
            chunk
                .iter()
                .fold(false, |found, number| found | is_nan(*number))
        })
    }
    match dtype {
        DType::F64 => any(bytes, |number| f64::from_le_bytes(number).is_nan()),
        DType::F32 | DType::Flex32 => any(bytes, |number| f32::from_le_bytes(number).is_nan()),
        DType::F16 => any(bytes, |number| u16::from_le_bytes(number) & 0x7fff > 0x7c00),
        DType::BF16 => any(bytes, |number| u16::from_le_bytes(number) & 0x7fff > 0x7f80),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Many zeros, with `number` among them.
    fn among_zeros<const N: usize>(number: [u8; N]) -> Vec<u8> {
        let mut bytes = vec![0; N * 100_000];
        bytes[N * 70_001..N * 70_002].copy_from_slice(&number);
        bytes
    }

    #[test]
    fn nan_is_found_in_every_float_type_without_false_positives() {
        let half = |bits: u16| among_zeros(bits.to_le_bytes());
        let table: &[(DType, Vec<u8>, bool)] = &[
            (DType::F64, among_zeros(f64::NAN.to_le_bytes()), true),
            (DType::F64, among_zeros((-f64::NAN).to_le_bytes()), true),
            (
                DType::F64,
                among_zeros(f64::NEG_INFINITY.to_le_bytes()),
                false,
            ),
            (DType::F32, among_zeros(f32::NAN.to_le_bytes()), true),
            (DType::Flex32, among_zeros(f32::NAN.to_le_bytes()), true),
            (DType::F32, among_zeros(f32::INFINITY.to_le_bytes()), false),
            (
                DType::F32,
                among_zeros(f32::MIN_POSITIVE.to_le_bytes()),
                false,
            ),
            (DType::F16, half(0x7e00), true),
            (DType::F16, half(0xfc01), true),
            (DType::F16, half(0x7c00), false),
            (DType::BF16, half(0x7fc0), true),
            (DType::BF16, half(0xff81), true),
            (DType::BF16, half(0xff80), false),
            (DType::I32, among_zeros(f32::NAN.to_le_bytes()), false),
        ];
        for (dtype, bytes, expected) in table {
            assert_eq!(holds_nan(*dtype, bytes), *expected, "{dtype:?}");
        }
    }
}
