//! Module snapshots and module loading.

use std::path::Path;

use burn::module::Module;

use crate::burn_api::DeviceRead;
use crate::error::BackupError;
use crate::model;
use crate::part::{self, MODEL};
use crate::resume::SavedPart;
use crate::save::{RunningStates, SharedModel};

/// A snapshot of a module that shares its tensors with the training.
#[derive(Clone)]
pub(super) struct SharedModule<M> {
    /// The module with its own running states, unless it has none.
    detached: Option<M>,
    /// Shares running states with the module in training, so they may belong to any moment.
    living: M,
}

impl<M: Module> SharedModule<M> {
    pub(super) fn of(module: &M, running_states: RunningStates) -> Self {
        Self {
            // Running states (the mean and variance of a batch normalisation) hold back their newest update
            // until the next forward pass. `valid` applies the update immediately and returns a module with
            // separate state cells.
            detached: (running_states == RunningStates::Possible).then(|| module.valid()),
            living: module.clone(),
        }
    }

    pub(super) fn living(&self) -> &M {
        &self.living
    }

    /// The tensors, which keep the module's memory alive until they are taken.
    pub(super) fn model(&self, read: DeviceRead) -> SharedModel {
        shared_model(self.detached.as_ref(), &self.living, read)
    }
}

/// The tensors of `living`, or of its `detached` copy if the module has running states.
pub(super) fn shared_model<M: Module>(
    detached: Option<&M>,
    living: &M,
    read: DeviceRead,
) -> SharedModel {
    SharedModel {
        tensors: match detached {
            Some(detached) => model::tensors(detached, read),
            None => model::tensors(&living.valid(), read),
        },
        without_gradient: model::without_gradient(living),
    }
}

/// Whether `module` may have running states. A running state is a buffer and never has a gradient, so a module whose
/// parameters all have gradients has none.
pub(crate) fn running_states<M: Module>(module: &M) -> RunningStates {
    match model::without_gradient(module).is_empty() {
        true => RunningStates::None,
        false => RunningStates::Possible,
    }
}

/// The module with the saved weights, which the caller has checked to fit.
pub(super) fn load<M: Module>(
    module: &M,
    saved: &mut SavedPart,
    backup_dir: &Path,
) -> Result<M, BackupError> {
    let failed = part::unreadable(&part::name(&saved.name, MODEL));
    let mut module = module.clone();
    for record in saved.model_records(backup_dir)? {
        module = module.try_load_record(record).map_err(&failed)?;
    }
    Ok(module)
}
