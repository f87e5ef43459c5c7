//! Rolling back after a divergence.

use super::Session;
use crate::error::BackupError;
use crate::parts::{State, parts_of_mut};
use crate::session::NoMetrics;

impl<S: State> Session<S> {
    /// Rolls the training back if it has diverged and [`Divergence::RollBack`](crate::Divergence) is set. Call it
    /// after the loop. Restores `state` from the last backup before the divergence, and returns whether the loop must
    /// run again. The loop must then request its epochs, batches, streams and steps again.
    ///
    /// The step that diverged is skipped: the batches that it fetched are dropped. The loaders must be those of
    /// [`data::DataLoaderBuilder`](crate::data::DataLoaderBuilder), or iterators that are created anew.
    ///
    /// # Errors
    ///
    /// If no intact backup is from before the divergence, or if that backup can't be read. The training then ends,
    /// and its backups stay.
    ///
    /// # Example
    ///
    /// ```
    /// use burn::optim::{AdamConfig, GradientsParams};
    /// use burn::tensor::{Device, Distribution, Tensor};
    /// use burn_backup_restore::{BackupAndRestore, BackupError, Divergence, Trainee};
    /// # use burn::nn::LinearConfig;
    ///
    /// # fn main() -> Result<(), BackupError> {
    /// # let scratch = std::env::temp_dir().join(format!("doc-rollback-{}", std::process::id()));
    /// # let dir = scratch.join("backup");
    /// let device = Device::flex().autodiff();
    /// let model = LinearConfig::new(2, 1).init(&device);
    /// let mut t = Trainee { model, optim: AdamConfig::new().init(), lr: 1e-2 };
    /// let mut session = BackupAndRestore::new(dir)
    ///     .save_freq(10)
    ///     .on_divergence(Divergence::RollBack { at_most: 3 })
    ///     .resume(&mut t, &device)?;
    /// loop {
    ///     let mut steps = session.steps(50)?;
    ///     while let Some(step) = session.next(&mut steps, &t)? {
    ///         let points = Tensor::<2>::random([8, 2], Distribution::Default, &device);
    ///         let scale = if step == 17 { f64::NAN } else { 1.0 };
    ///         let loss = (t.model.forward(points) * scale).powi_scalar(2).mean();
    ///         let grads = GradientsParams::from_grads(loss.backward(), &t.model);
    ///         t.model = t.optim.step(t.lr, t.model, grads);
    ///         session.log("Loss", f64::from(loss.into_scalar::<f32>()), 8);
    ///         session.stepped(&t);
    ///     }
    ///     if !session.roll_back(&mut t)? {
    ///         break;
    ///     }
    /// }
    /// assert_eq!(session.handle().stats().rolled_back, 1);
    /// session.finish(&t)?;
    /// # std::fs::remove_dir_all(&scratch).ok();
    /// # Ok(())
    /// # }
    /// ```
    pub fn roll_back(&mut self, state: &mut S) -> Result<bool, BackupError> {
        if !self.core.has_diverged() {
            return Ok(false);
        }
        let step = self.loaders.step();
        let parts = parts_of_mut("", state);
        let shorter = |(name, part)| (name, part as &mut dyn crate::resume::LoadPart);
        let parts = parts.into_iter().map(shorter).collect();
        self.core.roll_back(parts, &mut NoMetrics, step)?;
        self.core.saver.find_running_states(state);
        self.loaders.roll_back(self.core.progress.state());
        self.rollbacks += 1;
        // Batches requested earlier do not belong to this epoch.
        self.epoch_count += 1;
        self.is_validating = false;
        self.has_split_begun = false;
        self.has_stepped_in_epoch = false;
        self.num_steps.clear();
        self.seed_before_epoch();
        Ok(true)
    }
}
