//! Checks format versions before anything is changed. What a newer program wrote is refused and left unchanged.

use std::path::Path;

use crate::directory::Directory;
use crate::error::StoreError;
use crate::verify::{self, MAX_MANIFEST_BYTES, Small};
use crate::{discover, identity_file, seal};

/// Which generations are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// The generations from the newest one to the first whose manifest has an intact seal.
    Newest,
    /// All generations, because any of them may be needed.
    All,
}

/// Refuses a directory in which any document has a newer format. Skips documents that can't be read: the code that
/// needs them reports the error.
pub(crate) fn refuse_newer(dir: &Directory, which: Which) -> Result<(), StoreError> {
    let (fs, layout) = (dir.fs(), &dir.layout);
    if let Err(error @ StoreError::NewerFormat { .. }) = identity_file::read(fs, layout) {
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
