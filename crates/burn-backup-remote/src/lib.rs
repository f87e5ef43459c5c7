//! Backups that outlive the machine: mirrors generations of a [`Store`](burn_backup_store::Store) to S3, Google Cloud
//! Storage, Azure, or a directory.
//!
//! ```text
//! local:    .. -> commit -> prune
//!                   `-> publish -> prune            (in the mirror, in the background)
//! restore:  find -> fetch -> (continue with the local store)
//!
//! <prefix>/<run id>/lease.json                       the process that writes
//! <prefix>/<run id>/parts/<hash>-<bytes>.bpk         immutable, named by their contents
//! <prefix>/<run id>/generations/<epoch>/<n>.json     the sealed manifest, put last
//! <prefix>/<run id>/finished.json                    the training is finished
//! ```
//!
//! Call this crate from ordinary threads. Each mirror makes its requests on a thread of its own.
//!
//! # Example
//!
//! ```
//! use std::ops::ControlFlow;
//! use std::sync::Arc;
//!
//! use burn_backup_remote::{KeepLast, Mirror};
//! use burn_backup_store::{OpenOptions, Store};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let temporary = tempfile::tempdir()?;
//! # let (dir, on_another_machine) = (temporary.path().join("a"), temporary.path().join("b"));
//! let store = Arc::new(Store::open(&dir, OpenOptions::default())?);
//! let connection = Mirror::new("memory:/example").connect()?;
//! let found = connection.find(&store.identity().run_id, false)?;
//! let keep = Arc::new(KeepLast(1));
//! let mirroring = connection.mirror(Some(&found), &store, None, keep, Box::new(|_| {}));
//!
//! let mut staging = store.stage()?;
//! let mut part = staging.part("model")?;
//! part.append(b"weights")?;
//! part.finish()?;
//! let committed = staging.commit(serde_json::json!({ "step": 1 }))?;
//! mirroring.committed(committed.id());
//! mirroring.flush(None, &mut |_| ControlFlow::Continue(()))?;
//! drop(mirroring);
//!
//! let mut store = Store::open(&on_another_machine, OpenOptions::default())?;
//! let mut connection = Mirror::new("memory:/example").connect()?;
//! let found = connection.find(&store.identity().run_id, false)?;
//! connection.fetch(&found, None, &mut store, &mut |_| {})?;
//! let mut newest = store.newest()?.ok_or("fetched, so it is there")?;
//! assert_eq!(newest.take_part("model").as_deref(), Some(b"weights".as_slice()));
//! # Ok(())
//! # }
//! ```
//!
//! # Where the guarantees stop
//!
//! A generation is in the mirror once its manifest is. From then on, it is as durable as the storage makes an object
//! whose upload it has acknowledged. For example, a directory on NFS is as durable as its server makes it.
//!
//! A process takes over the lease of another one if the lease has not changed for its time to live. If the previous
//! holder was suspended for longer and then continues, it uploads at most one more manifest. Readers never treat that
//! manifest as the newest one.

mod aws_profile;
mod connection;
mod directory;
mod document;
mod error;
mod fetch;
mod finish;
mod holder;
mod keys;
mod lease;
mod mirror;
mod mirroring;
mod observe;
mod open;
mod pace;
mod place;
mod priority;
mod prune;
mod publish;
mod redact;
mod retention;
mod survey;
#[cfg(test)]
mod tests;
mod worker;

pub use connection::{Connection, Found};
pub use error::{Cause, Damage, MirrorError, RequestFailure};
pub use fetch::Transfer;
pub use mirror::Mirror;
pub use mirroring::{
    LeaseStatus, Leftovers, Listener, MirrorEvent, MirrorStatus, MirrorWatch, Mirroring,
};
pub use observe::MirroredTraining;
pub use retention::{KeepLast, Retention};

pub use object_store::ObjectStore;

const LOG: &str = "burn_backup::mirror";
