//! The loop of `plain.rs`, with backups.

use std::io::{self, Write as _};

use anyhow::Context as _;
use burn::grad_clipping::GradientClippingConfig;
use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::module::Module as _;
use burn::optim::{AdamConfig, GradientsAccumulator, GradientsParams, ModuleOptimizer};
use burn_backup_restore::{Trainee, Value, Weights, impl_state};
use digits::average;
use digits::data::{self, TRAIN_BATCHES};
use digits::model::DigitsModel;

use crate::Setup;

/// What is trained, and the values that decide how it continues.
pub struct Training {
    pub trainee: Trainee<DigitsModel, ModuleOptimizer, ModuleLrScheduler>,
    /// A moving average of the model's weights, which is what is validated.
    pub average: Weights<DigitsModel>,
    /// The average that was most accurate.
    pub best: Weights<DigitsModel>,
    pub counters: Value<Counters>,
}

impl_state! { Training { trainee, average, best, counters } }

#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Counters {
    /// Images that were trained.
    pub images: u64,
    /// Steps of the optimizer.
    pub steps: u64,
    /// The share of the validation set that the best average recognises.
    pub best_accuracy: f64,
    /// How many epochs since then were no better.
    pub waited: usize,
}

/// The optimizer steps after this many batches.
const ACCUMULATION: usize = 4;
/// The training ends after this many epochs without a better accuracy.
const PATIENCE: usize = 5;

pub fn train(setup: Setup) -> anyhow::Result<Training> {
    let device = setup.device.clone().autodiff();
    let (train, valid) = data::loaders(crate::SEED);
    let (train, valid) = (train.to_device(&device), valid.to_device(&setup.device));
    let steps = setup.epochs * TRAIN_BATCHES.div_ceil(ACCUMULATION);
    let lr = CosineAnnealingLrSchedulerConfig::new(1e-2, steps).init();
    let lr = lr.map_err(anyhow::Error::msg);
    let lr = lr.context("cannot make the learning-rate schedule")?;
    let clipping = GradientClippingConfig::Norm(5.0);
    let optim = AdamConfig::new().with_grad_clipping(Some(clipping)).init();
    let model = DigitsModel::new(&device, setup.crash);
    let mut t = Training {
        average: Weights(model.valid()),
        best: Weights(model.valid()),
        trainee: Trainee { model, optim, lr },
        counters: Value(Counters::default()),
    };
    let mut session = setup.backup.resume(&mut t, &device)?;
    for epoch in session.epochs(setup.epochs) {
        if t.counters.waited == PATIENCE {
            break;
        }
        let mut accumulator = GradientsAccumulator::new();
        let mut batches = session.batches(&train)?;
        while let Some(batch) = session.next(&mut batches, &t)? {
            let [images] = batch.classes.dims();
            t.counters.images += images as u64;
            let output = t.trainee.model.classify_to_train(batch);
            let grads = (output.loss / ACCUMULATION as f64).backward();
            let grads = GradientsParams::from_grads(grads, &t.trainee.model);
            accumulator.accumulate(&t.trainee.model, grads);
            let trained = session.position().step_in_epoch + 1;
            if !trained.is_multiple_of(ACCUMULATION) && trained < TRAIN_BATCHES {
                session.accumulated(&t);
                continue;
            }
            session.optimizer_begins();
            let (rate, grads) = (t.trainee.lr.step(), accumulator.grads());
            t.trainee.model = t.trainee.optim.step(rate, t.trainee.model, grads);
            t.average.0 = average::moved(t.average.0, &t.trainee.model, 0.9);
            t.counters.steps += 1;
            session.stepped(&t);
        }

        if session.trained(&t).is_stop() {
            break;
        }
        let (mut recognised, mut images) = (0, 0);
        for batch in valid.iter() {
            let batch = batch?;
            let [count] = batch.classes.dims();
            images += count;
            recognised += t.average.recognised(batch)?;
        }
        let accuracy = recognised as f64 / images as f64;
        t.counters.waited += 1;
        if accuracy > t.counters.best_accuracy {
            // A clone would share its running statistics with the average.
            t.best.0 = t.average.valid();
            t.counters.best_accuracy = accuracy;
            t.counters.waited = 0;
        }
        let percent = 100.0 * accuracy;
        writeln!(io::stdout(), "epoch {epoch}: accuracy {percent:.1} %")?;
        if session.epoch_done(&t).is_stop() {
            break;
        }
    }
    session.finish(&t)?;
    Ok(t)
}
