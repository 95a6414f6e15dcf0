//! How many: of requests, of log lines, of objects. Counts and shares, never exact timing.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};

use super::decode::{Decode, parsed};
use super::problem::Problems;
use super::yaml::Node;

/// `all`, `none`, `some`, `rest`, `5`, `>0`, `>=3`, `<=10%`, `5%..80%`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// Every one; at least one has to be there.
    All,
    /// What the other rows of a table leave over; any number.
    Rest,
    Between {
        min: Option<Limit>,
        max: Option<Limit>,
    },
}

/// One end of a range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    pub value: f64,
    /// Of the whole, in hundredths, rather than a count.
    pub percent: bool,
    /// Whether the value itself lies outside.
    pub exclusive: bool,
}

impl Bound {
    pub const NONE: Bound = Bound::Between { min: None, max: Some(Limit { value: 0.0, percent: false, exclusive: false }) };
    pub const SOME: Bound = Bound::Between { min: Some(Limit { value: 0.0, percent: false, exclusive: true }), max: None };

    /// Whether `count` of `whole` lies within.
    #[allow(clippy::cast_precision_loss)]
    pub fn holds(&self, count: usize, whole: usize) -> bool {
        let measure = |limit: &Limit| {
            if limit.percent { if whole == 0 { 0.0 } else { count as f64 * 100.0 / whole as f64 } } else { count as f64 }
        };
        match self {
            Bound::All => whole > 0 && count == whole,
            Bound::Rest => true,
            Bound::Between { min, max } => {
                let above = min.is_none_or(|limit| match limit.exclusive {
                    true => measure(&limit) > limit.value,
                    false => measure(&limit) >= limit.value,
                });
                let below = max.is_none_or(|limit| match limit.exclusive {
                    true => measure(&limit) < limit.value,
                    false => measure(&limit) <= limit.value,
                });
                above && below
            }
        }
    }

    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        match text {
            "all" => return Ok(Bound::All),
            "rest" => return Ok(Bound::Rest),
            "none" => return Ok(Bound::NONE),
            "some" => return Ok(Bound::SOME),
            _ => {}
        }
        if let Some((low, high)) = text.split_once("..") {
            let (min, max) = (Limit::parse(low, false)?, Limit::parse(high, false)?);
            if min.percent == max.percent && min.value > max.value {
                return Err("the range ends before it begins".to_owned());
            }
            return Bound::Between { min: Some(min), max: Some(max) }.meaningful();
        }
        let (min, max) = match text.split_at(text.find(|letter: char| !"<>=".contains(letter)).unwrap_or(text.len())) {
            (">", rest) => (Some(Limit::parse(rest, true)?), None),
            (">=", rest) => (Some(Limit::parse(rest, false)?), None),
            ("<", rest) => (None, Some(Limit::parse(rest, true)?)),
            ("<=", rest) => (None, Some(Limit::parse(rest, false)?)),
            ("", rest) => {
                let limit = Limit::parse(rest, false)?;
                (Some(limit), Some(limit))
            }
            _ => return Err("the sign is none of >, >=, <, <=".to_owned()),
        };
        Bound::Between { min, max }.meaningful()
    }

    /// Refuses what no number can miss, such as `>=0` and `<=100%`: it looks like a check and is none. `rest` says openly that it is none.
    fn meaningful(self) -> Result<Self, String> {
        let Bound::Between { min, max } = &self else { return Ok(self) };
        let from_nothing = min.is_none_or(|limit| limit.value == 0.0 && !limit.exclusive);
        let to_all = max.is_none_or(|limit| limit.percent && limit.value >= 100.0 && !limit.exclusive);
        // Fewer than none, more than all
        let impossible = min.is_some_and(|limit| limit.exclusive && limit.percent && limit.value >= 100.0)
            || max.is_some_and(|limit| limit.exclusive && limit.value == 0.0);
        match (from_nothing && to_all, impossible) {
            (true, _) => Err("it always holds, whatever is counted".to_owned()),
            (_, true) => Err("it never holds, whatever is counted".to_owned()),
            _ => Ok(self),
        }
    }
}

impl Limit {
    fn parse(text: &str, exclusive: bool) -> Result<Self, String> {
        let text = text.trim();
        let (number, percent) = match text.strip_suffix('%') {
            Some(number) => (number.trim(), true),
            None => (text, false),
        };
        let value: f64 = number.parse().map_err(|_| "it holds no number".to_owned())?;
        if !value.is_finite() || value < 0.0 || (percent && value > 100.0) {
            return Err("the number is out of range".to_owned());
        }
        if !percent && value.fract() != 0.0 {
            return Err("a count is a whole number; a share ends with %".to_owned());
        }
        Ok(Limit { value, percent, exclusive })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.value, if self.percent { "%" } else { "" })
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::All => f.write_str("all"),
            Bound::Rest => f.write_str("rest"),
            bound if *bound == Bound::NONE => f.write_str("none"),
            bound if *bound == Bound::SOME => f.write_str(">0"),
            Bound::Between { min: Some(min), max: Some(max) } if min == max => min.fmt(f),
            Bound::Between { min: Some(min), max: Some(max) } => write!(f, "{min}..{max}"),
            Bound::Between { min: Some(min), max: None } => write!(f, "{}{min}", if min.exclusive { ">" } else { ">=" }),
            Bound::Between { min: None, max: Some(max) } => write!(f, "{}{max}", if max.exclusive { "<" } else { "<=" }),
            Bound::Between { min: None, max: None } => f.write_str("any number"),
        }
    }
}

impl Decode for Bound {
    fn decode(node: &Node, problems: &mut Problems) -> Option<Self> {
        parsed(node, problems, "a count or share", "\">0\", 20, \"<=10%\", \"5%..80%\", all, none, rest", Bound::parse)
    }
}

impl Serialize for Bound {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Bound {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Bound".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "description": "A count or share: all, none, some, rest, 20, \">0\", \">=3\", \"<=10%\", \"5%..80%\"",
            "type": ["string", "integer"]
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("all", 5, 5, true)]
    #[case("all", 4, 5, false)]
    #[case("all", 0, 0, false)]
    #[case("none", 0, 5, true)]
    #[case("none", 1, 5, false)]
    #[case("some", 1, 5, true)]
    #[case("some", 0, 5, false)]
    #[case("rest", 0, 5, true)]
    #[case(">0", 1, 5, true)]
    #[case(">=3", 2, 5, false)]
    #[case("<=10%", 1, 10, true)]
    #[case("<=10%", 2, 10, false)]
    #[case("<10%", 1, 10, false)]
    #[case("5%..80%", 4, 5, true)]
    #[case("5%..80%", 5, 5, false)]
    #[case("20", 20, 100, true)]
    #[case("20%", 19, 100, false)]
    fn bounds_hold(#[case] text: &str, #[case] count: usize, #[case] whole: usize, #[case] holds: bool) {
        assert_eq!(Bound::parse(text).unwrap().holds(count, whole), holds);
    }

    #[rstest]
    #[case("")]
    #[case("many")]
    #[case("=>3")]
    #[case("101%")]
    #[case("-1")]
    #[case("2.5")]
    #[case("80%..5%")]
    #[case("5..")]
    #[case("NaN")]
    #[case(">=0")]
    #[case(">=0%")]
    #[case("<=100%")]
    #[case("0%..100%")]
    #[case("0..100%")]
    #[case("<0")]
    #[case(">100%")]
    fn nonsense_is_refused(#[case] text: &str) {
        assert!(Bound::parse(text).is_err());
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(low in 0u32..100, high in 0u32..100, percent: bool, form in 0..4) {
            let sign = if percent { "%" } else { "" };
            let (low, high) = (low.min(high), low.max(high));
            let text = match form {
                0 => format!("{low}{sign}..{high}{sign}"),
                1 => format!(">{low}{sign}"),
                2 => format!("<={low}{sign}"),
                _ => format!("{low}{sign}"),
            };
            let bound = Bound::parse(&text).unwrap();
            let again = Bound::parse(&bound.to_string()).unwrap();
            for count in 0..=20 {
                prop_assert_eq!(bound.holds(count, 20), again.holds(count, 20));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "[0-9<>=%. a-z]{0,8}") {
            let _ = Bound::parse(&text);
        }

        #[test]
        fn a_lower_bound_is_met_by_more(limit in 1usize..50, count in 0usize..50) {
            let bound = Bound::parse(&format!(">={limit}")).unwrap();
            prop_assert!(!bound.holds(count, 100) || bound.holds(count + 1, 100));
        }
    }
}
