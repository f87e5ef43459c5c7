//! Burn's own format.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use burn_backup_store::OpenGeneration;
use burn_pack::Writer;

use crate::atomic_write;
use crate::record::Record;
use crate::source::Local;

/// The size of one read.
const WINDOW: u64 = 4 * 1024 * 1024;

/// Copies a part unchanged.
pub fn copy(generation: &OpenGeneration, part: &str, path: &Path, is_forced: bool) -> Result<()> {
    let part = generation.part(part).context("the part is missing")?;
    atomic_write::write(path, is_forced, |file| {
        let mut done = 0;
        while done < part.entry().bytes {
            let mut bytes = vec![0; usize::try_from(WINDOW.min(part.entry().bytes - done))?];
            part.read(done, &mut bytes)?;
            let written = file.write_all(&bytes);
            written.with_context(|| {
                format!("cannot write '{}': check the free space", path.display())
            })?;
            done += bytes.len() as u64;
        }
        Ok(())
    })
}

/// Writes a record that was in several parts. Only one tensor is in memory at a time.
pub fn write(generation: &Arc<Local>, record: &Record, path: &Path, is_forced: bool) -> Result<()> {
    let tensors = record
        .tensors
        .iter()
        .map(|(name, entry)| entry.deferred(name, generation));
    let mut writer = Writer::new(tensors.collect::<Result<_>>()?).auto_extension(false);
    for (name, value) in &record.scalars {
        writer = writer.with_scalar(name, *value);
    }
    for (name, value) in &record.metadata {
        writer = writer.with_metadata(name, value);
    }
    atomic_write::write(path, is_forced, |file| {
        let written = writer.write_to_file_in_place(file.path());
        written.with_context(|| format!("cannot write '{}': check the free space", path.display()))
    })
}
