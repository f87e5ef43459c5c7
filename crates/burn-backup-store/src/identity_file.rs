//! `burn-backup.json`: the file with the directory's format and the training it belongs to.

use crate::error::{NOT_COMMITTED, StoreError, UNCHANGED};
use crate::files;
use crate::fs::Filesystem;
use crate::identity::Identity;
use crate::layout::Layout;
use crate::seal;
use crate::verify::{self, Small};

const MAX_IDENTITY_BYTES: u64 = 64 * 1024;

/// The state of the identity file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    Whole(Identity),
    Damaged,
    Nothing,
}

/// Reads `burn-backup.json`. If it seems damaged, or can't be read, it is read once more.
pub(crate) fn read(fs: &dyn Filesystem, layout: &Layout) -> Result<Found, StoreError> {
    match read_once(fs, layout) {
        Ok(Found::Damaged) | Err(StoreError::Io { .. }) => read_once(fs, layout),
        found => found,
    }
}

fn read_once(fs: &dyn Filesystem, layout: &Layout) -> Result<Found, StoreError> {
    let path = layout.identity();
    let read = verify::read_small(fs, &path, MAX_IDENTITY_BYTES);
    let bytes = match read.map_err(StoreError::io("read", &path, UNCHANGED))? {
        Small::Whole(bytes) => bytes,
        Small::Missing => return Ok(Found::Nothing),
        Small::NotAFile => return Err(StoreError::Foreign { path }),
        Small::TooLong => return Ok(Found::Damaged),
    };
    let identity = seal::unseal(&bytes)
        .ok()
        .map(|text| verify::parse_versioned::<Identity>(text, &path))
        .transpose()?
        .and_then(Result::ok);
    Ok(identity.map_or(Found::Damaged, Found::Whole))
}

/// Writes the file, and replaces an existing one.
pub(crate) fn write(
    fs: &dyn Filesystem,
    layout: &Layout,
    identity: &Identity,
) -> Result<(), StoreError> {
    let bytes = seal::seal(identity).map_err(|error| StoreError::State(error.into()))?;
    let path = layout.identity();
    let staged = layout.staging("identity", files::draw()?);
    let failed = |operation, at| StoreError::io(operation, at, NOT_COMMITTED);

    files::write_file(fs, &staged, &bytes).map_err(failed("write", &staged))?;
    if fs.kind(&path).map_err(failed("inspect", &path))?.is_some() {
        fs.remove_file(&path).map_err(failed("replace", &path))?;
    }
    fs.rename(&staged, &path)
        .map_err(failed("rename into place", &path))?;
    fs.sync_dir(layout.root())
        .map_err(failed("sync", layout.root()))
}
