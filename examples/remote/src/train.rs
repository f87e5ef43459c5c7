//! The process that trains: it has the data, the loop and the backups, and the server's devices
//! have the tensors.

use anyhow::Context as _;
use burn::lr_scheduler::constant::ConstantLr;
use burn::optim::AdamConfig;
use burn::remote::RemoteHost;
use burn::tensor::Device;
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{ExecutionStrategy, Learner, MultiDeviceOptim, SupervisedTraining};
use burn_backup_restore::{BackupAndRestore, BackupExt as _};

use crate::arguments::TrainArguments;
use crate::crash::CrashPoint;
use crate::model::{self, DigitsModel};
use crate::{data, digest};

/// For the initial weights, the shuffling, and the random numbers of each step.
const SEED: u64 = 42;

/// Trains to the end, from the newest backup on if there is one.
pub fn train(arguments: &TrainArguments) -> anyhow::Result<()> {
    let log = env_logger::Env::default().default_filter_or("warn,burn_backup::restore=info");
    env_logger::Builder::from_env(log).init();

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
    let result = SupervisedTraining::new(&arguments.artifact_dir, train, valid)
        .metrics((AccuracyMetric::new(), LossMetric::new()))
        .num_epochs(arguments.epochs)
        .with_application_logger(None)
        .backup_and_restore(backup)
        .launch(learner);

    if let Some(error) = result.error {
        anyhow::bail!("the training ended with an error: {error}");
    }
    let accuracy = model::accuracy(&result.model, main)?;
    println!("accuracy on the validation set: {:.1} %", 100.0 * accuracy);
    println!("digest of the weights: {}", digest::of(&result.model)?);
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
