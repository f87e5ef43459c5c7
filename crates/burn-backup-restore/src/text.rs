use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number that is serialized as text, as in Burn's metric logs, because JSON has no NaN.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Text(pub f64);

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(de::Error::custom)
    }
}
