//! Durations as nginx and Go write them: `500ms`, `5s`, `1m30s`, `1h`.

use std::time::Duration;

/// Reads a sum of numbers with units (`ms`, `s`, `m`, `h`); a bare `0` is allowed, any other bare number is not.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let mistake = || format!("`{text}` is no duration; write a number with a unit, such as `500ms`, `5s` or `1m30s`");
    let text_trimmed = text.trim();
    if text_trimmed == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    let mut rest = text_trimmed;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(mistake)?;
        let number: f64 = rest[..digits].parse().map_err(|_| mistake())?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let seconds = match &rest[..unit_end] {
            "ms" => number / 1000.0,
            "s" => number,
            "m" => number * 60.0,
            "h" => number * 3600.0,
            _ => return Err(mistake()),
        };
        total = Duration::try_from_secs_f64(seconds).ok().and_then(|part| total.checked_add(part)).ok_or_else(mistake)?;
        rest = &rest[unit_end..];
    }
    if text_trimmed.is_empty() { Err(mistake()) } else { Ok(total) }
}

/// Writes a duration so that [`parse`], nginx and a person read it: whole seconds as `5s`, everything else in milliseconds.
pub(crate) fn write(duration: Duration) -> String {
    if duration.subsec_millis() == 0 { format!("{}s", duration.as_secs()) } else { format!("{}ms", duration.as_millis()) }
}

pub(super) mod optional {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

    // serde's `with` fixes the signature.
    #[allow(clippy::ref_option)]
    pub fn serialize<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(duration) => serializer.serialize_str(&super::write(*duration)),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| super::parse(&text).map_err(de::Error::custom)).transpose()
    }
}

pub(super) mod required {
    use std::time::Duration;

    use serde::Serializer;

    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::write(*value))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_people_write() {
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("0.5s"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("0"), Ok(Duration::ZERO));
        for wrong in ["", "5", "5 s", "s", "-1s", "1.2.3s", "5d", "1e400s", "99999999999999999999h"] {
            assert!(parse(wrong).is_err(), "{wrong} was read");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(milliseconds in 0u64..1_000_000_000) {
            let duration = Duration::from_millis(milliseconds);
            prop_assert_eq!(parse(&write(duration)), Ok(duration));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[0-9msh. -]{0,12}") {
            let _ = parse(&text);
        }
    }
}
