//! Memory that parts are read into.

use std::io;
use std::ops::{Deref, DerefMut};

use memmap2::{MmapMut, MmapOptions};

/// Buffers of at least this length are mapped from the system, in large pages if it has any. Providing the pages of new
/// memory takes longer than reading a file into them.
const MAPPED_BYTES: usize = 2 * 1024 * 1024;

/// Memory that a part, or a section of it, was read into.
#[derive(Debug)]
pub struct Buffer(Memory);

#[derive(Debug)]
enum Memory {
    Heap(Vec<u8>),
    Mapped(MmapMut),
}

impl Buffer {
    /// A buffer of this many zeros.
    pub(crate) fn zeroed(len: usize) -> io::Result<Self> {
        if len >= MAPPED_BYTES {
            let mapped = MmapOptions::new().len(len).map_anon()?;
            // A kernel without large pages uses small ones.
            #[cfg(target_os = "linux")]
            let _ = mapped.advise(memmap2::Advice::HugePage);
            return Ok(Self(Memory::Mapped(mapped)));
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len)?;
        bytes.resize(len, 0);
        Ok(Self(Memory::Heap(bytes)))
    }

    /// Returns the bytes as a vector, without a copy, if they are in one.
    ///
    /// # Errors
    ///
    /// The buffer, if its memory is mapped from the system.
    pub fn try_into_vec(self) -> Result<Vec<u8>, Self> {
        match self.0 {
            Memory::Heap(bytes) => Ok(bytes),
            Memory::Mapped(_) => Err(self),
        }
    }

    /// Concatenates the buffers. Copies the bytes, unless there is only one buffer.
    pub fn concat(buffers: Vec<Self>) -> Self {
        match <[Self; 1]>::try_from(buffers) {
            Ok([only]) => only,
            Err(buffers) => {
                let slices: Vec<&[u8]> = buffers.iter().map(|buffer| &**buffer).collect();
                slices.concat().into()
            }
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Memory::Heap(bytes) => bytes,
            Memory::Mapped(bytes) => bytes,
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Memory::Heap(bytes) => bytes,
            Memory::Mapped(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Memory::Heap(bytes))
    }
}
