//! The session of a training with Burn's learner.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::train::metric::store::EventStoreClient;
use burn::train::{
    Interrupter, Learner, LearnerModel, SupervisedTrainingEventProcessor as Processor,
};

use crate::burn_api::{self, Items};
use crate::error::BackupError;
use crate::parts::{LearnerMut, LearnerRef, SharedReader};
use crate::resume::PartsMut;
use crate::save::SavePart;
use crate::session::{Context, Core, HasParts, MetricSource};
use crate::settings::{BackupAndRestore, taken};

/// A session that saves a learner, and waits for Burn's metrics.
pub(super) struct Engine<M: LearnerModel> {
    core: Core,
    reader: SharedReader<M>,
}

impl<M: LearnerModel> Deref for Engine<M> {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

impl<M: LearnerModel> DerefMut for Engine<M> {
    fn deref_mut(&mut self) -> &mut Core {
        &mut self.core
    }
}

impl<M: LearnerModel> Engine<M> {
    /// Opens the backup directory, and restores the newest backup into `learner` if there is one.
    pub(super) fn open(
        settings: &BackupAndRestore,
        learner: &mut Learner<M>,
        event_store: Arc<EventStoreClient>,
        context: Context,
    ) -> Result<Self, BackupError> {
        let reader = SharedReader::new(event_store);
        let states = taken(&settings.states).unwrap_or_default();
        let mut learner = LearnerMut {
            learner,
            reader: &reader,
        };
        let core = Core::open(
            settings,
            states,
            vec![(String::new(), &mut learner)],
            context,
        )?;
        Ok(Self { core, reader })
    }

    /// The learning rate to report for a batch. Before its first optimizer step in this process the
    /// learner has none, so the rate comes from the backup.
    pub(super) fn learning_rate(
        &self,
        learner: &Learner<M>,
        has_stepped: bool,
    ) -> ModuleLearningRate {
        match self.core.progress.restored_rate(has_stepped) {
            Some(restored) => restored.into(),
            None => learner.lr_current(),
        }
    }

    /// See [`Core::check_for_notice`].
    pub(super) fn check_for_notice(&mut self, learner: &Learner<M>, processor: &mut Processor<M>) {
        let (core, training) = self.with(learner);
        core.check_for_notice(&training, &mut BurnMetrics::<M>(processor));
    }

    /// See [`Core::split_begins`].
    pub(super) fn split_begins(&mut self, learner: &Learner<M>) {
        let (core, training) = self.with(learner);
        core.split_begins(&training);
    }

    /// See [`Core::step_done`].
    pub(super) fn step_done(
        &mut self,
        learner: &Learner<M>,
        processor: &mut Processor<M>,
        items: &[Items],
        has_stepped: bool,
    ) {
        let (core, training) = self.with(learner);
        core.step_done(
            &training,
            &mut BurnMetrics::<M>(processor),
            items,
            has_stepped,
        );
    }

    /// See [`Core::settle_divergence`].
    pub(super) fn settle_divergence(&mut self, processor: &mut Processor<M>) {
        let mut metrics = BurnMetrics::<M>(processor);
        self.core.settle_divergence(&mut metrics);
    }

    /// See [`Core::roll_back`].
    pub(super) fn roll_back(
        &mut self,
        learner: &mut Learner<M>,
        processor: &mut Processor<M>,
    ) -> Result<(), BackupError> {
        let mut learner = LearnerMut {
            learner,
            reader: &self.reader,
        };
        let training: PartsMut<'_> = vec![(String::new(), &mut learner)];
        let mut metrics = BurnMetrics::<M>(processor);
        self.core.roll_back(training, &mut metrics, Vec::new())
    }

    /// See [`Core::epoch_done`].
    pub(super) fn epoch_done(
        &mut self,
        learner: &Learner<M>,
        processor: &mut Processor<M>,
        early_stopped: bool,
    ) {
        let (core, training) = self.with(learner);
        core.epoch_done(&training, &mut BurnMetrics::<M>(processor), early_stopped);
    }

    /// See [`Core::stopped`].
    pub(super) fn stopped(&mut self, learner: &Learner<M>, processor: &mut Processor<M>) {
        let (core, training) = self.with(learner);
        core.stopped(&training, &mut BurnMetrics::<M>(processor));
    }

    /// See [`Core::finished`].
    pub(super) fn finished(&mut self, learner: &Learner<M>, processor: &mut Processor<M>) {
        let (core, training) = self.with(learner);
        core.finished(&training, &mut BurnMetrics::<M>(processor));
    }

    /// Ends the engine and returns the session.
    pub(super) fn into_core(self) -> Core {
        self.core
    }

    fn with<'e>(&'e mut self, learner: &'e Learner<M>) -> (&'e mut Core, LearnerRef<'e, M>) {
        let training = LearnerRef {
            learner,
            reader: &self.reader,
        };
        (&mut self.core, training)
    }
}

impl<M: LearnerModel> HasParts for LearnerRef<'_, M> {
    fn named_parts(&self) -> Vec<(String, &dyn SavePart)> {
        vec![(String::new(), self)]
    }
}

/// Metrics that Burn computes on its own thread.
struct BurnMetrics<'p, M: LearnerModel>(&'p mut Processor<M>);

impl<M: LearnerModel> MetricSource for BurnMetrics<'_, M> {
    fn drain(&mut self, interrupter: &Interrupter) {
        burn_api::drain::<M>(self.0, interrupter);
    }
}
