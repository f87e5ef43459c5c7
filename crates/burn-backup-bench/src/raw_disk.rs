use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// Bytes in memory that are written to one new file at the full speed of the disk.
pub struct RawDisk {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl RawDisk {
    /// `size` bytes that neither a file system nor a disk can compress, for a file in `dir`.
    pub fn new(dir: &Path, size: u64) -> Self {
        Self {
            path: dir.join("raw"),
            bytes: noise(size as usize),
        }
    }

    /// Writes and syncs the file, and returns the time. The removal of the file is not timed.
    pub fn write(&self) -> Result<Duration> {
        let context = || format!("cannot write {:?}", self.path);
        let started = Instant::now();
        let mut file = File::create_new(&self.path).with_context(context)?;
        file.write_all(&self.bytes).with_context(context)?;
        file.sync_all().with_context(context)?;
        let took = started.elapsed();
        drop(file);
        fs::remove_file(&self.path).with_context(|| format!("cannot remove {:?}", self.path))?;
        Ok(took)
    }

    /// The number of bytes in each write.
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// Marsaglia's xorshift: not truly random, but incompressible.
pub fn noise(size: usize) -> Vec<u8> {
    let mut word = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(size.next_multiple_of(8));
    while bytes.len() < size {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_write_has_exactly_the_requested_size() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RawDisk::new(dir.path(), 1001);
        assert_eq!(disk.size(), 1001);
        disk.write().unwrap();
        disk.write().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
