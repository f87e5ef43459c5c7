//! The network, and the policy that acts by it.

use burn::module::{Module, Param, ParamId};
use burn::nn::{Linear, LinearConfig, Relu};
use burn::rl::{Policy, PolicyState};
use burn::store::ModuleRecord;
use burn::tensor::{Device, ExecutionError, Tensor};
use burn::train::ItemLazy;
use burn::train::metric::{Adaptor, ExplorationRateInput};
use burn_backup_restore::rl::draw_seed;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::crash::CrashPoint;
use crate::rows::Rows;

const OBSERVED: usize = 4;
const HIDDEN: usize = 64;
const ACTIONS: usize = 2;

/// The probability of a random action: at the start, and its limit.
const EXPLORATION: (f64, f64) = (1.0, 0.05);
/// After this many actions, the difference has fallen to a share of 1/e.
const DECAY: f64 = 800.0;

/// The value of each action, from shape `[batch, 4]` to `[batch, 2]`.
#[derive(Module, Debug)]
pub struct Network {
    first: Linear,
    second: Linear,
    output: Linear,
}

impl Network {
    pub fn new(device: &Device) -> Self {
        Self {
            first: LinearConfig::new(OBSERVED, HIDDEN).init(device),
            second: LinearConfig::new(HIDDEN, HIDDEN).init(device),
            output: LinearConfig::new(HIDDEN, ACTIONS).init(device),
        }
    }

    pub fn forward(&self, observations: Tensor<2>) -> Tensor<2> {
        let relu = Relu::new();
        let hidden = relu.forward(self.first.forward(observations));
        let hidden = relu.forward(self.second.forward(hidden));
        self.output.forward(hidden)
    }
}

/// Everything that decides the next action. It is the policy's record, and so it is in the backup.
#[derive(Module, Debug)]
pub struct Explorer {
    network: Network,
    /// How many actions were chosen while learning: shape `[1]`.
    chosen: Param<Tensor<1>>,
}

/// Takes the best action, or one at random, less and less often.
#[derive(Clone)]
pub struct EpsilonGreedy {
    explorer: Explorer,
    crash: Option<CrashPoint>,
}

impl EpsilonGreedy {
    /// Acts by this network, which has no gradients, and has never acted before.
    pub fn new(network: Network, crash: Option<CrashPoint>) -> Self {
        let device = network.devices().into_iter().next().unwrap_or_default();
        let zero = Tensor::zeros([1], &device);
        let chosen = Param::initialized(ParamId::new(), zero).set_require_grad(false);
        Self {
            explorer: Explorer { network, chosen },
            crash,
        }
    }

    pub fn network(&self) -> &Network {
        &self.explorer.network
    }

    /// The same policy with another network.
    pub fn with_network(mut self, network: Network) -> Self {
        self.explorer.network = network;
        self
    }

    /// The probability that the next action is random.
    fn exploration(&mut self) -> f64 {
        let chosen = self.explorer.chosen.val();
        let (start, end) = EXPLORATION;
        let exploration =
            end + (start - end) * (-chosen.clone().into_scalar::<f64>() / DECAY).exp();
        self.explorer.chosen = self.explorer.chosen.clone().map(|chosen| chosen + 1.0);
        exploration
    }
}

#[derive(Clone)]
pub struct EpsilonGreedyState(Explorer);

impl PolicyState for EpsilonGreedyState {
    type Record = ModuleRecord;

    fn into_record(self) -> ModuleRecord {
        self.0.into_record()
    }

    fn load_record(&self, record: ModuleRecord) -> Self {
        Self(self.0.clone().load_record(record))
    }
}

/// How an action was chosen.
#[derive(Debug, Clone)]
pub struct Choice {
    exploration: f64,
}

impl ItemLazy for Choice {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self)
    }
}

impl Adaptor<ExplorationRateInput> for Choice {
    fn adapt(&self) -> ExplorationRateInput {
        ExplorationRateInput::new(self.exploration)
    }
}

impl Policy for EpsilonGreedy {
    type Observation = Rows;
    type ActionDistribution = Rows;
    type Action = Rows;
    type ActionContext = Choice;
    type PolicyState = EpsilonGreedyState;

    fn forward(&mut self, observations: Rows) -> Rows {
        Rows(self.explorer.network.forward(observations.0))
    }

    fn action(&mut self, observations: Rows, deterministic: bool) -> (Rows, Vec<Choice>) {
        let [batch, _] = observations.0.dims();
        let best = self.explorer.network.forward(observations.0).argmax(1);
        if deterministic {
            let choice = Choice { exploration: 0.0 };
            return (Rows(best.float()), vec![choice; batch]);
        }
        if let Some(crash) = &self.crash {
            crash.pass();
        }
        let exploration = self.exploration();
        let mut random = StdRng::seed_from_u64(draw_seed());
        let actions = match random.random_bool(exploration) {
            true => {
                let action = f32::from(u8::from(random.random_bool(0.5)));
                Tensor::full([batch, 1], action, &best.device())
            }
            false => best.float(),
        };
        (Rows(actions), vec![Choice { exploration }; batch])
    }

    /// The agent learns the network, and the acting policy counts the actions.
    fn update(&mut self, update: EpsilonGreedyState) {
        self.explorer.network = update.0.network;
    }

    fn state(&self) -> EpsilonGreedyState {
        EpsilonGreedyState(self.explorer.clone())
    }

    fn to_device(self, device: &Device) -> Self {
        Self {
            explorer: self.explorer.to_device(device),
            ..self
        }
    }

    fn load_record(self, record: ModuleRecord) -> Self {
        Self {
            explorer: self.explorer.load_record(record),
            ..self
        }
    }
}
