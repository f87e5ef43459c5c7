use std::borrow::Cow;
use std::fmt;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct as _};

use crate::number::significant;
use crate::spread::Spread;

/// One line of the table: a measurement of one state.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Row {
    /// The name of the measurement, as in `--only`.
    pub measurement: Cow<'static, str>,
    /// The name of the state.
    pub state: String,
    /// The measured quantity.
    pub what: Cow<'static, str>,
    /// The unit of `ours`, `burns` and `limit`.
    pub unit: Cow<'static, str>,
    /// The values of this project.
    pub ours: Option<Spread>,
    /// The values of Burn's own checkpoints.
    pub burns: Option<Spread>,
    /// The values of the bare disk or memory.
    pub limit: Option<Spread>,
    /// The ratio of ours to something else.
    pub ratio: Option<Ratio>,
    /// The goal.
    pub goal: Option<Goal>,
}

/// The ratio of ours to something else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// The divisor.
    pub over: Cow<'static, str>,
    /// The ratios, within pairs of samples if these alternate.
    #[serde(flatten)]
    pub spread: Spread,
}

/// The goal for a median.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub enum Goal {
    /// Ours must be this or less.
    OursAtMost(f64),
    /// Ours must be this or more.
    OursAtLeast(f64),
    /// The ratio must be this or less.
    RatioAtMost(f64),
    /// The ratio must be this or more.
    RatioAtLeast(f64),
}

impl Row {
    /// A line without values.
    pub fn new(
        measurement: &'static str,
        state: impl Into<String>,
        what: impl Into<Cow<'static, str>>,
        unit: &'static str,
    ) -> Self {
        Self {
            measurement: measurement.into(),
            state: state.into(),
            what: what.into(),
            unit: unit.into(),
            ours: None,
            burns: None,
            limit: None,
            ratio: None,
            goal: None,
        }
    }

    /// Sets the values of ours.
    pub fn ours(mut self, ours: Spread) -> Self {
        self.ours = Some(ours);
        self
    }

    /// Sets the values of Burn's.
    pub fn burns(mut self, burns: Spread) -> Self {
        self.burns = Some(burns);
        self
    }

    /// Sets the values of the bare disk or memory.
    pub fn limit(mut self, limit: Spread) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Sets the ratio of ours to something else.
    pub fn ratio(mut self, over: impl Into<Cow<'static, str>>, spread: Spread) -> Self {
        let over = over.into();
        self.ratio = Some(Ratio { over, spread });
        self
    }

    /// Sets the goal.
    pub fn goal(mut self, goal: Goal) -> Self {
        self.goal = Some(goal);
        self
    }

    /// Whether both measure the same quantity.
    pub fn is_same(&self, other: &Self) -> bool {
        self.measurement == other.measurement
            && self.state == other.state
            && self.what == other.what
    }

    /// Whether the goal is met. `None` without a goal or without its values.
    pub fn is_met(&self) -> Option<bool> {
        let ours = self.ours.map(|ours| ours.median);
        let ratio = self.ratio.as_ref().map(|ratio| ratio.spread.median);
        match self.goal? {
            Goal::OursAtMost(bound) => Some(ours? <= bound),
            Goal::OursAtLeast(bound) => Some(ours? >= bound),
            Goal::RatioAtMost(bound) => Some(ratio? <= bound),
            Goal::RatioAtLeast(bound) => Some(ratio? >= bound),
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OursAtMost(bound) => write!(f, "ours <= {}", significant(*bound)),
            Self::OursAtLeast(bound) => write!(f, "ours >= {}", significant(*bound)),
            Self::RatioAtMost(bound) => write!(f, "ratio <= {}", significant(*bound)),
            Self::RatioAtLeast(bound) => write!(f, "ratio >= {}", significant(*bound)),
        }
    }
}

impl TryFrom<String> for Goal {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        let [what, side, bound] = words.as_slice() else {
            bail!("no goal: {text:?}");
        };
        let bound = bound.parse()?;
        match (*what, *side) {
            ("ours", "<=") => Ok(Self::OursAtMost(bound)),
            ("ours", ">=") => Ok(Self::OursAtLeast(bound)),
            ("ratio", "<=") => Ok(Self::RatioAtMost(bound)),
            ("ratio", ">=") => Ok(Self::RatioAtLeast(bound)),
            _ => bail!("no goal: {text:?}"),
        }
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut row = serializer.serialize_struct("Row", 10)?;
        row.serialize_field("measurement", &self.measurement)?;
        row.serialize_field("state", &self.state)?;
        row.serialize_field("what", &self.what)?;
        row.serialize_field("unit", &self.unit)?;
        row.serialize_field("ours", &self.ours)?;
        row.serialize_field("burns", &self.burns)?;
        row.serialize_field("limit", &self.limit)?;
        row.serialize_field("ratio", &self.ratio)?;
        row.serialize_field("goal", &self.goal.map(|goal| goal.to_string()))?;
        row.serialize_field("met", &self.is_met())?;
        row.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row::new("stall", "1M", "held", "ms")
            .ours(Spread::single(0.3))
            .ratio("Burn's", Spread::single(0.8))
    }

    #[test]
    fn goals_are_upper_or_lower_bounds() {
        for (goal, is_met) in [
            (Goal::OursAtMost(0.2), false),
            (Goal::OursAtMost(0.3), true),
            (Goal::OursAtLeast(0.3), true),
            (Goal::OursAtLeast(0.4), false),
            (Goal::RatioAtMost(0.7), false),
            (Goal::RatioAtMost(0.9), true),
            (Goal::RatioAtLeast(0.8), true),
            (Goal::RatioAtLeast(0.9), false),
        ] {
            assert_eq!(row().goal(goal).is_met(), Some(is_met), "{goal}");
        }
    }

    #[test]
    fn without_a_goal_or_a_value_nothing_is_met() {
        assert_eq!(row().is_met(), None);
        let unmeasured = Row::new("stall", "1M", "held", "ms").goal(Goal::OursAtMost(1.0));
        assert_eq!(unmeasured.is_met(), None);
    }

    #[test]
    fn json_has_the_goal_as_the_table_shows_it() {
        let json = serde_json::to_value(row().goal(Goal::RatioAtMost(1.25))).unwrap();
        assert_eq!(json["goal"], "ratio <= 1.25");
        assert_eq!(json["met"], true);
        assert_eq!(json["ratio"]["over"], "Burn's");
        assert_eq!(json["ratio"]["median"], 0.8);
        assert_eq!(json["burns"], serde_json::Value::Null);
    }

    #[test]
    fn a_row_is_read_as_it_is_written() {
        for goal in [
            Goal::OursAtMost(0.2),
            Goal::OursAtLeast(0.97),
            Goal::RatioAtMost(0.002),
            Goal::RatioAtLeast(0.8),
        ] {
            let row = row().goal(goal);
            let json = serde_json::to_string(&row).unwrap();
            assert_eq!(serde_json::from_str::<Row>(&json).unwrap(), row);
        }
        for text in ["", "ours < 1", "ours <= much"] {
            assert!(Goal::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
