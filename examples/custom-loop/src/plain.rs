//! The loop as it is written without backups. `backed_up.rs` is this file with them.

use std::io::{self, Write as _};

use anyhow::Context as _;
use burn::grad_clipping::GradientClippingConfig;
use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::module::Module as _;
use burn::optim::{AdamConfig, GradientsAccumulator, GradientsParams, ModuleOptimizer};
use digits::average;
use digits::data::{self, TRAIN_BATCHES};
use digits::model::DigitsModel;

use crate::Setup;

/// What is trained, and the values that decide how it continues.
pub struct Training {
    pub model: DigitsModel,
    pub optim: ModuleOptimizer,
    pub lr: ModuleLrScheduler,
    /// A moving average of the model's weights, which is what is validated.
    pub average: DigitsModel,
    /// The average that was most accurate.
    pub best: DigitsModel,
    pub counters: Counters,
}

#[derive(Debug, Default)]
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
        average: model.valid(),
        best: model.valid(),
        model,
        optim,
        lr,
        counters: Counters::default(),
    };
    for epoch in 1..=setup.epochs {
        if t.counters.waited == PATIENCE {
            break;
        }
        let mut accumulator = GradientsAccumulator::new();
        for (iteration, batch) in train.iter().enumerate() {
            let batch = batch?;
            let [images] = batch.classes.dims();
            t.counters.images += images as u64;
            let output = t.model.classify_to_train(batch);
            let grads = (output.loss / ACCUMULATION as f64).backward();
            let grads = GradientsParams::from_grads(grads, &t.model);
            accumulator.accumulate(&t.model, grads);
            let trained = iteration + 1;
            if !trained.is_multiple_of(ACCUMULATION) && trained < TRAIN_BATCHES {
                continue;
            }
            let (rate, grads) = (t.lr.step(), accumulator.grads());
            t.model = t.optim.step(rate, t.model, grads);
            t.average = average::moved(t.average, &t.model, 0.9);
            t.counters.steps += 1;
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
            t.best = t.average.valid();
            t.counters.best_accuracy = accuracy;
            t.counters.waited = 0;
        }
        let percent = 100.0 * accuracy;
        writeln!(io::stdout(), "epoch {epoch}: accuracy {percent:.1} %")?;
    }
    Ok(t)
}
