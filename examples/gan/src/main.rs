//! Trains a generator of handwritten digits and its critic, with one backup of both. Crash it, run it again,
//! and compare the last line with that of an uninterrupted run.

mod model;
mod train;

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
use digits::save_freq;

/// Trains a generator of handwritten digits and its critic, with backups.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many epochs to train.
    #[arg(long, default_value_t = 100)]
    epochs: usize,

    /// How often to take a backup: "epoch", a number of batches, a time such as "30s", a share of
    /// the training's time such as "1%", "continuous", or "never".
    #[arg(long, default_value = "epoch", value_parser = save_freq::parse)]
    save_freq: SaveFreq,

    /// Where the backups are; deleted once the training has run to its end.
    #[arg(long, default_value = "gan-backup")]
    backup_dir: PathBuf,

    /// Aborts the process in the middle of this batch, as a crash would. There are 47 batches in
    /// an epoch; both count from 1.
    #[arg(long, value_name = "EPOCH:BATCH", value_parser = BatchAt::from_str)]
    crash_at: Option<BatchAt>,
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
    let gan = train::train(arguments.epochs, &device, crash.as_ref(), backup)?;

    let mut output = io::stdout().lock();
    // `finish` has already reported the reason, and where the training is saved.
    if let Some(Outcome::Stopped { saved, .. }) = handle.outcome() {
        anyhow::ensure!(saved.is_some(), "the training was interrupted");
        writeln!(output, "run it again to go on from there")?;
        return Ok(ExitCode::from(handle.exit_code()));
    }
    device.seed(SEED);
    for line in model::drawn(gan.average.generate(DRAWN, &device))? {
        writeln!(output, "{line}")?;
    }
    let digest = Digest::default()
        .model("generator", &gan.generator.model)
        .optimizer("generator's", &gan.generator.optim)?
        .model("critic", &gan.critic.model)
        .optimizer("critic's", &gan.critic.optim)?
        .model("average", &*gan.average)
        .value("losses", &*gan.losses)
        .finish();
    writeln!(output, "digest of the weights: {digest}")?;
    Ok(ExitCode::SUCCESS)
}

/// The seed of the initial weights, the shuffling, and the random numbers of each step.
const SEED: u64 = 42;
/// How many images are shown at the end.
const DRAWN: usize = 8;
