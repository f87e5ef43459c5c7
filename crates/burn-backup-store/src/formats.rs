//! A look at format versions before anything is changed: what a newer program wrote is refused, and
//! must be found as it was.

use std::path::Path;

use crate::directory::Directory;
use crate::error::StoreError;
use crate::verify::{self, MAX_MANIFEST_BYTES, Small};
use crate::{discover, identity_file, seal};

/// Which generations are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// From the newest one to the first whose manifest has a whole seal.
    Newest,
    /// Every one: all but one of them may be needed.
    All,
}

/// Refuses a directory in which something has a newer format. What can't be read is passed over:
/// whoever needs it will say so.
pub(crate) fn refuse_newer(dir: &Directory, which: Which) -> Result<(), StoreError> {
    let (fs, layout) = (dir.fs(), &dir.layout);
    if let Err(error @ StoreError::NewerFormat { .. }) = identity_file::look(fs, layout) {
        return Err(error);
    }
    for id in discover::generations(fs, layout).unwrap_or_default() {
        let path = layout.generation(id).join(crate::layout::MANIFEST_FILE);
        let is_sealed = match verify::read_small(fs, &path, MAX_MANIFEST_BYTES) {
            Ok(Small::Whole(bytes)) => is_sealed(&bytes, &path)?,
            _ => false,
        };
        if is_sealed && which == Which::Newest {
            break;
        }
    }
    Ok(())
}

fn is_sealed(bytes: &[u8], path: &Path) -> Result<bool, StoreError> {
    match seal::unseal(bytes) {
        Ok(text) => verify::check_version(text, path).map(|()| true),
        Err(_) => Ok(false),
    }
}
