use burn::data::dataloader::{DataLoaderBuilder, batcher::Batcher};
use burn::data::dataset::InMemDataset;
use burn::nn::{Linear, LinearConfig, loss::MseLoss, loss::Reduction};
use burn::train::*;
use burn::{lr_scheduler::constant::ConstantLr, optim::AdamConfig, prelude::*};
use burn_backup_restore::{BackupAndRestore, BackupExt as _};

#[derive(Module, Debug)]
struct Line {
    linear: Linear,
}

impl InferenceStep for Line {
    type Input = (Tensor<2>, Tensor<2>);
    type Output = RegressionOutput;
    fn step(&self, (x, y): Self::Input) -> RegressionOutput {
        let output = self.linear.forward(x);
        let loss = MseLoss::new().forward(output.clone(), y.clone(), Reduction::Mean);
        RegressionOutput::new(loss, output, y)
    }
}

impl TrainStep for Line {
    type Input = (Tensor<2>, Tensor<2>);
    type Output = RegressionOutput;
    fn step(&self, batch: Self::Input) -> TrainOutput<RegressionOutput> {
        let output = InferenceStep::step(self, batch);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

struct Points;
impl Batcher<f32, (Tensor<2>, Tensor<2>)> for Points {
    fn batch(&self, items: Vec<f32>, device: &Device) -> (Tensor<2>, Tensor<2>) {
        let x = Tensor::<1>::from_floats(items.as_slice(), device).reshape([-1, 1]);
        (x.clone(), x * 2.0 + 1.0)
    }
}

fn main() {
    let points: Vec<f32> = (0..1000).map(|n| n as f32 / 1000.0).collect();
    let loader = || {
        let loader = DataLoaderBuilder::new(Points).batch_size(32).shuffle(42);
        loader.build(InMemDataset::new(points.clone()))
    };
    let device = Device::flex().autodiff();
    device.seed(42);
    let linear = LinearConfig::new(1, 1).init(&device);
    let optimizer = AdamConfig::new().init();
    let learner = Learner::new(Line { linear }, optimizer, ConstantLr::new(1e-3));
    let result = SupervisedTraining::new("artifacts", loader(), loader())
        .num_epochs(500)
        .backup_and_restore(BackupAndRestore::new("backup")) // the one line
        .launch(learner);
    if result.interrupted.is_some() || result.error.is_some() {
        std::process::exit(1); // the reason is on the standard error
    }
    println!("slope: {}", result.model.linear.weight.val().into_data());
}
