//! Which parameters of a model are trained (`set_require_grad`). Burn's records do not contain this.

use std::collections::BTreeSet;
use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;

use crate::error::BackupError;
use crate::model;

/// Checks that `model` trains the same parameters as when the backup was made. `recorded` are the paths of the
/// parameters that were not trained.
pub(crate) fn check<M: Module>(
    recorded: &[String],
    model: &M,
    backup_dir: &Path,
) -> Result<(), BackupError> {
    let recorded: BTreeSet<_> = recorded.iter().cloned().collect();
    let found: BTreeSet<_> = model::without_gradient(model).into_iter().collect();
    if recorded == found {
        return Ok(());
    }
    Err(BackupError::TrainedMismatch {
        path: backup_dir.to_path_buf(),
        trained_before: found.difference(&recorded).cloned().collect(),
        frozen_before: recorded.difference(&found).cloned().collect(),
    })
}

/// Returns the model with the parameters at these paths frozen and all others trained.
pub(crate) fn apply<M: Module>(recorded: &[String], model: M) -> M {
    let mut flags = Flags {
        frozen: recorded.iter().cloned().collect(),
        path: Vec::new(),
    };
    model.map(&mut flags)
}

struct Flags {
    frozen: BTreeSet<String>,
    path: Vec<String>,
}

impl ModuleMapper for Flags {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let is_trained = !self.frozen.contains(&self.path.join("."));
        // This keeps a lazy parameter lazy.
        param.set_require_grad(is_trained)
    }

    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }
}
