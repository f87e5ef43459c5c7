use std::ops::{Deref, DerefMut};
use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use burn_pack::Tensor;

use super::module::{self, SharedModule};
use crate::burn_api::DeviceRead;
use crate::change::Change;
use crate::error::BackupError;
use crate::model;
use crate::resume::{Expected, LoadPart, Loaded, SavedPart};
use crate::save::{Fit, OtherRecords, RunningStates, SavePart, SharedModel, SharedPart};

/// A module without an optimizer: an average of the weights, a teacher, a target network.
///
/// Weights that do not change, such as those of a frozen teacher, are written once and linked in later backups. Data
/// of a module that is not a parameter (`#[module(skip)]`, plain fields) is not saved. Put it into a
/// [`Value`](crate::Value).
#[derive(Debug, Clone)]
pub struct Weights<M>(pub M);

impl<M> Deref for Weights<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.0
    }
}

impl<M> DerefMut for Weights<M> {
    fn deref_mut(&mut self) -> &mut M {
        &mut self.0
    }
}

impl<M: Module + 'static> SavePart for Weights<M> {
    fn snapshot(&self, running_states: RunningStates) -> Box<dyn SharedPart> {
        Box::new(SharedWeights(SharedModule::of(&self.0, running_states)))
    }

    fn initialize(&self) {
        model::initialize(&self.0);
    }

    fn devices(&self) -> Vec<Device> {
        self.0.devices()
    }

    fn running_states(&self) -> RunningStates {
        module::running_states(&self.0)
    }

    fn settle_running_states(&self) {
        drop(self.0.valid());
    }

    fn model(&self) -> Option<Vec<Tensor>> {
        Some(model::tensors(&self.0.valid(), DeviceRead::Now))
    }

    fn outline(&self) -> Option<Vec<Tensor>> {
        Some(model::outline(&self.0))
    }
}

struct SharedWeights<M>(SharedModule<M>);

impl<M: Module + 'static> SharedPart for SharedWeights<M> {
    fn model(&self, read: DeviceRead) -> Option<SharedModel> {
        Some(self.0.model(read))
    }

    fn others(&self, _fit: &mut Fit) -> Result<OtherRecords, BackupError> {
        Ok(OtherRecords::default())
    }

    fn again(&self) -> Box<dyn SharedPart> {
        Box::new(Self(self.0.clone()))
    }
}

impl<M: Module + 'static> LoadPart for Weights<M> {
    fn check(
        &self,
        saved: &SavedPart,
        expected: &Expected<'_>,
    ) -> Result<Vec<Change>, BackupError> {
        saved.check_model(&self.0, expected.backup_dir)?;
        Ok(Vec::new())
    }

    fn load(
        &mut self,
        mut saved: SavedPart,
        _changed: &mut Vec<Change>,
        expected: &Expected<'_>,
    ) -> Result<Loaded, BackupError> {
        self.0 = module::load(&self.0, &mut saved, expected.backup_dir)?;
        Ok(Loaded::default())
    }

    fn load_weights(&mut self, mut saved: SavedPart, backup_dir: &Path) -> Result<(), BackupError> {
        saved.check_model(&self.0, backup_dir)?;
        self.0 = module::load(&self.0, &mut saved, backup_dir)?;
        Ok(())
    }
}
