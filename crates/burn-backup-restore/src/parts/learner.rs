//! Burn's learner, which does not expose its optimizer and its scheduler.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use burn::lr_scheduler::LrSchedulerRecord;
use burn::optim::{GradientsParams, OptimizerRecord};
use burn::store::RecordError;
use burn::tensor::Bytes;
use burn::train::metric::store::EventStoreClient;
use burn::train::{Learner, LearnerModel};
use burn_pack::Tensor;

use super::module;
use crate::burn_api::burnpack::Container;
use crate::burn_api::{DeviceRead, RecordReader, Unpacker, optimizer_record};
use crate::change::Change;
use crate::configuration::Schedule;
use crate::error::BackupError;
use crate::model;
use crate::part::{self, OPTIMIZER, SCHEDULER, unreadable};
use crate::resume::{Expected, LoadPart, Loaded, SavedPart, check_trained, foreign};
use crate::save::{
    Fit, Misfit, Optimization, OtherRecords, RunningStates, SavePart, SharedModel, SharedPart,
    early_misfit, misfit,
};

/// Reads the records of a learner. Clones share one reader.
pub(crate) struct SharedReader<M: LearnerModel>(Arc<Mutex<RecordReader<M>>>);

impl<M: LearnerModel> SharedReader<M> {
    pub(crate) fn new(event_store: Arc<EventStoreClient>) -> Self {
        Self(Arc::new(Mutex::new(RecordReader::new(event_store))))
    }

    fn lock(&self) -> MutexGuard<'_, RecordReader<M>> {
        self.0.lock().unwrap_or_else(|poisoned| {
            // The panic may have left half of a record in this reader.
            let mut reader = poisoned.into_inner();
            reader.reset();
            self.0.clear_poison();
            reader
        })
    }
}

impl<M: LearnerModel> Clone for SharedReader<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// A learner, for saving.
pub(crate) struct LearnerRef<'l, M: LearnerModel> {
    pub learner: &'l Learner<M>,
    pub reader: &'l SharedReader<M>,
}

/// A learner, for loading.
pub(crate) struct LearnerMut<'l, M: LearnerModel> {
    pub learner: &'l mut Learner<M>,
    pub reader: &'l SharedReader<M>,
}

impl<M: LearnerModel> LearnerMut<'_, M> {
    fn as_ref(&self) -> LearnerRef<'_, M> {
        LearnerRef {
            learner: self.learner,
            reader: self.reader,
        }
    }
}

impl<M: LearnerModel> SavePart for LearnerRef<'_, M> {
    fn snapshot(&self, running_states: RunningStates) -> Box<dyn SharedPart> {
        // The learner returns its model only as a clone, so make one only if it is needed now.
        let has_running_states = running_states == RunningStates::Possible;
        let detached = has_running_states.then(|| self.learner.model().valid());
        Box::new(SharedLearner {
            detached,
            learner: self.learner.clone(),
            reader: self.reader.clone(),
        })
    }

    fn running_states(&self) -> RunningStates {
        module::running_states(&self.learner.model())
    }

    fn settle_running_states(&self) {
        drop(self.learner.model().valid());
    }

    fn model(&self) -> Option<Vec<Tensor>> {
        Some(model::tensors(
            &self.learner.model().valid(),
            DeviceRead::Now,
        ))
    }

    fn outline(&self) -> Option<Vec<Tensor>> {
        Some(model::outline(&self.learner.model()))
    }

    /// Tries the step on a clone of the learner.
    fn early_misfit(&self) -> Option<Misfit> {
        let mut reader = self.reader.lock();
        let step = |gradients: GradientsParams| {
            let mut probe = self.learner.clone();
            probe.lr_step();
            probe.optimizer_step(gradients);
            let (optimizer, scheduler) = reader.read(&probe).ok()?;
            let mut reading = Reading {
                learner: &probe,
                reader: &mut reader,
            };
            misfit(&mut reading, &optimizer, scheduler).ok().flatten()
        };
        early_misfit(&self.learner.model(), step)
    }

    fn learning_rate(&self) -> Option<f64> {
        Some(self.learner.lr_current().base())
    }

    fn schedule(&self) -> Option<Schedule> {
        let mut probe = self.learner.clone();
        let next_rate = move || {
            probe.lr_step();
            probe.lr_current()
        };
        Some(Schedule::of(&self.learner.model(), next_rate))
    }
}

/// A snapshot of a learner.
struct SharedLearner<M: LearnerModel> {
    /// The model with its own running states, if it has any.
    detached: Option<M>,
    learner: Learner<M>,
    reader: SharedReader<M>,
}

impl<M: LearnerModel> SharedPart for SharedLearner<M> {
    fn model(&self, read: DeviceRead) -> Option<SharedModel> {
        Some(module::shared_model(
            self.detached.as_ref(),
            &self.learner.model(),
            read,
        ))
    }

    fn others(&self, fit: &mut Fit) -> Result<OtherRecords, BackupError> {
        let mut reader = self.reader.lock();
        let mut reading = Reading {
            learner: &self.learner,
            reader: &mut reader,
        };
        let (optimizer, scheduler) = fit.read(&mut reading, OPTIMIZER)?;
        Ok(OtherRecords {
            optimizer: Some(optimizer),
            scheduler: Some(scheduler),
            ..OtherRecords::default()
        })
    }

    fn again(&self) -> Box<dyn SharedPart> {
        Box::new(Self {
            detached: self.detached.clone(),
            learner: self.learner.clone(),
            reader: self.reader.clone(),
        })
    }
}

/// A learner and the reader of its records.
struct Reading<'r, M: LearnerModel> {
    learner: &'r Learner<M>,
    reader: &'r mut RecordReader<M>,
}

impl<M: LearnerModel> Optimization for Reading<'_, M> {
    fn read(&mut self) -> Result<(Container, Bytes), RecordError> {
        self.reader.read(self.learner)
    }

    fn keeps(
        &mut self,
        optimizer: OptimizerRecord,
        scheduler: Bytes,
    ) -> Result<(Container, Bytes), RecordError> {
        let mut probe = self.learner.clone();
        probe.load_optim(optimizer);
        probe.load_scheduler(LrSchedulerRecord::from_bytes(scheduler)?);
        self.reader.read(&probe)
    }

    fn unpacker(&mut self) -> &mut Unpacker {
        self.reader.unpacker()
    }

    fn reset(&mut self) {
        self.reader.reset();
    }
}

impl<M: LearnerModel> SavePart for LearnerMut<'_, M> {
    fn snapshot(&self, running_states: RunningStates) -> Box<dyn SharedPart> {
        self.as_ref().snapshot(running_states)
    }

    fn outline(&self) -> Option<Vec<Tensor>> {
        self.as_ref().outline()
    }

    fn early_misfit(&self) -> Option<Misfit> {
        self.as_ref().early_misfit()
    }

    fn schedule(&self) -> Option<Schedule> {
        self.as_ref().schedule()
    }
}

impl<M: LearnerModel> LoadPart for LearnerMut<'_, M> {
    fn check(
        &self,
        saved: &SavedPart,
        expected: &Expected<'_>,
    ) -> Result<Vec<Change>, BackupError> {
        saved.check_model(&self.learner.model(), expected.backup_dir)?;
        Ok(Vec::new())
    }

    /// The optimizer's state is keyed by the parameters' ids, so it is checked after the model is loaded. After an
    /// error, this learner is not trained.
    fn load(
        &mut self,
        mut saved: SavedPart,
        changed: &mut Vec<Change>,
        expected: &Expected<'_>,
    ) -> Result<Loaded, BackupError> {
        let Expected {
            changes,
            backup_dir,
            main,
            ..
        } = expected;
        let learner = &mut *self.learner;
        let (Some(optimizer), Some(scheduler)) = (saved.optimizer.take(), saved.scheduler.take())
        else {
            return Err(foreign(backup_dir, None));
        };
        let failed_optimizer = unreadable(&part::name(&saved.name, OPTIMIZER));
        let failed_scheduler = unreadable(&part::name(&saved.name, SCHEDULER));
        for record in saved.model_records(backup_dir)? {
            learner.load_model(record);
        }
        if let Some(untrained) = &saved.document.untrained {
            // Check the model in the form in which it will be trained.
            match check_trained(untrained, &learner.model().fork(main), backup_dir) {
                Err(BackupError::TrainedMismatch { .. })
                    if changes.allows(Change::TrainedParameters) =>
                {
                    changed.push(Change::TrainedParameters);
                }
                trained => trained?,
            }
        }

        let fresh = learner.clone();
        let record = LrSchedulerRecord::from_bytes(scheduler.clone()).map_err(&failed_scheduler)?;
        learner.load_scheduler(record);
        let mut reader = self.reader.lock();
        let mut reading = Reading {
            learner,
            reader: &mut reader,
        };
        let misfit = misfit(&mut reading, &optimizer, scheduler).map_err(&failed_optimizer)?;
        let keeps_optimizer = match misfit {
            None => true,
            Some(Misfit::SchedulerLost { .. }) if changes.allows(Change::Schedule) => {
                changed.push(Change::Schedule);
                true
            }
            Some(Misfit::OptimizerLost { .. } | Misfit::OptimizerConverted { .. })
                if changes.allows(Change::Optimizer) =>
            {
                changed.push(Change::Optimizer);
                false
            }
            Some(misfit) => return Err(misfit.into_mismatch(backup_dir)),
        };
        let mut learning_rate = None;
        if changed.contains(&Change::Schedule) {
            // Use the program's new schedule, advanced to the current step.
            *learner = fresh;
            for _ in 0..saved.optimizer_steps {
                learner.lr_step();
            }
            learning_rate = Some(learner.lr_current().base()).filter(|rate| rate.is_finite());
        }
        let fit = match keeps_optimizer {
            true => {
                let fit = Fit::checked(optimizer.scalars.len() + optimizer.tensors.len());
                learner.load_optim(optimizer_record(optimizer).map_err(failed_optimizer)?);
                fit
            }
            false => Fit::default(),
        };
        Ok(Loaded { fit, learning_rate })
    }

    fn load_weights(&mut self, mut saved: SavedPart, backup_dir: &Path) -> Result<(), BackupError> {
        saved.check_model(&self.learner.model(), backup_dir)?;
        for record in saved.model_records(backup_dir)? {
            self.learner.load_model(record);
        }
        Ok(())
    }
}
