//! Lengths of time as scenarios write them, and their scaling: a run that takes seconds uses short timeouts, and every
//! shortened one names the production value that it stands for, which `--real-time` uses instead.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};

use super::decode::{Decode, Spanned, element, parsed};
use super::problem::Problems;
use super::yaml::Node;

element! {
    /// A shortened time and what it is in production.
    pub struct Scaled ("a scaled time") {
        /// Used by default.
        pub lab: Literal,
        /// Used with `--real-time`.
        pub production: Literal,
    }
}

/// Which column of the scaled times is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Scale {
    #[default]
    Lab,
    Production,
}

/// A duration with its unit: `500ms`, `1.5s`, `2m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Literal(pub Duration);

/// A duration, the name of a scaled time, or a sum of such: `1s`, `$read-timeout`, `$read-timeout + 500ms`, `3 x $read-timeout`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Time {
    text: String,
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq)]
struct Term {
    negative: bool,
    factor: f64,
    value: TermValue,
}

// A factor is read from text and never NaN.
impl Eq for Term {}

#[derive(Clone, Debug, PartialEq, Eq)]
enum TermValue {
    Literal(Duration),
    Named(String),
}

/// The scaled times of a scenario on one scale.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Times(pub BTreeMap<String, Duration>);

impl Scaled {
    pub fn on(&self, scale: Scale) -> Duration {
        match scale {
            Scale::Lab => self.lab.0,
            Scale::Production => self.production.0,
        }
    }
}

impl Times {
    pub fn new(scaled: &BTreeMap<String, Spanned<Scaled>>, scale: Scale) -> Self {
        Times(scaled.iter().map(|(name, time)| (name.clone(), time.on(scale))).collect())
    }
}

impl Time {
    pub fn of(duration: Duration) -> Self {
        let term = Term { negative: false, factor: 1.0, value: TermValue::Literal(duration) };
        Time { text: format_duration(duration), terms: vec![term] }
    }

    /// Names that are used, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.terms.iter().filter_map(|term| match &term.value {
            TermValue::Named(name) => Some(name.as_str()),
            TermValue::Literal(_) => None,
        })
    }

    /// A name that is not in `times` counts as nothing: loading refuses such a scenario.
    pub fn resolve(&self, times: &Times) -> Duration {
        let seconds: f64 = self
            .terms
            .iter()
            .map(|term| {
                let value = match &term.value {
                    TermValue::Literal(duration) => *duration,
                    TermValue::Named(name) => times.0.get(name).copied().unwrap_or_default(),
                };
                value.as_secs_f64() * term.factor * if term.negative { -1.0 } else { 1.0 }
            })
            .sum();
        // Whole microseconds, so that sums of decimals read as they were written.
        Duration::from_micros((seconds.max(0.0) * 1e6).round() as u64)
    }

    pub fn parse(text: &str) -> Result<Self, String> {
        let mut terms = Vec::new();
        let mut negative = false;
        let mut expect_term = true;
        let mut factor = 1.0;
        let words: Vec<&str> = text.split_whitespace().collect();
        let mut index = 0;
        while let Some(word) = words.get(index) {
            match (*word, expect_term) {
                ("+" | "-", true) => return Err("two signs in a row".to_owned()),
                ("+", false) => (negative, factor, expect_term) = (false, 1.0, true),
                ("-", false) => (negative, factor, expect_term) = (true, 1.0, true),
                (number, true) if words.get(index + 1).is_some_and(|next| *next == "x") => {
                    factor = number.parse::<f64>().ok().filter(|factor| factor.is_finite()).ok_or("`x` follows a number")?;
                    index += 1;
                }
                (word, true) => {
                    let value = match word.strip_prefix('$') {
                        Some("") => return Err("a name follows `$`".to_owned()),
                        Some(name) => TermValue::Named(name.to_owned()),
                        None => TermValue::Literal(parse_duration(word)?),
                    };
                    terms.push(Term { negative, factor, value });
                    expect_term = false;
                }
                (_, false) => return Err("`+`, `-` or nothing follows a time".to_owned()),
            }
            index += 1;
        }
        if expect_term {
            return Err("a time is missing".to_owned());
        }
        Ok(Time { text: words.join(" "), terms })
    }
}

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// `500ms`, `1.5s`, `2m`, `1h`, `20us`; a bare `0` is the only number that needs no unit.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let split = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| "it does not begin with a number".to_owned())?;
    let unit = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "" => return Err("the unit is missing (us, ms, s, m, h)".to_owned()),
        _ => return Err("the unit is none of us, ms, s, m, h".to_owned()),
    };
    Duration::try_from_secs_f64(number * unit)
        .map(|duration| Duration::from_micros(duration.as_secs_f64().mul_add(1e6, 0.0).round() as u64))
        .map_err(|_| "it is too long".to_owned())
}

/// In the largest unit that leaves a whole number: `500ms`, `60s`.
pub fn format_duration(duration: Duration) -> String {
    match duration.as_micros() {
        0 => "0s".to_owned(),
        micros if micros % 1_000_000 == 0 => format!("{}s", micros / 1_000_000),
        micros if micros % 1000 == 0 => format!("{}ms", micros / 1000),
        micros => format!("{micros}us"),
    }
}

impl Decode for Time {
    fn decode(node: &Node, problems: &mut Problems) -> Option<Self> {
        parsed(node, problems, "a time", "500ms, or $read-timeout + 1s", Time::parse)
    }
}

impl Decode for Literal {
    fn decode(node: &Node, problems: &mut Problems) -> Option<Self> {
        parsed(node, problems, "a duration", "500ms", |text| parse_duration(text).map(Literal))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl Serialize for Literal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_duration(self.0))
    }
}

impl JsonSchema for Time {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "description": "A duration, the name of a scaled time, or a sum of such: 500ms, $read-timeout, $read-timeout + 1s, 3 x $read-timeout",
            "type": ["string", "integer"]
        })
    }
}

impl JsonSchema for Literal {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "description": "A duration with its unit: 500ms, 1.5s, 2m",
            "type": ["string", "integer"],
            "pattern": "^(0|[0-9]+(\\.[0-9]+)?(us|ms|s|m|h))$"
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn times() -> Times {
        Times([("read-timeout".to_owned(), Duration::from_secs(1)), ("idle".to_owned(), Duration::from_millis(150))].into())
    }

    #[rstest]
    #[case("500ms", 500)]
    #[case("1.5s", 1500)]
    #[case("2m", 120_000)]
    #[case("0", 0)]
    #[case("$read-timeout", 1000)]
    #[case("$read-timeout + 500ms", 1500)]
    #[case("3 x $read-timeout", 3000)]
    #[case("0.5 x $read-timeout + $idle", 650)]
    #[case("$idle - 110ms", 40)]
    #[case("$idle - 1s", 0)]
    fn times_are_added_up(#[case] text: &str, #[case] millis: u64) {
        assert_eq!(Time::parse(text).unwrap().resolve(&times()), Duration::from_millis(millis));
    }

    #[rstest]
    #[case("", "missing")]
    #[case("5", "unit is missing")]
    #[case("5sec", "none of")]
    #[case("+ 5s", "two signs")]
    #[case("5s +", "missing")]
    #[case("5s 5s", "follows a time")]
    #[case("x 5s", "number")]
    #[case("$", "name")]
    #[case("9e99s", "none of")]
    fn nonsense_is_refused_with_the_reason(#[case] text: &str, #[case] reason: &str) {
        let error = Time::parse(text).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }

    #[test]
    fn names_are_told() {
        let time = Time::parse("2 x $a + 1s - $b").unwrap();
        assert_eq!(time.names().collect::<Vec<_>>(), ["a", "b"]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(micros in 0u64..10_000_000_000) {
            let duration = Duration::from_micros(micros);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[0-9a-z$+. x-]{0,16}") {
            if let Ok(time) = Time::parse(&text) {
                time.resolve(&times());
            }
        }
    }
}
