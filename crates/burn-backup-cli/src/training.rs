//! The training's state document in a backup's manifest. All fields are optional and unknown fields are ignored, so that
//! older and newer backups can be shown.

use std::collections::BTreeMap;
use std::fmt;

use burn_backup_store::Manifest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// The state document.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Training {
    #[serde(deserialize_with = "lenient")]
    pub position: Option<Position>,
    #[serde(deserialize_with = "lenient")]
    pub phase: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub early_stopped: Option<bool>,
    #[serde(deserialize_with = "lenient")]
    pub learning_rate: Option<f64>,
    #[serde(deserialize_with = "lenient")]
    pub reseed_steps: Option<bool>,
    #[serde(deserialize_with = "lenient")]
    pub run_seed: Option<u64>,
    #[serde(deserialize_with = "lenient")]
    pub optimizer_steps: Option<u64>,
    #[serde(deserialize_with = "lenient")]
    pub configuration: Option<Configuration>,
    #[serde(deserialize_with = "lenient")]
    pub history: Option<Vec<Series>>,
    #[serde(deserialize_with = "lenient")]
    pub cadence: Option<Cadence>,
    #[serde(deserialize_with = "lenient")]
    pub burn: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub model: Option<Vec<Param>>,
    #[serde(deserialize_with = "lenient")]
    pub parts: Option<BTreeMap<String, NamedState>>,
    #[serde(deserialize_with = "lenient")]
    pub runs: Option<Vec<Run>>,
}

/// The position of the training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub epoch: u64,
    #[serde(default)]
    pub step_in_epoch: u64,
    #[serde(default)]
    pub global_step: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            epoch,
            step_in_epoch,
            global_step,
        } = self;
        write!(
            f,
            "epoch {epoch}, batch {step_in_epoch} (batch {global_step} of the training)"
        )
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Configuration {
    #[serde(deserialize_with = "lenient")]
    pub accumulation: Option<u64>,
    #[serde(deserialize_with = "lenient")]
    pub label: Option<String>,
}

/// The values of a metric.
#[derive(Debug, Clone, Deserialize)]
pub struct Series {
    pub metric: String,
    /// `train` or `valid`.
    pub split: String,
    /// By epoch.
    #[serde(default)]
    pub values: BTreeMap<u64, Number>,
}

/// A number, which may be written as a text.
#[derive(Debug, Clone, Copy)]
pub struct Number(pub f64);

impl<'d> Deserialize<'d> for Number {
    fn deserialize<D: Deserializer<'d>>(deserializer: D) -> Result<Self, D::Error> {
        let number = match Value::deserialize(deserializer)? {
            Value::String(text) => text.parse().ok(),
            value => value.as_f64(),
        };
        Ok(Self(number.unwrap_or(f64::NAN)))
    }
}

/// The training's measurements about its backups.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Cadence {
    /// In seconds.
    #[serde(deserialize_with = "lenient")]
    pub backup_cost: Option<f64>,
    /// In seconds.
    #[serde(deserialize_with = "lenient")]
    pub uptime: Option<f64>,
    #[serde(deserialize_with = "lenient")]
    pub interruptions: Option<u64>,
    #[serde(deserialize_with = "lenient")]
    pub is_stopped: Option<bool>,
}

/// A parameter. It is read from a list of its fields, or from an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Param {
    pub path: String,
    pub shape: Vec<u64>,
    pub dtype: String,
}

impl Param {
    /// The parameter's size; `None` if its type is unknown.
    pub fn bytes(&self) -> Option<u64> {
        let size = match self.dtype.as_str() {
            "f64" | "i64" | "u64" => 8,
            "f32" | "flex32" | "i32" | "u32" | "bool(u32)" => 4,
            "f16" | "bf16" | "i16" | "u16" => 2,
            "i8" | "u8" | "bool" | "bool(u8)" => 1,
            _ => return None,
        };
        let mut sizes = self.shape.iter();
        sizes.try_fold(size, |bytes: u64, size| bytes.checked_mul(*size))
    }
}

/// One of several states.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct NamedState {
    #[serde(deserialize_with = "lenient")]
    pub model: Option<Vec<Param>>,
}

/// A process that ran the training.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Run {
    /// RFC 3339.
    #[serde(deserialize_with = "lenient")]
    pub began: Option<String>,
    /// `None` if the process started a new training.
    #[serde(deserialize_with = "lenient")]
    pub from: Option<Position>,
    #[serde(deserialize_with = "lenient")]
    pub host: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub process: Option<u64>,
    /// Its backup frequency, in words.
    #[serde(deserialize_with = "lenient")]
    pub frequency: Option<String>,
    /// Why it ended, if that is known.
    #[serde(deserialize_with = "lenient")]
    pub ended: Option<String>,
}

impl Training {
    /// Reads the manifest's state; empty if another program has written it.
    pub fn of(manifest: &Manifest) -> Self {
        manifest.state().unwrap_or_default()
    }

    /// The parameters of each state that has a model. If the training has only one state, its name is empty.
    pub fn models(&self) -> Vec<(&str, &[Param])> {
        let only = self.model.iter().map(|model| ("", model.as_slice()));
        let parts = self.parts.iter().flatten();
        let named = parts.filter_map(|(name, part)| Some((name.as_str(), part.model.as_deref()?)));
        only.chain(named)
            .filter(|(_, model)| !model.is_empty())
            .collect()
    }

    pub fn history(&self) -> &[Series] {
        self.history.as_deref().unwrap_or_default()
    }

    pub fn runs(&self) -> &[Run] {
        self.runs.as_deref().unwrap_or_default()
    }
}

/// Reads the value, or `None` if it has another type.
fn lenient<'d, D: Deserializer<'d>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(state: Value) -> Training {
        serde_json::from_value(state).unwrap_or_default()
    }

    #[test]
    fn fields_of_another_type_are_ignored() {
        let training = read(json!({
            "position": { "epoch": 3, "step_in_epoch": 2, "global_step": 42, "new": true },
            "phase": { "name": "rest" },
            "learning_rate": null,
            "optimizer_steps": 42,
            "history": "elsewhere",
            "runs": [{ "began": "2026-01-01T00:00:00Z", "process": "many" }],
            "of_tomorrow": [1, 2, 3],
        }));
        let position = training.position.unwrap();
        assert_eq!(
            position.to_string(),
            "epoch 3, batch 2 (batch 42 of the training)"
        );
        assert_eq!(training.optimizer_steps, Some(42));
        assert!(training.phase.is_none() && training.learning_rate.is_none());
        assert!(training.history().is_empty());
        assert_eq!(training.runs()[0].process, None);
        assert!(training.runs()[0].began.is_some());
    }

    #[test]
    fn a_document_of_another_program_is_empty() {
        for state in [json!(null), json!(7), json!([1]), json!({ "step": 1 })] {
            let training = read(state);
            assert!(training.position.is_none() && training.models().is_empty());
        }
    }

    #[test]
    fn parameters_are_lists_or_objects_and_numbers_may_be_texts() {
        let training = read(json!({
            "model": [["a", [2, 3], "f32"], { "path": "b", "shape": [], "dtype": "qfloat" }],
            "parts": { "other": { "model": [["c", [4], "bf16"]] }, "counters": {} },
            "history": [{ "metric": "Loss", "split": "train", "values": { "1": "0.5", "2": "NaN", "3": 2 } }],
        }));
        let models = training.models();
        assert_eq!(models.len(), 2);
        let bytes: Vec<_> = models[0].1.iter().map(Param::bytes).collect();
        assert_eq!(bytes, [Some(24), None]);
        assert_eq!((models[1].0, models[1].1[0].bytes()), ("other", Some(8)));
        let values = &training.history()[0].values;
        assert_eq!(values[&1].0, 0.5);
        assert!(values[&2].0.is_nan());
        assert_eq!(values[&3].0, 2.0);
    }
}
