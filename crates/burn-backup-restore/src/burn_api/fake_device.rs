//! Bytes on a fake device for tests. They are read lazily.
#![expect(
    unsafe_code,
    reason = "Burn accepts memory other than a vector only through an unsafe constructor"
)]

use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Bytes;
use burn_std::{AccessError, AccessPolicy, AllocationController, AllocationProperty};

/// A device with contents, which records the ranges that are read.
#[derive(Clone)]
pub(crate) struct FakeDevice {
    contents: Arc<Vec<u8>>,
    read: Arc<Mutex<Vec<Range<usize>>>>,
}

impl FakeDevice {
    pub(crate) fn new(contents: Vec<u8>) -> Self {
        Self {
            contents: Arc::new(contents),
            read: Arc::default(),
        }
    }

    /// All its contents, not read yet.
    pub(crate) fn bytes(&self) -> Bytes {
        let len = self.contents.len();
        let all = Self::of(self.clone(), 0..len);
        // SAFETY: the controller has `len` initialised bytes.
        unsafe { Bytes::from_controller(Box::new(all), len) }
    }

    /// The ranges that were read, in this order.
    pub(crate) fn read(&self) -> Vec<Range<usize>> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.clone()
    }

    fn of(device: Self, range: Range<usize>) -> OnDevice {
        OnDevice { device, range }
    }
}

struct OnDevice {
    device: FakeDevice,
    range: Range<usize>,
}

impl AllocationController for OnDevice {
    fn alloc_align(&self) -> usize {
        1
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Device
    }

    fn capacity(&self) -> usize {
        self.range.len()
    }

    fn view(&self, start: usize, end: usize) -> Option<Box<dyn AllocationController>> {
        let range = self.range.start + start..self.range.start + end;
        Some(Box::new(FakeDevice::of(self.device.clone(), range)))
    }

    fn memory(&self, _policy: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        let mut read = self
            .device
            .read
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if read.last() != Some(&self.range) {
            read.push(self.range.clone());
        }
        let bytes = &self.device.contents[self.range.clone()];
        // SAFETY: the layout is the same, and initialised bytes are valid `MaybeUninit` bytes.
        Ok(unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) })
    }

    unsafe fn memory_mut(
        &mut self,
        _policy: AccessPolicy,
    ) -> Result<&mut [MaybeUninit<u8>], AccessError> {
        Err(AccessError::WouldCopy)
    }
}
