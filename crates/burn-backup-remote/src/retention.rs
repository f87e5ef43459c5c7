//! Which generations stay in a mirror: decided by whoever mirrors.

use std::collections::BTreeSet;

use burn_backup_store::{GenerationId, Manifest};

/// Says which generations stay in a mirror. It is asked on the mirror's thread.
pub trait Retention: Send + Sync {
    /// The mirror has a generation with this manifest, which may be nowhere else.
    fn learn(&self, manifest: &Manifest);

    /// Which of these stay: those that are whole in the mirror, newest first. A slow link has left others out.
    fn stay(&self, newest_first: &[GenerationId]) -> BTreeSet<GenerationId>;
}

/// Keeps the newest so many generations, and one in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepLast(pub usize);

impl Retention for KeepLast {
    fn learn(&self, _manifest: &Manifest) {}

    fn stay(&self, newest_first: &[GenerationId]) -> BTreeSet<GenerationId> {
        newest_first.iter().take(self.0.max(1)).copied().collect()
    }
}
