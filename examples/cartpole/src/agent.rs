//! Deep Q-learning with a target network, after V. Mnih et al., "Human-level control through deep
//! reinforcement learning", Nature 518, 2015, pages 529-533.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use burn::module::Module as _;
use burn::nn::loss::{HuberLossConfig, Reduction};
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer, OptimizerRecord};
use burn::rl::{LearnerTransitionBatch, Policy as _, PolicyLearner, RLTrainOutput};
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::{Bytes, Device, ExecutionError, Tensor};
use burn::train::ItemLazy;
use burn::train::checkpoint::{Checkpoint, CheckpointerError};
use burn::train::metric::{Adaptor, LossInput};

use crate::crash::CrashPoint;
use crate::policy::{EpsilonGreedy, EpsilonGreedyState, Network};

const LEARNING_RATE: f64 = 5e-4;
const DISCOUNT: f64 = 0.99;
/// After this many trainings, the target network becomes equal to the network.
const TARGET_INTERVAL: u64 = 200;

/// Learns the value of each action.
pub struct DqnAgent {
    network: Network,
    policy: EpsilonGreedy,
    /// The network that gives the targets, without gradients.
    target: Network,
    optimizer: ModuleOptimizer,
    trainings: u64,
    device: Device,
    /// The agent's last record, which remains after the training.
    last: LastRecord,
}

/// The record of an agent that no longer exists.
pub type LastRecord = Arc<Mutex<Option<DqnRecord>>>;

impl DqnAgent {
    pub fn new(device: &Device, crash: Option<CrashPoint>, last: LastRecord) -> Self {
        let device = device.clone().autodiff();
        let network = Network::new(&device);
        Self {
            policy: EpsilonGreedy::new(network.valid(), crash),
            target: network.valid(),
            network,
            optimizer: AdamConfig::new().init(),
            trainings: 0,
            device,
            last,
        }
    }
}

impl Drop for DqnAgent {
    fn drop(&mut self) {
        let record = self.record();
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(record);
    }
}

/// The agent's state except its policy.
pub struct DqnRecord {
    pub target: ModuleRecord,
    pub optimizer: OptimizerRecord,
    pub trainings: u64,
}

impl Checkpoint for DqnRecord {
    fn save(self, path: PathBuf) -> Result<(), CheckpointerError> {
        let bytes = self.checkpoint_into_bytes();
        let bytes = bytes.map_err(CheckpointerError::Record)?;
        std::fs::write(path, &bytes[..]).map_err(CheckpointerError::IOError)
    }

    fn load(path: PathBuf) -> Result<Self, CheckpointerError> {
        let bytes = std::fs::read(path).map_err(CheckpointerError::IOError)?;
        let record = Self::checkpoint_from_bytes(Bytes::from_bytes_vec(bytes));
        record.map_err(CheckpointerError::Record)
    }

    /// The number of trainings, the length of the target's record, and both records.
    fn checkpoint_into_bytes(self) -> Result<Bytes, RecordError> {
        let target = self.target.into_bytes()?;
        let optimizer = self.optimizer.into_bytes()?;
        let numbers = [self.trainings, target.len() as u64].map(u64::to_le_bytes);
        let parts = [numbers.as_flattened(), &target, &optimizer];
        Ok(Bytes::from_bytes_vec(parts.concat()))
    }

    fn checkpoint_from_bytes(bytes: Bytes) -> Result<Self, RecordError> {
        let parts = || {
            let (trainings, rest) = bytes.split_first_chunk()?;
            let (target, rest) = rest.split_first_chunk()?;
            let target = usize::try_from(u64::from_le_bytes(*target)).ok()?;
            let (target, optimizer) = rest.split_at_checked(target)?;
            Some((u64::from_le_bytes(*trainings), target, optimizer))
        };
        let too_short = || RecordError::Io("the agent's record is too short".to_owned());
        let (trainings, target, optimizer) = parts().ok_or_else(too_short)?;
        let copy = |part: &[u8]| Bytes::from_bytes_vec(part.to_vec());
        Ok(Self {
            target: ModuleRecord::from_bytes(copy(target))?,
            optimizer: OptimizerRecord::from_bytes(copy(optimizer))?,
            trainings,
        })
    }
}

/// The loss of a training step, of shape `[1]`.
#[derive(Clone)]
pub struct TrainingLoss(Tensor<1>);

impl ItemLazy for TrainingLoss {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self)
    }
}

impl Adaptor<LossInput> for TrainingLoss {
    fn adapt(&self) -> LossInput {
        LossInput::new(self.0.clone())
    }
}

impl PolicyLearner for DqnAgent {
    type TrainContext = TrainingLoss;
    type InnerPolicy = EpsilonGreedy;
    type Record = DqnRecord;

    fn train(
        &mut self,
        batch: LearnerTransitionBatch<EpsilonGreedy>,
    ) -> RLTrainOutput<TrainingLoss, EpsilonGreedyState> {
        let next = self.target.forward(batch.next_states.0.inner());
        let goes_on = batch.dones.inner().neg().add_scalar(1.0);
        let expected = batch.rewards.inner() + next.max_dim(1) * goes_on * DISCOUNT;
        let values = self.network.forward(batch.states.0);
        let values = values.gather(1, batch.actions.0.int());
        let loss = HuberLossConfig::new(1.0).init().forward(
            values,
            Tensor::from_inner(expected),
            Reduction::Mean,
        );
        let gradients = GradientsParams::from_grads(loss.backward(), &self.network);
        let network = self.network.clone();
        self.network = self.optimizer.step(LEARNING_RATE, network, gradients);
        self.trainings += 1;
        if self.trainings.is_multiple_of(TARGET_INTERVAL) {
            self.target = self.network.valid();
        }
        RLTrainOutput {
            policy: self.policy().state(),
            item: TrainingLoss(loss.inner()),
        }
    }

    fn policy(&self) -> EpsilonGreedy {
        self.policy.clone().with_network(self.network.valid())
    }

    fn update_policy(&mut self, policy: EpsilonGreedy) {
        self.network = policy.network().clone().to_device(&self.device).train();
        self.policy = policy;
    }

    fn record(&self) -> DqnRecord {
        DqnRecord {
            target: self.target.clone().into_record(),
            optimizer: self.optimizer.to_record(),
            trainings: self.trainings,
        }
    }

    fn load_record(mut self, record: DqnRecord) -> Self {
        self.target = self.target.clone().load_record(record.target);
        self.optimizer = self.optimizer.clone().load_record(record.optimizer);
        self.trainings = record.trainings;
        self
    }

    fn device(&self) -> Device {
        self.device.clone()
    }
}
