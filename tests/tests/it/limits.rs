//! Models that Burn's record format can't hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::lr_scheduler::constant::ConstantLr;
use burn::module::{Module, Param};
use burn::optim::SgdConfig;
use burn::tensor::{Device, Tensor};
use burn::train::{
    InferenceStep, Learner, RegressionOutput, SupervisedTraining, TrainOutput, TrainStep,
};
use burn_backup_restore::{BackupAndRestore, BackupError, BackupExt as _};
use burn_backup_tests::RecordingRenderer;
use test_fork::test;

/// The largest number of tensors that Burn's reader accepts.
const MOST: usize = 100_000;

/// A model of small parameters. The first one is trained.
#[derive(Module, Debug)]
struct Many {
    parameters: Vec<Param<Tensor<1>>>,
    #[module(skip)]
    trained: Arc<AtomicUsize>,
}

impl Many {
    fn regress(&self, x: Tensor<2>) -> RegressionOutput {
        let first = self.parameters.first().unwrap().val();
        let output = x.clone() * first.unsqueeze();
        let loss = (output.clone() - x.clone()).square().mean();
        RegressionOutput::new(loss, output, x)
    }
}

impl TrainStep for Many {
    type Input = Tensor<2>;
    type Output = RegressionOutput;

    fn step(&self, x: Tensor<2>) -> TrainOutput<RegressionOutput> {
        self.trained.fetch_add(1, Ordering::Relaxed);
        let output = self.regress(x);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl InferenceStep for Many {
    type Input = Tensor<2>;
    type Output = RegressionOutput;

    fn step(&self, x: Tensor<2>) -> RegressionOutput {
        self.regress(x)
    }
}

#[derive(Clone)]
struct Column;

impl Batcher<f32, Tensor<2>> for Column {
    fn batch(&self, items: Vec<f32>, device: &Device) -> Tensor<2> {
        Tensor::<1>::from_floats(items.as_slice(), device).unsqueeze_dim(1)
    }
}

fn loader() -> Arc<dyn DataLoader<Tensor<2>>> {
    DataLoaderBuilder::new(Column)
        .batch_size(2)
        .build(InMemDataset::new(vec![1.0, 2.0, 3.0, 4.0]))
}

#[test]
fn a_model_of_more_tensors_than_a_record_can_hold_is_refused_before_the_first_step() {
    for (parameters, is_refused) in [(MOST, false), (MOST + 1, true)] {
        let device = Device::flex().autodiff();
        let trained = Arc::<AtomicUsize>::default();
        let parameter = || Param::from_tensor(Tensor::ones([1], &device));
        let model = Many {
            parameters: (0..parameters).map(|_| parameter()).collect(),
            trained: trained.clone(),
        };
        let scratch = tempfile::tempdir().unwrap();
        let backup = BackupAndRestore::new(scratch.path().join("backup")).dashboard(false);
        let handle = backup.handle();
        let learner = Learner::new(model, SgdConfig::new().init(), ConstantLr::new(1e-2));
        let result = SupervisedTraining::new(scratch.path(), loader(), loader())
            .num_epochs(1)
            .renderer(Box::new(RecordingRenderer::default()))
            .with_application_logger(None)
            .backup_and_restore(backup)
            .launch(learner);
        let error = result.error.as_deref().and_then(BackupError::find);
        let stats = handle.stats();
        if is_refused {
            let text = error.unwrap().to_string();
            assert!(text.contains("number of tensors is 100001"), "{text}");
            assert_eq!(trained.load(Ordering::Relaxed), 0);
        } else {
            assert!(error.is_none(), "{error:?}");
            assert_eq!((stats.committed, stats.failed), (1, 0), "{stats:?}");
        }
    }
}
