//! The models in a generation: for each state, the records that hold its parameters.

use anyhow::Result;
use burn_backup_store::OpenGeneration;

use crate::record::Record;

const MODEL: &str = "model";
/// Parameters that training leaves unchanged may have their own part.
const FROZEN: &str = "frozen";

/// The parts of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelParts {
    /// The state's name; empty if it is the training's only state.
    pub state: String,
    pub parts: Vec<String>,
}

impl ModelParts {
    /// The models of all states, in the order of the part names.
    pub fn of<'n>(parts: impl IntoIterator<Item = &'n str> + Clone) -> Vec<Self> {
        let states = parts
            .clone()
            .into_iter()
            .filter_map(|part| state_of(part, MODEL));
        let mut models: Vec<_> = states
            .map(|state| Self {
                state: state.to_owned(),
                parts: vec![name(state, MODEL)],
            })
            .collect();
        for frozen in parts {
            let of = state_of(frozen, FROZEN);
            let model = models
                .iter_mut()
                .find(|model| Some(model.state.as_str()) == of);
            if let Some(model) = model {
                model.parts.push(frozen.to_owned());
            }
        }
        models
    }

    /// The model's file name, without extension.
    pub fn file_stem(&self) -> String {
        name(&self.state, MODEL)
    }

    /// The whole model as one record.
    pub fn record(&self, generation: &OpenGeneration) -> Result<Record> {
        let parts = self.parts.iter().filter_map(|part| generation.part(part));
        parts
            .map(Record::read)
            .try_fold(Record::default(), |all, part| all.merge(part?))
    }
}

/// The name of the part that holds this record of a state.
fn name(state: &str, record: &str) -> String {
    match state {
        "" => record.to_owned(),
        state => format!("{state}-{record}"),
    }
}

/// The state that the part belongs to, if the part is a record of this kind.
pub fn state_of<'p>(part: &'p str, record: &str) -> Option<&'p str> {
    match part.strip_suffix(record)? {
        "" => Some(""),
        state => state.strip_suffix('-'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_has_its_frozen_part_and_no_other_parts() {
        let parts = [
            "a-model",
            "a-frozen",
            "a-optimizer",
            "b-model",
            "frozen",
            "model",
            "c-value",
            "supermodel",
        ];
        let model = |state: &str, parts: &[&str]| ModelParts {
            state: state.to_owned(),
            parts: parts.iter().map(|part| (*part).to_owned()).collect(),
        };
        assert_eq!(
            ModelParts::of(parts),
            [
                model("a", &["a-model", "a-frozen"]),
                model("b", &["b-model"]),
                model("", &["model", "frozen"]),
            ]
        );
    }
}
