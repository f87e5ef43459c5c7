//! Decides which generations stay in a mirror.

use std::collections::BTreeSet;

use burn_backup_store::{GenerationId, Manifest};

/// Decides which generations stay in a mirror. Called on the mirror's thread.
pub trait Retention: Send + Sync {
    /// The mirror has a generation with this manifest, which may not be in the local store.
    fn learn(&self, manifest: &Manifest);

    /// The generations that stay, of the whole ones in the mirror, newest first. A slow link may have caused gaps
    /// between them.
    fn kept(&self, newest_first: &[GenerationId]) -> BTreeSet<GenerationId>;
}

/// Keeps the newest generations, as many as given, and at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepLast(pub usize);

impl Retention for KeepLast {
    fn learn(&self, _manifest: &Manifest) {}

    fn kept(&self, newest_first: &[GenerationId]) -> BTreeSet<GenerationId> {
        newest_first.iter().take(self.0.max(1)).copied().collect()
    }
}
