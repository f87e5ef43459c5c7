//! The types of `burn-backup-remote`, without values. No mirror can be created, so none of these methods is ever
//! called.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use burn_backup_store::{GenerationId, Manifest, Store};

/// A type without values.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Never {}

macro_rules! never {
    ($($name:ident),*) => {$(
        #[derive(Debug, Clone)]
        pub(crate) struct $name(Never);
    )*};
}

never!(
    Connection,
    Found,
    Leftovers,
    Mirror,
    MirrorError,
    MirrorWatch,
    Mirroring
);

#[expect(dead_code, reason = "no value is ever created")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaseStatus {
    Held,
    Lost,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Transfer {
    pub done: u64,
    pub of: u64,
}

pub(crate) struct MirrorStatus {
    pub mirrored: Option<GenerationId>,
    pub committed: Option<GenerationId>,
    pub lease: LeaseStatus,
    pub last_error: Option<Arc<MirrorError>>,
    pub stopped: Option<Arc<MirrorError>>,
    pub upload_last: Option<Duration>,
    pub uploading_since: Option<Instant>,
    pub is_failing: bool,
}

#[expect(dead_code, reason = "no event is ever sent")]
pub(crate) enum MirrorEvent {
    Failed(Arc<MirrorError>),
    Recovered,
    Mirrored(GenerationId),
    Stopped(Arc<MirrorError>),
}

#[expect(dead_code, reason = "no method is ever called")]
pub(crate) trait MirrorRetention: Send + Sync {
    fn learn(&self, manifest: &Manifest);

    fn kept(&self, newest_first: &[GenerationId]) -> BTreeSet<GenerationId>;
}

pub(crate) type Listener = Box<dyn Fn(MirrorEvent) + Send + Sync>;

impl fmt::Display for MirrorError {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}

impl std::error::Error for MirrorError {}

impl MirrorError {
    pub(crate) fn never(&self) -> ! {
        match self.0 {}
    }

    pub(crate) fn is_unavailable(&self) -> bool {
        match self.0 {}
    }

    pub(crate) fn is_none_intact(&self) -> bool {
        match self.0 {}
    }
}

impl Mirror {
    pub(crate) fn never(&self) -> ! {
        match self.0 {}
    }

    pub(crate) fn connect(&self) -> Result<Connection, MirrorError> {
        match self.0 {}
    }

    pub(crate) fn starts_new_if_unreachable(&self) -> bool {
        match self.0 {}
    }
}

impl Found {
    pub(crate) fn newest(&self) -> Option<GenerationId> {
        match self.0 {}
    }

    pub(crate) fn greatest(&self) -> GenerationId {
        match self.0 {}
    }

    pub(crate) fn finished(&self) -> Option<GenerationId> {
        match self.0 {}
    }

    pub(crate) fn holder(&self) -> Option<(&str, Duration)> {
        match self.0 {}
    }
}

impl Connection {
    pub(crate) fn find(&self, _run_id: &str, _has_backup: bool) -> Result<Found, MirrorError> {
        match self.0 {}
    }

    pub(crate) fn fetch(
        &mut self,
        _found: &Found,
        _here: Option<GenerationId>,
        _store: &mut Store,
        _on_transfer: &mut dyn FnMut(Transfer),
    ) -> Result<GenerationId, MirrorError> {
        match self.0 {}
    }

    pub(crate) fn fetch_only(
        &mut self,
        _found: &Found,
        _id: GenerationId,
        _store: &mut Store,
        _on_transfer: &mut dyn FnMut(Transfer),
    ) -> Result<(), MirrorError> {
        match self.0 {}
    }

    pub(crate) fn abandon_up_to(&mut self, _up_to: GenerationId) {
        match self.0 {}
    }

    pub(crate) fn manifests(&self, _found: &Found) -> Result<Vec<Manifest>, MirrorError> {
        match self.0 {}
    }

    pub(crate) fn mirror(
        self,
        _found: Option<&Found>,
        _store: &Arc<Store>,
        _here: Option<GenerationId>,
        _retention: Arc<dyn MirrorRetention>,
        _listener: Listener,
    ) -> Mirroring {
        match self.0 {}
    }

    pub(crate) fn finish(self, _found: &Found) -> Result<Option<Leftovers>, MirrorError> {
        match self.0 {}
    }
}

impl Mirroring {
    pub(crate) fn announce(&self, _id: GenerationId) {
        match self.0 {}
    }

    pub(crate) fn committed(&self, _id: GenerationId) {
        match self.0 {}
    }

    pub(crate) fn status(&self) -> MirrorStatus {
        match self.0 {}
    }

    pub(crate) fn watch(&self) -> MirrorWatch {
        match self.0 {}
    }

    pub(crate) fn flush(
        &self,
        _until: Option<Instant>,
        _on_transfer: &mut dyn FnMut(Transfer) -> ControlFlow<()>,
    ) -> Result<(), Arc<MirrorError>> {
        match self.0 {}
    }

    pub(crate) fn finish(&self) -> Result<Leftovers, Arc<MirrorError>> {
        match self.0 {}
    }
}

impl MirrorWatch {
    pub(crate) fn status(&self) -> MirrorStatus {
        match self.0 {}
    }
}

impl Leftovers {
    pub(crate) fn clear(self) -> Result<(), MirrorError> {
        match self.0 {}
    }
}
