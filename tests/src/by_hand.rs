use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use burn::data::dataloader::DataLoader;
use burn::data::dataset::DatasetError;
use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::nn::LinearLayout;
use burn::optim::{AdamConfig, GradientsAccumulator, ModuleOptimizer};
use burn::tensor::{Device, Distribution, Tensor};
use burn::train::{InferenceStep, TrainStep};
use burn_backup_restore::{
    BackupAndRestore, BackupError, Batches, Outcome, Session, Trainee, Value, Weights, impl_state,
};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use crate::data::{Loaders, Numbers, Poison};
use crate::model::{Batch, Hooks, Net};
use crate::training::Backend;

/// A training whose loop is written by hand: 50 items in batches of 8.
#[derive(Clone)]
pub struct Loop {
    /// Where it runs.
    pub backend: Backend,
    /// Makes the optimizer.
    pub optimizer: fn() -> ModuleOptimizer,
    /// Makes the learning-rate scheduler.
    pub scheduler: fn() -> ModuleLrScheduler,
    /// Where its batches come from.
    pub source: BatchSource,
    /// After how many batches the optimizer steps.
    pub accumulation: usize,
    /// Whether gradients that are left at an epoch's end are used in the next one.
    pub carries: bool,
    /// How many epochs it has.
    pub epochs: usize,
    /// The item that is ruined, if any. For made-up batches, it is the batch with this number. The loop then
    /// logs its losses, and goes back.
    pub poison: Option<Poison>,
}

/// Where the batches of a loop come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchSource {
    /// A loader.
    Loader(Loaders, usize),
    /// A list of batches that is shuffled for each epoch.
    Iterator,
    /// Two loaders, both of which give to each step.
    Two,
    /// Two loaders, one after the other.
    InTurn,
    /// One loader, twice in each epoch.
    Twice,
    /// A loader that is built again for each epoch.
    Rebuilt,
    /// An endless generator. Each epoch takes seven batches from it.
    Endless,
    /// No loader and no epochs.
    Steps,
}

/// How a run ends early. Batches are counted from 1 in the current process, and epochs by their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoopHalt {
    /// It runs to its end.
    Never,
    /// It is stopped after that batch.
    Stop(usize),
    /// The loop returns early, after that batch is computed and before the session knows of it.
    Return(usize),
    /// It panics there.
    Panic(usize),
    /// It is stopped in the validation of that epoch.
    StopInValidation(usize),
    /// The loop is left in the validation of that epoch.
    ReturnInValidation(usize),
    /// The loop is left after the validation of that epoch, and before its end.
    ReturnAfterValidation(usize),
}

/// The result of a run.
#[derive(Debug)]
pub struct LoopRun {
    /// How it ended; `None` after an early return or a panic.
    pub outcome: Option<Outcome>,
    /// The error of the session, if one ended it.
    pub error: Option<BackupError>,
    /// The losses of each trained batch, as bytes, by its number.
    pub losses: BTreeMap<u64, Vec<u8>>,
    /// The epochs that were validated in this process.
    pub validated: Vec<usize>,
    /// The state at the end; `None` after a panic.
    pub state: Option<LoopState>,
}

/// What the loop counts.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Batches that were trained.
    pub batches: u64,
    /// The best loss of a validation.
    pub best: f64,
    /// How many steps the scheduler makes besides each step's own.
    pub patience: u32,
    /// Notes on what happened and when.
    pub notes: Vec<String>,
}

/// Everything that the loop trains and keeps.
#[derive(Debug, Clone)]
pub struct LoopState {
    /// The network, its optimizer and scheduler.
    pub trainee: Trainee<Net, ModuleOptimizer, ModuleLrScheduler>,
    /// The mean of the network's weights.
    pub average: Weights<Net>,
    /// What it counts.
    pub counters: Value<Counters>,
}

impl_state!(LoopState {
    trainee,
    average,
    counters
});

/// Why a loop was left.
enum Left {
    Backup(BackupError),
    Halted,
}

impl From<BackupError> for Left {
    fn from(error: BackupError) -> Self {
        Self::Backup(error)
    }
}

impl From<DatasetError> for Left {
    fn from(error: DatasetError) -> Self {
        Self::Backup(BackupError::Dataset(error))
    }
}

/// The batches of one epoch.
enum Sources<'l> {
    One(Batches<'l, Batch>),
    Pairs(Batches<'l, Batch>, Batches<'l, Batch>),
    InTurn(Batches<'l, Batch>, Batches<'l, Batch>),
    Results(Batches<'l, Result<Batch, DatasetError>>),
    /// The batches of the endless generator.
    Endless,
}

impl Loop {
    /// Adam with a cosine schedule, three epochs of Burn's loader.
    pub fn new(backend: Backend) -> Self {
        Self {
            backend,
            optimizer: || AdamConfig::new().init(),
            scheduler: || {
                let scheduler = CosineAnnealingLrSchedulerConfig::new(0.05, 30);
                scheduler.init().unwrap()
            },
            source: BatchSource::Loader(Loaders::Burns, 0),
            accumulation: 1,
            carries: false,
            epochs: 3,
            poison: None,
        }
    }

    /// The state at the start.
    pub fn state(&self, device: &Device) -> LoopState {
        let model = Net::new(16, LinearLayout::Row, None, device, Hooks::default());
        LoopState {
            average: Weights(model.valid()),
            trainee: Trainee {
                model,
                optim: (self.optimizer)(),
                lr: (self.scheduler)(),
            },
            counters: Value(Counters {
                best: f64::INFINITY,
                ..Counters::default()
            }),
        }
    }

    /// Runs the program.
    pub fn run(&self, backup: BackupAndRestore, halt: LoopHalt) -> LoopRun {
        let mut run = LoopRun {
            outcome: None,
            error: None,
            losses: BTreeMap::new(),
            validated: Vec::new(),
            state: None,
        };
        let device = self.backend.device().autodiff();
        device.seed(42);
        let mut state = self.state(&device);
        let mut program = Program {
            of: self,
            device,
            halt,
            trained_here: 0,
            run: &mut run,
        };
        let ended = catch_unwind(AssertUnwindSafe(|| program.train(backup, &mut state)));
        match ended {
            Ok(Ok(outcome)) => run.outcome = Some(outcome),
            Ok(Err(Left::Backup(error))) => run.error = Some(error),
            Ok(Err(Left::Halted)) => {}
            Err(panic) => {
                let is_meant = panic.downcast_ref::<&str>() == Some(&PANIC);
                assert!(is_meant, "{halt:?}: {:?}", panic.downcast_ref::<String>());
                return run;
            }
        }
        run.state = Some(state);
        run
    }
}

const PANIC: &str = "a panic of the program's";

struct Program<'p> {
    of: &'p Loop,
    device: Device,
    halt: LoopHalt,
    trained_here: usize,
    run: &'p mut LoopRun,
}

type OfLoop = Session<LoopState>;

impl Program<'_> {
    fn train(&mut self, backup: BackupAndRestore, state: &mut LoopState) -> Result<Outcome, Left> {
        let mut session = backup.resume(state, &self.device)?;
        let loaders = [1, 2].map(|seed| self.loader(seed));
        loop {
            match self.of.source {
                BatchSource::Steps => self.train_steps(&mut session, state)?,
                _ => self.train_epochs(&mut session, state, &loaders)?,
            }
            if !session.roll_back(state)? {
                return Ok(session.finish(state)?);
            }
        }
    }

    fn train_epochs(
        &mut self,
        session: &mut OfLoop,
        state: &mut LoopState,
        [first_loader, second_loader]: &[Arc<dyn DataLoader<Batch>>; 2],
    ) -> Result<(), Left> {
        let mut endless = match self.of.source {
            BatchSource::Endless => Some(session.stream(self.endless())?.take(7)),
            _ => None,
        };
        let mut carried = GradientsAccumulator::new();
        let mut accumulated = 0;
        'train: for epoch in session.epochs(self.of.epochs) {
            if !self.of.carries {
                carried = GradientsAccumulator::new();
                if std::mem::take(&mut accumulated) > 0 {
                    session.gradients_dropped(state);
                }
            }
            let rebuilt = self.loader(epoch as u64);
            // A random number that each epoch draws by itself.
            let noise = match self.of.source {
                BatchSource::Endless => Tensor::zeros([1], &self.device),
                _ => draw(&self.device),
            };
            let mut sources = match self.of.source {
                BatchSource::Loader(..) => Sources::One(session.batches(first_loader)?),
                BatchSource::Iterator => Sources::One(session.batches_of(self.shuffled(epoch))?),
                BatchSource::Two => {
                    let first = session.batches(first_loader)?;
                    Sources::Pairs(first, session.batches(second_loader)?)
                }
                BatchSource::InTurn => {
                    let first = session.batches(first_loader)?;
                    Sources::InTurn(first, session.batches(second_loader)?)
                }
                BatchSource::Twice => {
                    let first = session.batches(first_loader)?;
                    Sources::InTurn(first, session.batches(first_loader)?)
                }
                BatchSource::Rebuilt => Sources::Results(session.batches_of(rebuilt.iter())?),
                BatchSource::Endless => Sources::Endless,
                BatchSource::Steps => unreachable!(),
            };
            loop {
                // A random number that each step draws before its batch is fetched.
                let before_fetch = draw(&self.device);
                let Some(batches) = sources.next(session, state, endless.as_mut())? else {
                    break;
                };
                for (index, batch) in batches.into_iter().enumerate() {
                    let batch = Batch {
                        inputs: batch.inputs
                            + noise.clone().unsqueeze()
                            + before_fetch.clone().unsqueeze(),
                        ..batch
                    };
                    if index > 0 {
                        // A second batch of the same step.
                        self.compute(state, batch, &mut GradientsAccumulator::new());
                        continue;
                    }
                    let loss = self.compute(state, batch, &mut carried);
                    self.log(session, &loss);
                    self.run.losses.insert(session.position().global_step, loss);
                }
                accumulated += 1;
                self.trained_here += 1;
                self.leave_if_halted()?;
                if accumulated < self.of.accumulation {
                    session.accumulated(state);
                } else {
                    accumulated = 0;
                    session.optimizer_begins();
                    self.optimize(state, carried.grads());
                    session.stepped(state);
                }
                if self.halt == LoopHalt::Stop(self.trained_here) {
                    session.interrupter().stop(Some("a test stops it"));
                }
            }
            if session.trained(state).is_stop() {
                break 'train;
            }
            let model = state.trainee.model.valid();
            let mut interrupter = Some(session.interrupter());
            let loss = session.try_once("valid", state, |session| {
                self.run.validated.push(epoch);
                match self.halt {
                    LoopHalt::ReturnInValidation(at) if at == epoch => return Err(Left::Halted),
                    LoopHalt::StopInValidation(at) if at == epoch => {
                        interrupter.take().unwrap().stop(None);
                    }
                    _ => {}
                }
                let mut batches = session.batches(second_loader)?;
                let batch = session.next(&mut batches, state)?.unwrap();
                let output = InferenceStep::step(&model, to_inner(batch));
                Ok::<_, Left>(f64::from(output.loss.into_scalar::<f32>()))
            })?;
            session.log("Loss", loss, 8);
            if self.halt == LoopHalt::ReturnAfterValidation(epoch) {
                return Err(Left::Halted);
            }
            let counters = &mut state.counters;
            counters.notes.push(format!("validated {epoch}"));
            if loss < counters.best {
                counters.best = loss;
            } else {
                counters.patience += 1;
            }
            if session.epoch_done(state).is_stop() {
                break;
            }
        }
        Ok(())
    }

    /// Passes the loss of the current batch to the session.
    fn log(&self, session: &mut OfLoop, loss: &[u8]) {
        if self.of.poison.is_some() {
            let loss = f32::from_le_bytes(loss.try_into().unwrap());
            session.log("Loss", loss.into(), 8);
        }
    }

    fn train_steps(&mut self, session: &mut OfLoop, state: &mut LoopState) -> Result<(), Left> {
        let mut steps = session.steps(18)?;
        while let Some(step) = session.next(&mut steps, state)? {
            let batch = self.made_up(step);
            let mut accumulator = GradientsAccumulator::new();
            let loss = self.compute(state, batch, &mut accumulator);
            self.log(session, &loss);
            self.run.losses.insert(session.position().global_step, loss);
            self.trained_here += 1;
            self.leave_if_halted()?;
            self.optimize(state, accumulator.grads());
            session.stepped(state);
            if self.halt == LoopHalt::Stop(self.trained_here) {
                session.interrupter().stop(None);
            }
        }
        Ok(())
    }

    fn leave_if_halted(&self) -> Result<(), Left> {
        match self.halt {
            LoopHalt::Return(at) if at == self.trained_here => Err(Left::Halted),
            LoopHalt::Panic(at) if at == self.trained_here => resume_unwind(Box::new(PANIC)),
            _ => Ok(()),
        }
    }

    fn compute(
        &self,
        state: &mut LoopState,
        batch: Batch,
        accumulator: &mut GradientsAccumulator<Net>,
    ) -> Vec<u8> {
        let model = &state.trainee.model;
        let output = TrainStep::step(model, batch);
        accumulator.accumulate(model, output.grads);
        state.counters.batches += 1;
        output.item.loss.into_data().as_bytes().to_vec()
    }

    fn optimize(&self, state: &mut LoopState, grads: burn::optim::GradientsParams) {
        for _ in 0..state.counters.patience {
            state.trainee.lr.step();
        }
        let lr = state.trainee.lr.step();
        let t = &mut state.trainee;
        t.model = t.model.clone().optimize(&mut t.optim, lr, grads);
        let mut weights = Flattened::default();
        t.model.visit(&mut weights);
        weights.0.reverse();
        state.average.0 = state.average.0.clone().map(&mut weights);
    }

    fn loader(&self, seed: u64) -> Arc<dyn DataLoader<Batch>> {
        let (loaders, workers) = match self.of.source {
            BatchSource::Loader(loaders, workers) => (loaders, workers),
            _ if self.of.poison.is_some() => (Loaders::Resumable, 0),
            _ => (Loaders::Burns, 0),
        };
        let items = 50;
        let data = Numbers {
            items,
            broken: None,
            poison: self.of.poison.filter(|_| seed == 1),
        };
        let loader = loaders.build(data, 8, seed, workers, true);
        loader.to_device(&self.device)
    }

    /// The batches, in an order that depends on the epoch only.
    fn shuffled(&self, epoch: usize) -> impl Iterator<Item = Batch> + use<> {
        let mut numbers: Vec<_> = (0..7).collect();
        numbers.shuffle(&mut StdRng::seed_from_u64(epoch as u64));
        let (device, poison) = (self.device.clone(), self.of.poison);
        numbers
            .into_iter()
            .map(move |at| made_up(at, &device, poison))
    }

    fn made_up(&self, number: u64) -> Batch {
        made_up(number, &self.device, self.of.poison)
    }

    fn endless(&self) -> impl Iterator<Item = Batch> + use<> {
        let mut generator = StdRng::seed_from_u64(7);
        let (device, poison) = (self.device.clone(), self.of.poison);
        std::iter::from_fn(move || Some(made_up(generator.random_range(0..50), &device, poison)))
    }
}

impl Sources<'_> {
    fn next(
        &mut self,
        session: &mut OfLoop,
        state: &LoopState,
        endless: Option<&mut Batches<'_, Batch>>,
    ) -> Result<Option<Vec<Batch>>, Left> {
        Ok(match self {
            Self::One(batches) => session.next(batches, state)?.map(|batch| vec![batch]),
            Self::Endless => match endless {
                Some(batches) => session.next(batches, state)?.map(|batch| vec![batch]),
                None => None,
            },
            Self::Results(batches) => match session.next(batches, state)? {
                Some(batch) => Some(vec![batch?]),
                None => None,
            },
            Self::Pairs(first, second) => {
                let first = session.next(first, state)?;
                let second = match first {
                    Some(_) => session.next(second, state)?,
                    None => None,
                };
                first.zip(second).map(|(first, second)| vec![first, second])
            }
            Self::InTurn(first, second) => match session.next(first, state)? {
                Some(batch) => Some(vec![batch]),
                None => session.next(second, state)?.map(|batch| vec![batch]),
            },
        })
    }
}

fn to_inner(batch: Batch) -> Batch {
    Batch {
        inputs: batch.inputs.inner(),
        classes: batch.classes.inner(),
    }
}

/// A random number, of shape `[1]`.
fn draw(device: &Device) -> Tensor<1> {
    Tensor::random([1], Distribution::Normal(0.0, 0.01), device)
}

/// A batch that depends on a number, and on the device's generator.
fn made_up(number: u64, device: &Device, poison: Option<Poison>) -> Batch {
    use burn::data::dataloader::batcher::Batcher as _;
    let items = (0..8).map(|at| (number as usize * 5 + at * 3) % 50);
    let batch = crate::data::NumbersBatcher::drawing().batch(items.collect(), device);
    match poison {
        Some(poison) if poison.has(number as usize) => Batch {
            inputs: batch.inputs * poison.inputs,
            ..batch
        },
        _ => batch,
    }
}

/// The floating-point parameters, flattened, and a mean of them.
#[derive(Default)]
struct Flattened(Vec<Tensor<1>>);

impl ModuleVisitor for Flattened {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(param.val().inner().flatten(0, D - 1));
    }
}

impl ModuleMapper for Flattened {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let with = self.0.pop().unwrap();
        param.map(|tensor| {
            let shape = tensor.shape();
            tensor * 0.9 + with.reshape(shape) * 0.1
        })
    }
}
