//! Trains the network of `digits` in a loop that is written by hand, with backups. Crash it, run it again,
//! and compare the last line with that of an uninterrupted run.

mod backed_up;
mod plain;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr as _;

use burn::tensor::Device;
use burn_backup_restore::{BackupAndRestore, Outcome, Preemption, SaveFreq};
use clap::Parser;
use digits::crash::{BatchAt, CrashPoint};
use digits::data::TRAIN_BATCHES;
use digits::digest::Digest;
use digits::model::{self, DigitsModel};
use digits::save_freq;

/// Trains a convolutional network on handwritten digits in a loop that is written by hand, with backups.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many epochs to train at most.
    #[arg(long, default_value_t = 20)]
    epochs: usize,

    /// How often to take a backup: "epoch", a number of batches, a time such as "30s", a share of
    /// the training's time such as "1%", "continuous", or "never".
    #[arg(long, default_value = "epoch", value_parser = save_freq::parse)]
    save_freq: SaveFreq,

    /// Where the backups are; deleted once the training has run to its end.
    #[arg(long, default_value = "custom-loop-backup")]
    backup_dir: PathBuf,

    /// Aborts the process in the middle of this batch, as a crash would. There are 47 batches in
    /// an epoch; both count from 1.
    #[arg(long, value_name = "EPOCH:BATCH", value_parser = BatchAt::from_str)]
    crash_at: Option<BatchAt>,

    /// Runs the loop without backups.
    #[arg(long)]
    plain: bool,
}

/// The settings of a loop.
struct Setup {
    device: Device,
    epochs: usize,
    crash: Option<CrashPoint>,
    backup: BackupAndRestore,
}

fn main() -> anyhow::Result<ExitCode> {
    let log = env_logger::Env::default().default_filter_or("warn");
    env_logger::Builder::from_env(log).init();
    let arguments = Arguments::parse();
    let device = Device::flex();
    device.seed(SEED);

    let backup = BackupAndRestore::new(arguments.backup_dir)
        .save_freq(arguments.save_freq)
        .save_before_preemption(Preemption::signals())
        .seed(SEED);
    let handle = backup.handle();
    let crash = arguments
        .crash_at
        .map(|at| CrashPoint::new(at, TRAIN_BATCHES, handle.clone()));
    let setup = Setup {
        device,
        epochs: arguments.epochs,
        crash,
        backup,
    };

    if arguments.plain {
        let plain::Training { best, counters, .. } = plain::train(setup)?;
        report(&best, counters.steps, counters.images)?;
        return Ok(ExitCode::SUCCESS);
    }
    let training = backed_up::train(setup)?;
    // `finish` has already reported the reason, and where the training is saved.
    if let Some(Outcome::Stopped { saved, .. }) = handle.outcome() {
        anyhow::ensure!(saved.is_some(), "the training was interrupted");
        writeln!(io::stdout(), "run it again to go on from there")?;
        return Ok(ExitCode::from(handle.exit_code()));
    }
    let counters = &*training.counters;
    report(&training.best, counters.steps, counters.images)?;
    let digest = Digest::default()
        .model("model", &training.trainee.model)
        .optimizer("optim", &training.trainee.optim)?
        .value(
            "lr",
            &training.trainee.lr.to_record().into_bytes()?.to_vec(),
        )
        .model("average", &*training.average)
        .model("best", &*training.best)
        .value("counters", counters)
        .finish();
    writeln!(io::stdout(), "digest of the weights: {digest}")?;
    Ok(ExitCode::SUCCESS)
}

fn report(best: &DigitsModel, steps: u64, images: u64) -> anyhow::Result<()> {
    let accuracy = 100.0 * model::accuracy(best, &Device::flex())?;
    writeln!(
        io::stdout(),
        "{steps} steps on {images} images; the best average has an accuracy of {accuracy:.1} %"
    )?;
    Ok(())
}

/// The seed of the initial weights, the shuffling, and the random numbers of each step.
const SEED: u64 = 42;
