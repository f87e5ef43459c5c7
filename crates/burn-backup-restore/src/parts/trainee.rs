use std::fmt;
use std::path::Path;

use burn::lr_scheduler::LrSchedulerRecord;
use burn::module::Module;
use burn::optim::{LearningRate, ModuleOptimizer};
use burn::tensor::Device;
use burn_pack::Tensor;

use super::module::{self, SharedModule};
use super::optimization::{Reading, TraineeOptimizer, TraineeScheduler};
use crate::burn_api::{DeviceRead, Unpacker, optimizer_record, paths};
use crate::change::Change;
use crate::configuration::Schedule;
use crate::error::BackupError;
use crate::model;
use crate::part::{self, OPTIMIZER, SCHEDULER, unreadable};
use crate::resume::{Expected, LoadPart, Loaded, SavedPart, check_trained, foreign};
use crate::save::{
    Fit, Misfit, OtherRecords, RunningStates, SavePart, SharedModel, SharedPart, misfit,
};

/// A model with its optimizer and learning rate: the state of a hand-written loop.
///
/// The fields belong to the program, which may change them freely between two calls of the session. `lr` is one of
/// Burn's schedulers, a constant number, or `()` if the program computes its own learning rates.
///
/// # Example
///
/// ```
/// use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
/// use burn::module::Module;
/// use burn::optim::AdamConfig;
/// use burn_backup_restore::Trainee;
///
/// # fn run<M: Module>(model: M) -> Result<(), String> {
/// let trainee = Trainee {
///     model,
///     optim: AdamConfig::new().init(),
///     lr: CosineAnnealingLrSchedulerConfig::new(1e-3, 1000).init()?,
/// };
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Trainee<M, O = ModuleOptimizer, S = LearningRate> {
    /// The model.
    pub model: M,
    /// Its optimizer.
    pub optim: O,
    /// The learning rate or its scheduler.
    pub lr: S,
}

impl<M: fmt::Debug, O, S> fmt::Debug for Trainee<M, O, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trainee")
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

impl<M, O, S> SavePart for Trainee<M, O, S>
where
    M: Module + 'static,
    O: TraineeOptimizer,
    S: TraineeScheduler,
{
    fn snapshot(&self, running_states: RunningStates) -> Box<dyn SharedPart> {
        Box::new(SharedTrainee {
            model: SharedModule::of(&self.model, running_states),
            optim: self.optim.clone(),
            lr: self.lr.clone(),
        })
    }

    fn initialize(&self) {
        model::initialize(&self.model);
    }

    fn devices(&self) -> Vec<Device> {
        self.model.devices()
    }

    fn running_states(&self) -> RunningStates {
        module::running_states(&self.model)
    }

    fn settle_running_states(&self) {
        drop(self.model.valid());
    }

    fn model(&self) -> Option<Vec<Tensor>> {
        Some(model::tensors(&self.model.valid(), DeviceRead::Now))
    }

    fn outline(&self) -> Option<Vec<Tensor>> {
        Some(model::outline(&self.model))
    }

    fn schedule(&self) -> Option<Schedule> {
        let mut lr = self.lr.clone();
        let first = lr.next_rate()?;
        let mut first = Some(first);
        let next_rate = || match first.take() {
            Some(rate) => rate,
            None => lr.next_rate().unwrap_or_default(),
        };
        Some(Schedule::of(&self.model, next_rate))
    }
}

/// A snapshot of a trainee.
struct SharedTrainee<M, O, S> {
    model: SharedModule<M>,
    optim: O,
    lr: S,
}

impl<M, O, S> SharedPart for SharedTrainee<M, O, S>
where
    M: Module + 'static,
    O: TraineeOptimizer,
    S: TraineeScheduler,
{
    fn model(&self, read: DeviceRead) -> Option<SharedModel> {
        Some(self.model.model(read))
    }

    fn others(&self, fit: &mut Fit) -> Result<OtherRecords, BackupError> {
        let mut reading = Reading {
            optim: &self.optim,
            lr: &self.lr,
            paths: paths(self.model.living()),
            unpacker: std::mem::take(&mut fit.unpacker),
        };
        let read = fit.read(&mut reading, OPTIMIZER);
        fit.unpacker = reading.unpacker;
        let (optimizer, scheduler) = read?;
        Ok(OtherRecords {
            optimizer: Some(optimizer),
            scheduler: Some(scheduler),
            ..OtherRecords::default()
        })
    }

    fn again(&self) -> Box<dyn SharedPart> {
        Box::new(Self {
            model: self.model.clone(),
            optim: self.optim.clone(),
            lr: self.lr.clone(),
        })
    }
}

impl<M, O, S> LoadPart for Trainee<M, O, S>
where
    M: Module + 'static,
    O: TraineeOptimizer,
    S: TraineeScheduler,
{
    fn check(
        &self,
        saved: &SavedPart,
        expected: &Expected<'_>,
    ) -> Result<Vec<Change>, BackupError> {
        let Expected {
            changes,
            backup_dir,
            ..
        } = expected;
        saved.check_model(&self.model, backup_dir)?;
        let mut changed = Vec::new();
        if let Some(untrained) = &saved.document.untrained {
            match check_trained(untrained, &self.model, backup_dir) {
                Err(BackupError::TrainedMismatch { .. })
                    if changes.allows(Change::TrainedParameters) =>
                {
                    changed.push(Change::TrainedParameters);
                }
                trained => trained?,
            }
        }
        let (Some(optimizer), Some(scheduler)) = (&saved.optimizer, &saved.scheduler) else {
            return Err(foreign(backup_dir, None));
        };
        let mut reading = Reading {
            optim: &self.optim,
            lr: &self.lr,
            paths: paths(&self.model),
            unpacker: Unpacker::default(),
        };
        let failed = unreadable(&part::name(&saved.name, OPTIMIZER));
        match misfit(&mut reading, optimizer, scheduler.clone()).map_err(failed)? {
            None => {}
            Some(Misfit::SchedulerLost { .. }) if changes.allows(Change::Schedule) => {
                changed.push(Change::Schedule);
            }
            Some(Misfit::OptimizerLost { .. } | Misfit::OptimizerConverted { .. })
                if changes.allows(Change::Optimizer) =>
            {
                changed.push(Change::Optimizer);
            }
            Some(misfit) => return Err(misfit.into_mismatch(backup_dir)),
        }
        Ok(changed)
    }

    fn load(
        &mut self,
        mut saved: SavedPart,
        changed: &mut Vec<Change>,
        expected: &Expected<'_>,
    ) -> Result<Loaded, BackupError> {
        let model = module::load(&self.model, &mut saved, expected.backup_dir)?;
        let optimizer = saved.optimizer.unwrap_or_default();
        let entries = optimizer.scalars.len() + optimizer.tensors.len();
        let is_kept = !changed.contains(&Change::Optimizer);
        if is_kept {
            let failed = unreadable(&part::name(&saved.name, OPTIMIZER));
            let record = optimizer_record(optimizer).map_err(failed)?;
            self.optim = self.optim.clone().load_record(record);
        }
        match (changed.contains(&Change::Schedule), saved.scheduler) {
            // Use the program's new schedule, advanced to the current step.
            (true, _) => {
                for _ in 0..saved.optimizer_steps {
                    self.lr.next_rate();
                }
            }
            (false, Some(scheduler)) => {
                let failed = unreadable(&part::name(&saved.name, SCHEDULER));
                let record = LrSchedulerRecord::from_bytes(scheduler).map_err(failed)?;
                self.lr = self.lr.clone().load_record(record);
            }
            (false, None) => {}
        }
        self.model = model;
        Ok(Loaded {
            fit: match is_kept {
                true => Fit::checked(entries),
                false => Fit::default(),
            },
            learning_rate: None,
        })
    }

    fn load_weights(&mut self, mut saved: SavedPart, backup_dir: &Path) -> Result<(), BackupError> {
        saved.check_model(&self.model, backup_dir)?;
        self.model = module::load(&self.model, &mut saved, backup_dir)?;
        Ok(())
    }
}
