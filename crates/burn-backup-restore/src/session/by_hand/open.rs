//! Starting or resuming a training with a hand-written loop.

use burn::tensor::Device;
use burn::train::Interrupter;

use super::{DropNotice, Loaders, MetricLines, MetricValues, Session};
use crate::burn_api;
use crate::error::BackupError;
use crate::messages::announce;
use crate::metrics::{MetricHistory, MetricLogs};
use crate::outcome::Outcome;
use crate::parts::{State, parts_of, parts_of_mut};
use crate::preemption::{AfterPreemption, NoticeMonitor};
use crate::session::{Context, Core, announcement};
use crate::settings::{BackupAndRestore, FastForward, taken};

impl BackupAndRestore {
    /// Starts a training with a hand-written loop, or resumes it from the newest backup, in which case `state` is
    /// restored. `device` is the device on which the training draws random numbers.
    ///
    /// Parameters that are still lazy are initialized here.
    ///
    /// # Errors
    ///
    /// If settings are invalid, the directory can't be used, or the backup belongs to another training. In the last
    /// case, the error says what differs. `state` and the backup are then unchanged.
    ///
    /// # Example
    ///
    /// ```
    /// use burn::module::Module;
    /// use burn::optim::{GradientsParams, ModuleOptimizer};
    /// use burn::tensor::Device;
    /// use burn_backup_restore::{BackupAndRestore, BackupError, Trainee};
    /// # use std::sync::Arc;
    /// # use burn::data::dataloader::DataLoader;
    /// # use burn::tensor::Tensor;
    /// # trait Loss { fn loss(&self, batch: Tensor<2>) -> Tensor<1>; }
    ///
    /// # fn run<M: Module + Loss + 'static>(
    /// #     model: M,
    /// #     optim: ModuleOptimizer,
    /// #     loader: Arc<dyn DataLoader<Tensor<2>>>,
    /// #     device: Device,
    /// # ) -> Result<M, BackupError> {
    /// let mut t = Trainee { model, optim, lr: 1e-3 };
    /// let mut session = BackupAndRestore::new("backup").resume(&mut t, &device)?;
    /// for epoch in session.epochs(10) {
    ///     let mut batches = session.batches(&loader)?;
    ///     while let Some(batch) = session.next(&mut batches, &t)? {
    ///         let grads = GradientsParams::from_grads(t.model.loss(batch).backward(), &t.model);
    ///         t.model = t.optim.step(t.lr, t.model, grads);
    ///         session.stepped(&t);
    ///     }
    ///     if session.epoch_done(&t).is_stop() { break }
    /// }
    /// session.finish(&t)?;
    /// # Ok(t.model)
    /// # }
    /// ```
    pub fn resume<S: State>(
        self,
        state: &mut S,
        device: &Device,
    ) -> Result<Session<S>, BackupError> {
        let handle = self.handle();
        self.open(state, device)
            .inspect_err(|error| handle.ended(Outcome::Refused, Some(error)))
    }

    fn open<S: State>(mut self, state: &mut S, device: &Device) -> Result<Session<S>, BackupError> {
        self.validate()?;
        self.check_for_loops()?;
        // Start before the restore, so that a notice during the restore counts.
        let (monitor, after) = match taken(&self.preemption) {
            Some(preemption) => {
                preemption.validate()?;
                let after = preemption.after;
                (Some(NoticeMonitor::start(preemption)?), after)
            }
            None => (None, AfterPreemption::default()),
        };
        // Initialize on every start and before the seed is drawn, so that a restart leaves the generator in
        // the same state.
        for (_, part) in parts_of("", state) {
            part.initialize();
        }
        let draws = self.reseed_steps && self.run_seed.is_none();
        let metric_history = MetricHistory::default();
        let metric_logs = self.metric_logs.take();
        let metric_logs = metric_logs.map(|dir| MetricLogs::new(dir, metric_history.clone()));
        let context = Context {
            interrupter: Interrupter::new(),
            first_epoch: 1,
            num_epochs: 0,
            grad_accumulation: 1,
            split: None,
            devices: vec![device.clone()],
            metric_history,
            metric_logs: metric_logs.clone(),
            monitor,
            main: device.clone(),
            drawn_seed: draws.then(|| burn_api::draw_seed(device)).flatten(),
            watch: None,
        };
        let states = taken(&self.states).unwrap_or_default();
        let mut core = Core::open(&self, states, parts_of_mut("", state), context)?;
        core.saver.find_running_states(state);
        let training = core.progress.state();
        if training.optimizer_steps < training.position.global_step {
            core.window.accumulates_from_here();
        }
        let devices = announcement::devices(std::slice::from_ref(device));
        announce(&announcement::line(&self, &devices));
        core.progress.seed_before_epoch(device);
        Ok(Session {
            loaders: Loaders::resumed(core.progress.state()),
            drop_notice: DropNotice::new(self.handle.clone()),
            metrics: metric_logs.map(MetricLines::new),
            values: MetricValues::default(),
            core,
            devices: vec![device.clone()],
            has_fusion: burn_api::has_fusion(device),
            after,
            epoch_count: 0,
            is_validating: false,
            has_split_begun: false,
            has_stepped_in_epoch: false,
            has_warned_of_workers: false,
            num_epochs: None,
            num_steps: Vec::new(),
            rollbacks: 0,
            state: std::marker::PhantomData,
        })
    }

    /// Refuses settings that work only with Burn's builder.
    fn check_for_loops(&self) -> Result<(), BackupError> {
        let refused = [
            (self.execution.is_some(), "execution"),
            (self.gradient_checkpointing, "gradient_checkpointing"),
            (self.has_checkpointing_strategy(), "checkpointing_strategy"),
            (self.has_artifacts, "artifacts"),
            (
                self.fast_forward != FastForward::default(),
                "fast_forward(FastForward::Replay)",
            ),
        ];
        match refused.into_iter().find(|(is_given, _)| *is_given) {
            Some((_, setting)) => Err(BackupError::OnlyForBuilder { setting }),
            None => Ok(()),
        }
    }
}
