//! The mirror, which needs the feature `mirror`. Without it there is no mirror, and these types have no values.

#[cfg(not(feature = "mirror"))]
mod absent;

#[cfg(feature = "mirror")]
pub(crate) use burn_backup_remote::{
    Connection, Found, LeaseStatus, Leftovers, Mirror, MirrorError, MirrorEvent, MirrorStatus,
    MirrorWatch, Mirroring, Retention as MirrorRetention,
};

#[cfg(not(feature = "mirror"))]
pub(crate) use absent::{
    Connection, Found, LeaseStatus, Leftovers, Mirror, MirrorError, MirrorEvent, MirrorRetention,
    MirrorStatus, MirrorWatch, Mirroring,
};
