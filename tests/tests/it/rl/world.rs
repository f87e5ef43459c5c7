//! A small world, and an agent that learns in it. Every mistake in a restore would change their results.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use burn::module::Module;
use burn::nn::loss::{MseLoss, Reduction};
use burn::nn::{Linear, LinearConfig, Relu};
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer, OptimizerRecord};
use burn::rl::{
    Batchable, Environment, LearnerTransitionBatch, Policy, PolicyLearner, PolicyState,
    RLTrainOutput, SliceAccess, StepResult, ToAction, ToObservation,
};
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::{Bytes, Device, Distribution, ExecutionError, Int, Tensor};
use burn::train::checkpoint::{Checkpoint, CheckpointerError};
use burn::train::metric::{Adaptor, ExplorationRateInput, LossInput};
use burn::train::{Interrupter, ItemLazy, TrainingError};
use burn_backup_restore::rl::{ReplayItem, ResumableEnvironment, draw_seed};
use burn_backup_tests::{Record, named};
use signal_hook::consts::SIGTERM;
use signal_hook::low_level::raise;

/// Observations or actions, one in each row.
#[derive(Debug, Clone)]
pub struct Rows(pub Tensor<2>);

impl Batchable for Rows {
    fn batch(rows: Vec<Self>) -> Self {
        Self(Tensor::cat(rows.into_iter().map(|row| row.0).collect(), 0))
    }

    fn unbatch(self) -> Vec<Self> {
        self.0.split(1, 0).into_iter().map(Self).collect()
    }
}

impl SliceAccess for Rows {
    fn zeros_like(sample: &Self, capacity: usize, device: &Device) -> Self {
        Self(SliceAccess::zeros_like(&sample.0, capacity, device))
    }

    fn select(self, dim: usize, indices: Tensor<1, Int>) -> Self {
        Self(self.0.select(dim, indices))
    }

    fn slice_assign_inplace(&mut self, index: usize, value: Self) {
        self.0.slice_assign_inplace(index, value.0);
    }
}

impl ReplayItem for Rows {
    type Tensors = Tensor<2>;

    fn into_tensors(self) -> Tensor<2> {
        self.0
    }

    fn from_tensors(tensors: Tensor<2>) -> Self {
        Self(tensors)
    }
}

/// The place and the speed of the walker.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    at: f32,
    speed: f32,
    /// How many zeros an observation has in addition.
    padding: usize,
}

impl ToObservation<Rows> for Place {
    fn to_observation(&self, device: &Device) -> Rows {
        let place = Tensor::from_data([[self.at, self.speed]], device);
        match self.padding {
            0 => Rows(place),
            padding => Rows(Tensor::cat(
                vec![place, Tensor::zeros([1, padding], device)],
                1,
            )),
        }
    }
}

/// To the left or to the right.
#[derive(Debug, Clone, Copy)]
pub struct Push(f32);

impl From<Rows> for Push {
    fn from(rows: Rows) -> Self {
        Self(rows.0.into_scalar::<f32>())
    }
}

impl ToAction<Rows> for Push {
    fn to_action(&self, device: &Device) -> Rows {
        Rows(Tensor::from_data([[self.0]], device))
    }
}

/// How a run ends early. Steps in all environments, including those of evaluations, are counted from 1 in the
/// current process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halt {
    Never,
    /// The user stops it in that step.
    Stop(usize),
    /// An error stops it in that step.
    Fail(usize),
    /// The environment panics in that step.
    Panic(usize),
    /// A signal announces in that step that the process is about to be ended.
    Notice(usize),
}

/// Ends a run in one of its steps.
#[derive(Clone)]
pub struct Halter {
    pub halt: Halt,
    pub interrupter: Interrupter,
    pub steps: Arc<AtomicUsize>,
}

impl Halter {
    fn pass(&self) {
        let step = self.steps.fetch_add(1, Ordering::Relaxed) + 1;
        match self.halt {
            Halt::Stop(at) if at == step => self.interrupter.stop(Some("the test stops it")),
            Halt::Fail(at) if at == step => {
                let error = CheckpointerError::Unknown("the test fails it".to_owned());
                self.interrupter.fail(TrainingError::Checkpoint(error));
            }
            Halt::Panic(at) => assert!(at != step, "the test has it panic"),
            Halt::Notice(at) if at == step => raise(SIGTERM).unwrap(),
            _ => {}
        }
    }
}

/// A walk along a line. It ends far from its start, or after some steps.
pub struct Walk {
    place: Place,
    steps: usize,
    /// How many episodes the walker has begun. Each has a different wind.
    episodes: u32,
    /// Whether each episode has five steps, whatever the walker does. Every other one is truncated.
    is_even: bool,
    halter: Halter,
}

impl Walk {
    pub fn new(is_even: bool, padding: usize, halter: Halter) -> Self {
        Self {
            place: Place {
                at: 0.0,
                speed: 0.0,
                padding,
            },
            steps: 0,
            episodes: 0,
            is_even,
            halter,
        }
    }
}

impl Environment for Walk {
    type State = Place;
    type Action = Push;

    const MAX_STEPS: usize = 9;

    fn state(&self) -> Place {
        self.place
    }

    fn step(&mut self, push: Push) -> StepResult<Place> {
        self.halter.pass();
        // Each draw is different.
        let gust = (draw_seed() % 1000) as f32 / 10_000.0;
        let wind = (self.episodes % 3) as f32 * 0.05;
        let push = if push.0 > 0.5 { 0.3 } else { -0.3 };
        self.place.speed = 0.9 * self.place.speed + push + wind + gust;
        self.place.at += self.place.speed;
        self.steps += 1;
        let (done, truncated) = match self.is_even {
            true => {
                let is_over = self.steps == 5;
                let is_truncated = self.episodes.is_multiple_of(2);
                (is_over && !is_truncated, is_over && is_truncated)
            }
            false => {
                let done = self.place.at.abs() > 1.5;
                (done, !done && self.steps == Self::MAX_STEPS)
            }
        };
        StepResult {
            next_state: self.place,
            reward: match self.is_even {
                true => 1.0,
                false => f64::from(1.0 - self.place.at.abs()),
            },
            done,
            truncated,
        }
    }

    fn reset(&mut self) {
        self.episodes += 1;
        self.steps = 0;
        self.place = Place {
            at: (draw_seed() % 1000) as f32 / 2000.0,
            speed: 0.0,
            ..self.place
        };
    }
}

impl ResumableEnvironment for Walk {
    type Saved = (f32, f32, usize, u32);

    fn save(&self) -> Self::Saved {
        let Place { at, speed, .. } = self.place;
        (at, speed, self.steps, self.episodes)
    }

    fn load(&mut self, (at, speed, steps, episodes): Self::Saved) {
        self.place.at = at;
        self.place.speed = speed;
        self.steps = steps;
        self.episodes = episodes;
    }
}

/// The value of each action in a place: from shape `[batch, 2]` to `[batch, 2]`.
#[derive(Module, Debug)]
pub struct Values {
    hidden: Linear,
    output: Linear,
}

impl Values {
    pub fn new(hidden: usize, device: &Device) -> Self {
        Self {
            hidden: LinearConfig::new(2, hidden).init(device),
            output: LinearConfig::new(hidden, 2).init(device),
        }
    }

    fn forward(&self, places: Tensor<2>) -> Tensor<2> {
        let places = places.narrow(1, 0, 2);
        let hidden = Relu::new().forward(self.hidden.forward(places));
        self.output.forward(hidden)
    }
}

/// Takes the better action, most of the time.
#[derive(Clone)]
pub struct Walker {
    values: Values,
    /// Whether it reports the values by which it chose.
    reports_values: bool,
}

#[derive(Clone)]
pub struct WalkerState(Values);

impl PolicyState for WalkerState {
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

impl Policy for Walker {
    type Observation = Rows;
    type ActionDistribution = Rows;
    type Action = Rows;
    type ActionContext = Choice;
    type PolicyState = WalkerState;

    fn forward(&mut self, places: Rows) -> Rows {
        Rows(self.values.forward(places.0))
    }

    fn action(&mut self, places: Rows, deterministic: bool) -> (Rows, Vec<Choice>) {
        let rows = places.0.dims()[0];
        let mut values = self.values.forward(places.0);
        if !deterministic {
            // Drawn on the device.
            let noise = Distribution::Normal(0.0, 0.2);
            values = values.clone() + values.random_like(noise);
        }
        let exploration = match self.reports_values {
            true => values.clone().sum().into_scalar::<f64>(),
            false => 0.2,
        };
        let action = values.argmax(1).float();
        (Rows(action), vec![Choice { exploration }; rows])
    }

    fn update(&mut self, update: WalkerState) {
        self.values = update.0;
    }

    fn state(&self) -> WalkerState {
        WalkerState(self.values.clone())
    }

    fn to_device(self, device: &Device) -> Self {
        Self {
            values: self.values.to_device(device),
            ..self
        }
    }

    fn load_record(self, record: ModuleRecord) -> Self {
        Self {
            values: self.values.load_record(record),
            ..self
        }
    }
}

/// The result of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Learned {
    pub target: Record,
    pub optimizer: Record,
    /// How often it was trained in this process.
    pub trainings: usize,
}

/// Q-learning with a target network that follows slowly.
pub struct Learner {
    values: Values,
    target: Values,
    optimizer: ModuleOptimizer,
    /// How often it was trained.
    trainings: u64,
    device: Device,
    /// Whether its policy reports the values by which it chose.
    pub reports_values: bool,
    /// The training that gives NaN, counted from 1 in this process.
    pub nan_at: Option<usize>,
    /// The training in which the user stops it.
    pub stop_at: Option<(usize, Interrupter)>,
    pub learned: Arc<Mutex<Learned>>,
}

impl Learner {
    pub fn new(hidden: usize, device: &Device) -> Self {
        let device = device.clone().autodiff();
        device.seed(7);
        let values = Values::new(hidden, &device);
        Self {
            target: values.valid(),
            values,
            optimizer: AdamConfig::new().init(),
            trainings: 0,
            device,
            reports_values: true,
            nan_at: None,
            stop_at: None,
            learned: Arc::default(),
        }
    }
}

/// The agent's state except its policy.
pub struct LearnerRecord {
    trainings: u64,
    target: ModuleRecord,
    optimizer: OptimizerRecord,
}

impl Checkpoint for LearnerRecord {
    fn save(self, path: PathBuf) -> Result<(), CheckpointerError> {
        let bytes = self
            .checkpoint_into_bytes()
            .map_err(CheckpointerError::Record)?;
        std::fs::write(path, &bytes[..]).map_err(CheckpointerError::IOError)
    }

    fn load(path: PathBuf) -> Result<Self, CheckpointerError> {
        let bytes = std::fs::read(path).map_err(CheckpointerError::IOError)?;
        Self::checkpoint_from_bytes(Bytes::from_bytes_vec(bytes)).map_err(CheckpointerError::Record)
    }

    fn checkpoint_from_bytes(bytes: Bytes) -> Result<Self, RecordError> {
        let short = || RecordError::Io("the learner's record is too short".to_owned());
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
        let (trainings, rest) = bytes.split_at_checked(8).ok_or_else(short)?;
        let (len, rest) = rest.split_at_checked(8).ok_or_else(short)?;
        let (target, optimizer) = rest
            .split_at_checked(number(len) as usize)
            .ok_or_else(short)?;
        let shared = |bytes: &[u8]| Bytes::from_bytes_vec(bytes.to_vec());
        Ok(Self {
            trainings: number(trainings),
            target: ModuleRecord::from_bytes(shared(target))?,
            optimizer: OptimizerRecord::from_bytes(shared(optimizer))?,
        })
    }

    fn checkpoint_into_bytes(self) -> Result<Bytes, RecordError> {
        let target = self.target.into_bytes()?;
        let optimizer = self.optimizer.into_bytes()?;
        let mut bytes = self.trainings.to_le_bytes().to_vec();
        bytes.extend_from_slice(&(target.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&target);
        bytes.extend_from_slice(&optimizer);
        Ok(Bytes::from_bytes_vec(bytes))
    }
}

/// The loss of a training step.
#[derive(Clone)]
pub struct Loss(Tensor<1>);

impl ItemLazy for Loss {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self)
    }
}

impl Adaptor<LossInput> for Loss {
    fn adapt(&self) -> LossInput {
        LossInput::new(self.0.clone())
    }
}

impl PolicyLearner for Learner {
    type TrainContext = Loss;
    type InnerPolicy = Walker;
    type Record = LearnerRecord;

    fn train(&mut self, batch: LearnerTransitionBatch<Walker>) -> RLTrainOutput<Loss, WalkerState> {
        let next = self.target.forward(batch.next_states.0.inner());
        let going_on = batch.dones.inner().neg().add_scalar(1.0);
        let targets = batch.rewards.inner() + next.max_dim(1) * going_on * 0.9;
        let values = self.values.forward(batch.states.0);
        let taken = values.gather(1, batch.actions.0.int());
        let targets = Tensor::from_inner(targets);
        let mut loss = MseLoss::new().forward(taken, targets, Reduction::Mean);
        // Drawn on the device.
        let noise = loss.random_like(Distribution::Uniform(0.9, 1.1));
        loss = loss * noise;

        let mut learned = self.learned.lock().unwrap();
        learned.trainings += 1;
        if self.nan_at == Some(learned.trainings) {
            loss = loss * f32::NAN;
        }
        if let Some((at, interrupter)) = &self.stop_at
            && *at == learned.trainings
        {
            interrupter.stop(Some("the test stops it"));
        }
        let gradients = GradientsParams::from_grads(loss.backward(), &self.values);
        self.values = self.optimizer.step(0.01, self.values.clone(), gradients);
        self.trainings += 1;
        if self.trainings.is_multiple_of(3) {
            self.target = self.values.valid();
        }
        learned.target = named(self.target.clone().into_record().into_bytes().unwrap());
        learned.optimizer = named(self.optimizer.to_record().into_bytes().unwrap());
        drop(learned);
        RLTrainOutput {
            policy: self.policy().state(),
            item: Loss(loss.inner()),
        }
    }

    fn policy(&self) -> Walker {
        Walker {
            values: self.values.valid(),
            reports_values: self.reports_values,
        }
    }

    fn update_policy(&mut self, policy: Walker) {
        self.values = policy.values.to_device(&self.device).train();
    }

    fn record(&self) -> LearnerRecord {
        LearnerRecord {
            trainings: self.trainings,
            target: self.target.clone().into_record(),
            optimizer: self.optimizer.to_record(),
        }
    }

    fn load_record(self, record: LearnerRecord) -> Self {
        Self {
            trainings: record.trainings,
            target: self.target.load_record(record.target),
            optimizer: self.optimizer.load_record(record.optimizer),
            ..self
        }
    }

    fn device(&self) -> Device {
        self.device.clone()
    }
}
