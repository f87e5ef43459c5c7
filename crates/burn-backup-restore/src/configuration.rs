//! The configuration of a training besides its model. A restart compares it with the backup's.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::change::{Change, Changes};
use crate::error::BackupError;
use crate::text::Text;

/// The last optimizer step whose learning rate is compared.
const LAST_RATE: u64 = 1 << 14;

/// Two learning rates are equal up to this share of the larger one, because the last digits of a power or
/// a cosine depend on the machine.
const TOLERANCE: f64 = 1e-9;

/// The configuration of a training.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Configuration {
    /// The number of batches for each optimizer step.
    pub accumulation: usize,
    pub schedule: Schedule,
    /// The program's own fingerprint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// The learning rates of a scheduler that has not stepped yet.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Schedule {
    /// For each optimizer step, counted from 1: the base group's rate, then the other rates of parameters.
    rates: BTreeMap<u64, Vec<Text>>,
}

impl Schedule {
    /// The schedule for the parameters of `model`. `next_rate` steps a clone of the program's fresh scheduler.
    pub(crate) fn of<M: Module>(
        model: &M,
        mut next_rate: impl FnMut() -> ModuleLearningRate,
    ) -> Self {
        let mut parameters = Parameters::default();
        model.visit(&mut parameters);
        let mut rates = BTreeMap::new();
        let step_on = || {
            for step in 1..=LAST_RATE {
                let rate = next_rate();
                if step < 4 || step.is_power_of_two() {
                    rates.insert(step, parameters.rates(&rate));
                }
            }
        };
        // A scheduler of the program may panic after the training's last step.
        let _ = catch_unwind(AssertUnwindSafe(step_on));
        Self { rates }
    }

    /// The first step at which both schedules have rates and the rates differ.
    pub(crate) fn first_difference(&self, other: &Self) -> Option<(u64, String, String)> {
        self.rates.iter().find_map(|(step, rates)| {
            let others = other.rates.get(step)?;
            let are_alike = rates.len() == others.len()
                && rates
                    .iter()
                    .zip(others)
                    .all(|(one, other)| is_same(one.0, other.0));
            (!are_alike).then(|| (*step, list(rates), list(others)))
        })
    }
}

impl Configuration {
    /// Checks that this configuration may continue a training with the `recorded` one.
    /// Returns the changes that were found and are allowed.
    pub(crate) fn check(
        &self,
        recorded: &Self,
        changes: &Changes,
        backup_dir: &Path,
    ) -> Result<Vec<Change>, BackupError> {
        let schedule = recorded.schedule.first_difference(&self.schedule);
        let schedule = schedule.map(|(step, recorded, found)| {
            let what = format!("the learning rate of optimizer step {step}");
            (Change::Schedule, what, recorded, found)
        });
        let accumulation = (recorded.accumulation != self.accumulation).then(|| {
            let what = "grads_accumulation".to_owned();
            let (recorded, found) = (recorded.accumulation, self.accumulation);
            (
                Change::Accumulation,
                what,
                recorded.to_string(),
                found.to_string(),
            )
        });
        let label = (recorded.label != self.label).then(|| {
            let name = |label: &Option<String>| match label {
                Some(label) => format!("\"{label}\""),
                None => "not given".to_owned(),
            };
            let (recorded, found) = (name(&recorded.label), name(&self.label));
            (Change::Label, "the label".to_owned(), recorded, found)
        });

        let mut allowed = Vec::new();
        for (change, what, recorded, found) in [label, accumulation, schedule].into_iter().flatten()
        {
            if !changes.allows(change) {
                return Err(BackupError::ConfigurationMismatch {
                    path: backup_dir.to_path_buf(),
                    what,
                    recorded,
                    found,
                    change,
                });
            }
            allowed.push(change);
        }
        Ok(allowed)
    }
}

fn is_same(one: f64, other: f64) -> bool {
    let allowed = TOLERANCE * one.abs().max(other.abs());
    one.to_bits() == other.to_bits() || (one - other).abs() <= allowed
}

fn list(rates: &[Text]) -> String {
    let rates: Vec<_> = rates.iter().map(|rate| rate.0.to_string()).collect();
    rates.join(", ")
}

/// The parameters of a model. Each may have its own rate.
#[derive(Default)]
struct Parameters {
    path: Vec<String>,
    found: Vec<(ParamId, String)>,
}

impl Parameters {
    /// The base group's rate, then each other rate of a parameter once.
    fn rates(&self, rate: &ModuleLearningRate) -> Vec<Text> {
        let mut rates = vec![Text(rate.base())];
        for (id, path) in &self.found {
            let rate = Text(rate.lr_from_param(*id, Some(path)));
            if !rates.contains(&rate) {
                rates.push(rate);
            }
        }
        rates
    }
}

impl ModuleVisitor for Parameters {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.push((param.id, self.path.join(".")));
    }

    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }
}
