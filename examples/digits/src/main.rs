//! Trains a convolutional network on handwritten digits, with backups. Crash it, run it again, and compare
//! the last line with that of an uninterrupted run.

mod arguments;
#[cfg(feature = "mirror")]
mod mirror;
mod renderer;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use burn::grad_clipping::GradientClippingConfig;
use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::optim::AdamConfig;
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{Learner, LearningResult, SupervisedTraining};
use burn_backup_restore::{BackupAndRestore, BackupExt as _, Preemption};
use clap::Parser as _;
use digits::crash::CrashPoint;
use digits::model::{self, DigitsModel};
use digits::{data, digest};

use arguments::Arguments;

fn main() -> anyhow::Result<ExitCode> {
    let log = env_logger::Env::default().default_filter_or("warn");
    env_logger::Builder::from_env(log).init();
    let arguments = Arguments::parse();
    let device = arguments.device.open();

    let backup = BackupAndRestore::new(&arguments.backup_dir)
        .save_freq(arguments.save_freq)
        .keep_last(arguments.keep_last)
        .metric_logs(&arguments.artifact_dir)
        .save_before_preemption(Preemption::signals())
        .on_divergence(arguments.on_divergence.into())
        .seed(SEED);
    #[cfg(feature = "mirror")]
    let backup = arguments.mirror.add_to(backup)?;
    let handle = backup.handle();
    let crash = arguments
        .crash_at
        .map(|at| CrashPoint::new(at, data::TRAIN_BATCHES, handle.clone()));

    device.seed(SEED);
    let steps = arguments.epochs * data::TRAIN_BATCHES;
    let schedule = CosineAnnealingLrSchedulerConfig::new(3e-3, steps)
        .init()
        .map_err(anyhow::Error::msg)
        .context("cannot make the learning-rate schedule")?;
    let optimizer = AdamConfig::new()
        .with_grad_clipping(Some(GradientClippingConfig::Norm(5.0)))
        .init();
    let model = DigitsModel::new(&device.clone().autodiff(), crash);
    let learner = Learner::new(model, optimizer, schedule);

    let (train, valid) = match arguments.poison_at {
        Some(at) => data::poisoned_loaders(SEED, at),
        None => data::loaders(SEED),
    };
    let launched = Instant::now();
    let LearningResult {
        model,
        renderer,
        interrupted,
        error,
    } = SupervisedTraining::new(&arguments.artifact_dir, train, valid)
        .metrics((AccuracyMetric::new(), LossMetric::new()))
        .num_epochs(arguments.epochs)
        .renderer(Box::new(renderer::EpochLines::default()))
        .with_application_logger(None)
        .backup_and_restore(backup)
        .launch(learner);

    // A renderer may own the terminal. With Burn's dashboard, output before this is lost.
    drop(renderer);
    // Tells a supervisor whether to start the program again.
    let code = ExitCode::from(handle.exit_code());
    if error.is_some() {
        // The error itself is on the standard error.
        return Ok(code);
    }
    let mut output = io::stdout().lock();
    if let Some(interruption) = interrupted {
        let reason = interruption.reason.unwrap_or_default();
        let saved = handle.stopped_at();
        anyhow::ensure!(saved.is_some(), "the training was interrupted: {reason}");
        writeln!(output, "interrupted: {reason}")?;
        writeln!(output, "run it again to go on from there")?;
        return Ok(code);
    }
    let took = launched.elapsed();
    let stats = handle.stats();
    writeln!(
        output,
        "{} backups of {} bytes in all; the training was held {:.1?} by them in all, {:.1?} at \
         worst",
        stats.committed, stats.bytes, stats.blocked_total, stats.blocked_max
    )?;
    // The interval is known with a share only.
    if let Some(interval) = handle.interval() {
        let cost = stats.blocked_total + stats.slowed_total;
        writeln!(
            output,
            "backups: {}, every {interval} batches, {:.1} % of the time, which was {took:.1?}",
            stats.committed,
            100.0 * cost.div_duration_f64(took),
        )?;
    }
    let accuracy = 100.0 * model::accuracy(&model, &device)?;
    writeln!(output, "accuracy on the validation set: {accuracy:.1} %")?;
    writeln!(output, "digest of the weights: {}", digest::of(&model))?;
    Ok(code)
}

/// The seed of the initial weights, the shuffling, and the random numbers of each step.
const SEED: u64 = 7;
