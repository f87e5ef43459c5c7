//! The loop: a Wasserstein GAN whose critic's weights are clipped.

use std::io::{self, Write as _};

use burn::module::Module as _;
use burn::optim::{GradientsParams, RmsPropConfig};
use burn::tensor::{Device, Tensor};
use burn_backup_restore::{BackupAndRestore, Trainee, Value, Weights, impl_state};
use digits::average;
use digits::crash::CrashPoint;
use digits::data;
use serde::{Deserialize, Serialize};

use crate::model::{Critic, Generator};

/// Everything that is trained and kept: the state of the backup.
pub struct Gan {
    pub generator: Trainee<Generator>,
    pub critic: Trainee<Critic>,
    /// A moving average of the generator's weights, which draws better than the newest ones.
    pub average: Weights<Generator>,
    pub losses: Value<Losses>,
}

impl_state! { Gan { generator, critic, average, losses } }

/// The losses of the epoch so far. They are in the state, so that a resumed epoch has the mean of all its
/// batches.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Losses {
    pub critic: Sum,
    pub generator: Sum,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Sum {
    sum: f64,
    count: u32,
}

/// The critic has this many batches for each step of the generator.
const CRITIC_STEPS: usize = 3;

/// Trains for `epochs` epochs, with backups, unless it is stopped.
pub fn train(
    epochs: usize,
    device: &Device,
    crash: Option<&CrashPoint>,
    backup: BackupAndRestore,
) -> anyhow::Result<Gan> {
    let device = device.clone().autodiff();
    let (loader, _) = data::loaders(crate::SEED);
    let loader = loader.to_device(&device);
    let mut gan = Gan::new(&device);
    let mut session = backup.resume(&mut gan, &device)?;
    for epoch in session.epochs(epochs) {
        let mut batches = session.batches(&loader)?;
        while let Some(batch) = session.next(&mut batches, &gan)? {
            let iteration = session.position().step_in_epoch;
            if iteration == 0 {
                gan.losses.0 = Losses::default();
            }
            let real: Tensor<2> = batch.images.flatten(1, 3);
            let [images, _] = real.dims();
            gan.train_critic(real, &device)?;
            if let Some(crash) = crash {
                crash.pass();
            }
            if (iteration + 1).is_multiple_of(CRITIC_STEPS) {
                gan.train_generator(images, &device)?;
            }
            session.stepped(&gan);
        }
        if session.epoch_done(&gan).is_stop() {
            break;
        }
        let Losses { critic, generator } = *gan.losses;
        let (critic, generator) = (critic.mean(), generator.mean());
        writeln!(
            io::stdout(),
            "epoch {epoch}: critic {critic:.4}, generator {generator:.4}"
        )?;
    }
    session.finish(&gan)?;
    Ok(gan)
}

impl Gan {
    fn new(device: &Device) -> Self {
        let generator = Generator::new(device);
        let optimizer = RmsPropConfig::new().with_momentum(0.0);
        Self {
            average: Weights(generator.valid()),
            generator: Trainee {
                model: generator,
                optim: optimizer.init(),
                lr: 1e-3,
            },
            critic: Trainee {
                model: Critic::new(device),
                optim: optimizer.init(),
                lr: 1e-3,
            },
            losses: Value(Losses::default()),
        }
    }

    fn train_critic(&mut self, real: Tensor<2>, device: &Device) -> anyhow::Result<()> {
        let [images, _] = real.dims();
        let Trainee { model, optim, lr } = &mut self.critic;
        let fake = self.generator.model.generate(images, device).detach();
        let loss = model.score(fake) - model.score(real);
        self.losses.critic.add(&loss)?;
        let grads = GradientsParams::from_grads(loss.backward(), model);
        *model = optim.step(*lr, model.clone(), grads).clipped(0.05);
        Ok(())
    }

    fn train_generator(&mut self, images: usize, device: &Device) -> anyhow::Result<()> {
        let Trainee { model, optim, lr } = &mut self.generator;
        let loss = -self.critic.model.score(model.generate(images, device));
        self.losses.generator.add(&loss)?;
        let grads = GradientsParams::from_grads(loss.backward(), model);
        *model = optim.step(*lr, model.clone(), grads);
        self.average.0 = average::moved(self.average.0.clone(), model, 0.99);
        Ok(())
    }
}

impl Sum {
    fn add(&mut self, loss: &Tensor<1>) -> anyhow::Result<()> {
        let loss = loss.clone().try_into_scalar::<f32>();
        let loss = loss
            .map_err(|error| anyhow::anyhow!("cannot read the loss from the device: {error:?}"))?;
        self.sum += f64::from(loss);
        self.count += 1;
        Ok(())
    }

    fn mean(self) -> f64 {
        self.sum / f64::from(self.count)
    }
}
