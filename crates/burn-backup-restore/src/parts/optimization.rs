//! The optimizers and schedulers of a [`Trainee`](super::Trainee).

use std::collections::BTreeMap;

use burn::lr_scheduler::composed::ComposedLrScheduler;
use burn::lr_scheduler::constant::ConstantLr;
use burn::lr_scheduler::cosine::CosineAnnealingLrScheduler;
use burn::lr_scheduler::exponential::ExponentialLrScheduler;
use burn::lr_scheduler::linear::LinearLrScheduler;
use burn::lr_scheduler::module_lr_scheduler::{ModuleLearningRate, ModuleLrScheduler};
use burn::lr_scheduler::noam::NoamLrScheduler;
use burn::lr_scheduler::sequential::SequentialLrScheduler;
use burn::lr_scheduler::step::StepLrScheduler;
use burn::lr_scheduler::{DynLrScheduler, LrScheduler, LrSchedulerRecord};
use burn::optim::{LBFGS, LearningRate, ModuleOptimizer, OptimizerRecord};
use burn::store::RecordError;
use burn::tensor::Bytes;

use crate::burn_api::Unpacker;
use crate::burn_api::burnpack::Container;
use crate::save::Optimization;

/// A Burn optimizer whose state is saved: [`LBFGS`], or [`ModuleOptimizer`], which every `Config::init` returns.
pub trait TraineeOptimizer: Clone + Send + sealed::Sealed + 'static {
    /// The optimizer's state.
    fn to_record(&self) -> OptimizerRecord;

    /// Returns the optimizer with this state.
    #[must_use]
    fn load_record(self, record: OptimizerRecord) -> Self;
}

/// A learning-rate scheduler whose state is saved: one of Burn's schedulers, a number, or `()` if the program has
/// none. Pass a scheduler of your own as a [`DynLrScheduler`].
pub trait TraineeScheduler: Clone + Send + sealed::Sealed + 'static {
    /// The rates of the next optimizer step; `None` if the program has no scheduler.
    fn next_rate(&mut self) -> Option<ModuleLearningRate>;

    /// The scheduler's state.
    fn to_record(&self) -> LrSchedulerRecord;

    /// Returns the scheduler with this state.
    #[must_use]
    fn load_record(self, record: LrSchedulerRecord) -> Self;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! trainee_optimizer {
    ($($optimizer:ty),*) => {$(
        impl sealed::Sealed for $optimizer {}

        impl TraineeOptimizer for $optimizer {
            fn to_record(&self) -> OptimizerRecord {
                <$optimizer>::to_record(self)
            }

            fn load_record(self, record: OptimizerRecord) -> Self {
                <$optimizer>::load_record(self, record)
            }
        }
    )*};
}

trainee_optimizer!(ModuleOptimizer, LBFGS);

macro_rules! trainee_scheduler {
    ($($scheduler:ty),*) => {$(
        impl sealed::Sealed for $scheduler {}

        impl TraineeScheduler for $scheduler {
            fn next_rate(&mut self) -> Option<ModuleLearningRate> {
                Some(LrScheduler::step(self).into())
            }

            fn to_record(&self) -> LrSchedulerRecord {
                LrScheduler::to_record(self)
            }

            fn load_record(mut self, record: LrSchedulerRecord) -> Self {
                LrScheduler::load_record(&mut self, record);
                self
            }
        }
    )*};
}

trainee_scheduler!(
    LearningRate,
    ConstantLr,
    CosineAnnealingLrScheduler,
    ExponentialLrScheduler,
    LinearLrScheduler,
    NoamLrScheduler,
    StepLrScheduler,
    SequentialLrScheduler,
    ComposedLrScheduler
);

impl sealed::Sealed for DynLrScheduler {}

impl TraineeScheduler for DynLrScheduler {
    fn next_rate(&mut self) -> Option<ModuleLearningRate> {
        Some(self.step().into())
    }

    fn to_record(&self) -> LrSchedulerRecord {
        DynLrScheduler::to_record(self)
    }

    fn load_record(self, record: LrSchedulerRecord) -> Self {
        DynLrScheduler::load_record(self, record)
    }
}

impl sealed::Sealed for ModuleLrScheduler {}

impl TraineeScheduler for ModuleLrScheduler {
    fn next_rate(&mut self) -> Option<ModuleLearningRate> {
        Some(self.step())
    }

    fn to_record(&self) -> LrSchedulerRecord {
        ModuleLrScheduler::to_record(self)
    }

    fn load_record(self, record: LrSchedulerRecord) -> Self {
        ModuleLrScheduler::load_record(self, record)
    }
}

impl sealed::Sealed for () {}

impl TraineeScheduler for () {
    fn next_rate(&mut self) -> Option<ModuleLearningRate> {
        None
    }

    fn to_record(&self) -> LrSchedulerRecord {
        LrSchedulerRecord::new()
    }

    fn load_record(self, _record: LrSchedulerRecord) -> Self {}
}

/// An optimizer and a scheduler whose records are read.
pub(super) struct Reading<'r, O, S> {
    pub optim: &'r O,
    pub lr: &'r S,
    /// The paths of the model's parameters, keyed by parameter id.
    pub paths: BTreeMap<u64, String>,
    pub unpacker: Unpacker,
}

impl<O: TraineeOptimizer, S: TraineeScheduler> Reading<'_, O, S> {
    fn read_these(&mut self, optim: &O, lr: &S) -> Result<(Container, Bytes), RecordError> {
        let optimizer = self
            .unpacker
            .take_apart(&self.paths, || Ok(optim.to_record()))?;
        Ok((optimizer, lr.to_record().into_bytes()?))
    }
}

impl<O: TraineeOptimizer, S: TraineeScheduler> Optimization for Reading<'_, O, S> {
    fn read(&mut self) -> Result<(Container, Bytes), RecordError> {
        self.read_these(self.optim, self.lr)
    }

    fn keeps(
        &mut self,
        optimizer: OptimizerRecord,
        scheduler: Bytes,
    ) -> Result<(Container, Bytes), RecordError> {
        let optim = self.optim.clone().load_record(optimizer);
        let lr = self.lr.clone();
        let lr = lr.load_record(LrSchedulerRecord::from_bytes(scheduler)?);
        self.read_these(&optim, &lr)
    }

    fn unpacker(&mut self) -> &mut Unpacker {
        &mut self.unpacker
    }
}
