//! Versions of a gateway that something was observed with: `<1.23`, `>=1.18 <1.23`.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;

use super::decode::{Decode, parsed};
use super::problem::Problems;
use super::yaml::Node;

/// Every bound has to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions {
    text: String,
    bounds: Vec<(Side, Vec<u64>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// `>=`
    From,
    /// `<`
    Below,
}

impl Versions {
    pub fn parse(text: &str) -> Result<Self, String> {
        let bounds: Result<Vec<_>, String> = text
            .split_whitespace()
            .map(|bound| {
                let from = bound.strip_prefix(">=").map(|version| (Side::From, version));
                let (side, version) = from
                    .or_else(|| bound.strip_prefix('<').map(|version| (Side::Below, version)))
                    .ok_or_else(|| format!("`{bound}` begins with neither `<` nor `>=`"))?;
                numbers(version).map(|version| (side, version)).ok_or_else(|| format!("`{version}` is no version"))
            })
            .collect();
        let bounds = bounds?;
        if bounds.is_empty() {
            return Err("it holds no version".to_owned());
        }
        Ok(Versions { text: text.to_owned(), bounds })
    }

    /// Whether a build's version is one of them. What cannot be read as a version is none.
    pub fn hold(&self, version: &str) -> bool {
        let leading: String = version.chars().take_while(|letter| letter.is_ascii_digit() || *letter == '.').collect();
        let Some(version) = numbers(leading.trim_end_matches('.')) else { return false };
        self.bounds.iter().all(|(side, bound)| match side {
            Side::From => version >= *bound,
            Side::Below => version < *bound,
        })
    }
}

fn numbers(text: &str) -> Option<Vec<u64>> {
    text.split('.').map(|number| number.parse().ok()).collect()
}

impl Decode for Versions {
    fn decode(node: &Node, problems: &mut Problems) -> Option<Self> {
        parsed(node, problems, "versions", "<1.23", Versions::parse)
    }
}

impl Serialize for Versions {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl JsonSchema for Versions {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Versions".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "description": "Bounds that all have to hold: <1.23, or >=1.18 <1.23", "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("<1.23", "1.22.1", true)]
    #[case("<1.23", "1.23.0", false)]
    #[case("<1.23", "1.9.3", true)]
    #[case(">=1.18 <1.23", "1.18.0", true)]
    #[case(">=1.18 <1.23", "1.17.9", false)]
    #[case(">=2", "2.6.12-1+deb12u4", true)]
    #[case(">=2", "unknown", false)]
    fn versions_are_compared_by_number(#[case] versions: &str, #[case] version: &str, #[case] holds: bool) {
        assert_eq!(Versions::parse(versions).unwrap().hold(version), holds);
    }

    #[rstest]
    #[case("1.23")]
    #[case("<")]
    #[case(">=1.x")]
    #[case(" ")]
    fn what_is_no_bound_is_refused(#[case] text: &str) {
        assert!(Versions::parse(text).is_err(), "{text}");
    }
}
