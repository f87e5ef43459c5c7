//! Passes a buffer that the store has read to Burn, without a copy. The buffer may be memory that was mapped from the
//! system.
#![expect(
    unsafe_code,
    reason = "Burn accepts memory other than a vector only through an unsafe constructor"
)]

use std::mem::MaybeUninit;

use burn::tensor::Bytes;
use burn_backup_store::Buffer;
use burn_std::{AccessError, AccessPolicy, AllocationController, AllocationProperty};

/// The largest alignment that Burn asks for. Mapped memory starts at a page, which is a larger alignment. Burn copies
/// memory with the reported alignment, and panics if that is larger than this.
const ALIGNMENT: usize = align_of::<u128>();

/// The bytes for Burn, aligned for numbers of any type. Without a copy, unless the allocator gave a small buffer an
/// unaligned address.
pub(crate) fn bytes(buffer: Buffer) -> Bytes {
    match buffer.try_into_vec() {
        Ok(vector) => aligned(vector),
        Err(mapped) => {
            let len = mapped.len();
            // SAFETY: all `len` bytes of a buffer are initialised.
            unsafe { Bytes::from_controller(Box::new(Mapped(mapped)), len) }
        }
    }
}

fn aligned(bytes: Vec<u8>) -> Bytes {
    if bytes.as_ptr().addr().is_multiple_of(align_of::<u128>()) {
        Bytes::from_elems(bytes)
    } else {
        Bytes::from_bytes_vec(bytes)
    }
}

/// A buffer in memory that was mapped from the system.
struct Mapped(Buffer);

impl AllocationController for Mapped {
    fn alloc_align(&self) -> usize {
        ALIGNMENT
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    fn capacity(&self) -> usize {
        self.0.len()
    }

    fn memory(&self, _policy: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        let bytes: &[u8] = &self.0;
        // SAFETY: the layout is the same, and initialised bytes are valid `MaybeUninit` bytes.
        Ok(unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) })
    }

    unsafe fn memory_mut(
        &mut self,
        _policy: AccessPolicy,
    ) -> Result<&mut [MaybeUninit<u8>], AccessError> {
        let bytes: &mut [u8] = &mut self.0;
        // SAFETY: the layout is the same, and the caller writes initialised bytes only.
        Ok(unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len()) })
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device, Tensor, TensorData};

    use super::*;

    /// Large enough that the memory is mapped from the system.
    const LEN: usize = 3 * 1024 * 1024;

    /// Bytes as a store reads them, in one buffer.
    fn read(bytes: Vec<u8>) -> Buffer {
        let temporary = tempfile::tempdir().unwrap();
        let options = burn_backup_store::OpenOptions::default();
        let store = burn_backup_store::Store::open(temporary.path().join("b"), options).unwrap();
        let mut staging = store.stage().unwrap();
        let mut part = staging.part("part").unwrap();
        part.append(bytes).unwrap();
        part.finish().unwrap();
        let _ = staging.commit(1).unwrap();
        let mut newest = store.newest().unwrap().unwrap();
        newest.take_chunks("part").unwrap().remove(0)
    }

    #[test]
    fn a_tensor_in_read_memory_can_be_changed_and_moved() {
        for len in [16, 1000, LEN] {
            let whole: Vec<u8> = (0..len).map(|at| (at / 5) as u8).collect();
            let buffer = read(whole.clone());
            let is_mapped = len == LEN;
            let address = buffer.as_ptr();
            let mut bytes = bytes(buffer);
            if is_mapped {
                assert_eq!(bytes.as_ptr(), address, "nothing was copied");
            }
            assert_eq!(bytes.len(), len);
            assert!(bytes.as_ptr().addr().is_multiple_of(align_of::<u128>()));
            assert!(bytes[..] == whole[..]);
            bytes[7] = 77;
            assert_eq!(bytes.clone()[7], 77);
            let mut shared = bytes.shared();
            let view = shared.view(4, 12).unwrap();
            shared[5] = 55;
            assert_eq!(
                (view[1], view[3]),
                (whole[5], 77),
                "a view keeps its contents"
            );
            assert_eq!(
                shared
                    .try_into_vec::<u8>()
                    .map_or(0, |bytes| bytes.len())
                    .max(len),
                len
            );
        }
    }

    #[test]
    fn a_tensor_in_read_memory_computes_like_others() {
        let numbers: Vec<f32> = (0..LEN / 4).map(|at| at as f32).collect();
        let whole: Vec<u8> = numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        let data = TensorData::from_bytes(bytes(read(whole)), [LEN / 4], DType::F32);
        let tensor = Tensor::<1>::from_data(data, &Device::flex()) * 2.0 + 1.0;
        let found = tensor.to_data().try_to_vec::<f32>().unwrap();
        let expected = numbers.iter().map(|number| number * 2.0 + 1.0);
        assert!(found.into_iter().eq(expected));
    }
}
