use std::borrow::Cow;
use std::fmt;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct as _};

use crate::number::significant;
use crate::spread::Spread;

/// One line of the table: something measured on one state.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Row {
    /// The measurement's name, as `--only` takes it.
    pub measurement: Cow<'static, str>,
    /// The state's name.
    pub state: String,
    /// What was measured.
    pub what: Cow<'static, str>,
    /// Of `ours`, `burns` and `limit`.
    pub unit: Cow<'static, str>,
    /// This project's.
    pub ours: Option<Spread>,
    /// Of Burn's own checkpoints.
    pub burns: Option<Spread>,
    /// Of the bare disk or memory.
    pub limit: Option<Spread>,
    /// Ours over something.
    pub ratio: Option<Ratio>,
    /// What it is to be.
    pub goal: Option<Goal>,
}

/// Ours over something.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// Over what.
    pub over: Cow<'static, str>,
    /// The ratios, within pairs of samples where these alternate.
    #[serde(flatten)]
    pub spread: Spread,
}

/// What a median is to be.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub enum Goal {
    /// Ours is to be this or less.
    OursAtMost(f64),
    /// Ours is to be this or more.
    OursAtLeast(f64),
    /// The ratio is to be this or less.
    RatioAtMost(f64),
    /// The ratio is to be this or more.
    RatioAtLeast(f64),
}

impl Row {
    /// A line with nothing measured yet.
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

    /// With what was measured of ours.
    pub fn ours(mut self, ours: Spread) -> Self {
        self.ours = Some(ours);
        self
    }

    /// With what was measured of Burn's.
    pub fn burns(mut self, burns: Spread) -> Self {
        self.burns = Some(burns);
        self
    }

    /// With what the bare disk or memory does.
    pub fn limit(mut self, limit: Spread) -> Self {
        self.limit = Some(limit);
        self
    }

    /// With ours over something.
    pub fn ratio(mut self, over: impl Into<Cow<'static, str>>, spread: Spread) -> Self {
        let over = over.into();
        self.ratio = Some(Ratio { over, spread });
        self
    }

    /// With what it is to be.
    pub fn goal(mut self, goal: Goal) -> Self {
        self.goal = Some(goal);
        self
    }

    /// Whether it is about the same thing.
    pub fn is_same(&self, other: &Self) -> bool {
        self.measurement == other.measurement
            && self.state == other.state
            && self.what == other.what
    }

    /// Whether the goal is met, if there is one and what it is about was measured.
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
    fn a_goal_is_met_on_its_own_side_of_the_bound() {
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
    fn json_holds_the_goal_as_the_table_shows_it() {
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
