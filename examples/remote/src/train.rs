//! The process that trains. It has the data, the loop and the backups. The server's devices have the tensors.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Context as _;
use burn::lr_scheduler::constant::ConstantLr;
use burn::optim::AdamConfig;
use burn::remote::RemoteHost;
use burn::tensor::Device;
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{
    ExecutionStrategy, Learner, LearningResult, MultiDeviceOptim, SupervisedTraining,
};
use burn_backup_restore::{BackupAndRestore, BackupExt as _};

use crate::arguments::TrainArguments;
use crate::crash::CrashPoint;
use crate::model::{self, DigitsModel};
use crate::{data, digest};

/// The seed of the initial weights, the shuffling, and the random numbers of each step.
const SEED: u64 = 42;

/// Trains to the end, and resumes from the newest backup if there is one.
pub fn train(arguments: &TrainArguments) -> anyhow::Result<()> {
    let log = env_logger::Env::default().default_filter_or("warn,burn_backup::restore=info");
    // On a terminal, Burn's dashboard owns the screen, and would be covered by log lines.
    if !io::stdout().is_terminal() {
        env_logger::Builder::from_env(log).init();
    }

    let wanted = usize::from(arguments.devices);
    anyhow::ensure!(
        wanted > 1 || !arguments.sharded,
        "--sharded needs --devices 2"
    );
    let devices = connect(&arguments.server, wanted)?;
    let main = devices.first().context("the server has no devices")?;

    let backup = BackupAndRestore::new(&arguments.backup_dir)
        .save_freq(arguments.save_freq)
        .seed(SEED)
        .execution(execution(&devices, arguments.sharded));
    let handle = backup.handle();
    let crash = arguments
        .crash_at
        .map(|at| CrashPoint::new(at, wanted, handle));

    main.seed(SEED);
    let model = DigitsModel::new(&main.clone().autodiff(), crash);
    let learner = Learner::new(model, AdamConfig::new().init(), ConstantLr::new(3e-3));

    let (train, valid) = data::loaders(SEED);
    let LearningResult {
        model,
        renderer,
        interrupted,
        error,
    } = SupervisedTraining::new(&arguments.artifact_dir, train, valid)
        .metrics((AccuracyMetric::new(), LossMetric::new()))
        .num_epochs(arguments.epochs)
        .with_application_logger(None)
        .backup_and_restore(backup)
        .launch(learner);

    // Burn's dashboard owns the terminal until it is dropped. Output before this is lost.
    drop(renderer);
    // The standard error has the error, or where a stopped training was saved.
    anyhow::ensure!(error.is_none(), "the training ended with an error");
    if interrupted.is_some() {
        return Ok(());
    }
    let accuracy = 100.0 * model::accuracy(&model, main)?;
    let mut output = io::stdout().lock();
    writeln!(output, "accuracy on the validation set: {accuracy:.1} %")?;
    writeln!(output, "digest of the weights: {}", digest::of(&model)?)?;
    Ok(())
}

/// The first `wanted` devices of the server at `url`.
fn connect(url: &str, wanted: usize) -> anyhow::Result<Vec<Device>> {
    let devices = RemoteHost::websocket(url).devices();
    let mut devices = devices
        .with_context(|| format!("cannot connect to {url}"))?
        .into_vec();
    anyhow::ensure!(
        devices.len() >= wanted,
        "the server at {url} has {} devices, too few to train on {wanted}",
        devices.len()
    );
    devices.truncate(wanted);
    Ok(devices)
}

fn execution(devices: &[Device], is_sharded: bool) -> ExecutionStrategy {
    let optim = match is_sharded {
        true => MultiDeviceOptim::OptimSharded,
        false => MultiDeviceOptim::OptimMainDevice,
    };
    match devices {
        [only] => ExecutionStrategy::single(only.clone()),
        several => ExecutionStrategy::multi(several.to_vec(), optim),
    }
}
