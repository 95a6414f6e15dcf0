//! A response that comes late.
//!
//! Mechanism: the handler sleeps between the end of the request and the response's headers, while the connection stays open
//! and readable, as an application does that waits for its database.

use std::{fmt, time::Duration};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, value::MapAccessDeserializer},
};

use crate::units::{duration, optional_duration, parse_duration, show_duration};

/// Time before the headers: one duration, or a distribution to draw from.
///
/// `latency: 200ms`, `latency: {uniform: {min: 10ms, max: 50ms}}`, `latency: {normal: {mean: 100ms, deviation: 20ms}}`,
/// `latency: {percentiles: {p50: 20ms, p90: 80ms, p99: 2s, max: 5s}}`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Latency {
    /// Always the same.
    Fixed(Duration),
    /// Evenly between two bounds.
    Uniform { min: Duration, max: Duration },
    /// Normal distribution, cut off at zero.
    Normal { mean: Duration, deviation: Duration },
    /// By percentiles, straight lines between them, from zero up to `max` (left out: `p99`).
    Percentiles { p50: Duration, p90: Duration, p99: Duration, max: Option<Duration> },
}

impl Latency {
    pub(crate) fn validate(&self) -> Result<(), String> {
        match self {
            Latency::Uniform { min, max } if min > max => Err("`min` is greater than `max`".to_owned()),
            Latency::Percentiles { p50, p90, p99, max } if p50 > p90 || p90 > p99 || max.is_some_and(|max| *p99 > max) => {
                Err("percentiles must not fall".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Draws one latency.
    pub(crate) fn draw(&self) -> Duration {
        self.at(rand::random(), rand::random())
    }

    /// The latency for two random numbers in [0, 1).
    fn at(&self, first: f64, second: f64) -> Duration {
        match *self {
            Latency::Fixed(duration) => duration,
            Latency::Uniform { min, max } => min + max.saturating_sub(min).mul_f64(first),
            Latency::Normal { mean, deviation } => {
                // Box-Muller; 1 - first keeps the logarithm's argument above zero.
                let standard = (-2.0 * (1.0 - first).ln()).sqrt() * (std::f64::consts::TAU * second).cos();
                Duration::try_from_secs_f64(mean.as_secs_f64() + standard * deviation.as_secs_f64()).unwrap_or_default()
            }
            Latency::Percentiles { p50, p90, p99, max } => {
                let points = [(0.0, Duration::ZERO), (0.5, p50), (0.9, p90), (0.99, p99), (1.0, max.unwrap_or(p99))];
                let upper = points.iter().position(|(share, _)| first < *share).unwrap_or(points.len() - 1);
                let ((left, low), (right, high)) = (points[upper - 1], points[upper]);
                low + high.saturating_sub(low).mul_f64((first - left) / (right - left))
            }
        }
    }
}

/// The map form; a derived enum keeps the position of a mistake, which an untagged one would lose.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Distribution {
    Uniform {
        #[serde(with = "duration")]
        min: Duration,
        #[serde(with = "duration")]
        max: Duration,
    },
    Normal {
        #[serde(with = "duration")]
        mean: Duration,
        #[serde(with = "duration")]
        deviation: Duration,
    },
    Percentiles {
        #[serde(with = "duration")]
        p50: Duration,
        #[serde(with = "duration")]
        p90: Duration,
        #[serde(with = "duration")]
        p99: Duration,
        #[serde(with = "optional_duration", default, skip_serializing_if = "Option::is_none")]
        max: Option<Duration>,
    },
}

impl Serialize for Latency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Latency::Fixed(duration) => serializer.serialize_str(&show_duration(duration)),
            Latency::Uniform { min, max } => Distribution::Uniform { min, max }.serialize(serializer),
            Latency::Normal { mean, deviation } => Distribution::Normal { mean, deviation }.serialize(serializer),
            Latency::Percentiles { p50, p90, p99, max } => Distribution::Percentiles { p50, p90, p99, max }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Latency;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as `200ms`, or one of `uniform:`, `normal:`, `percentiles:`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Latency, E> {
                parse_duration(text).map(Latency::Fixed).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Latency, E> {
                if number == 0 {
                    Ok(Latency::Fixed(Duration::ZERO))
                } else {
                    Err(E::custom(format!("{number} has no unit; write e.g. `{number}ms`")))
                }
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Latency, A::Error> {
                Ok(match Distribution::deserialize(MapAccessDeserializer::new(map))? {
                    Distribution::Uniform { min, max } => Latency::Uniform { min, max },
                    Distribution::Normal { mean, deviation } => Latency::Normal { mean, deviation },
                    Distribution::Percentiles { p50, p90, p99, max } => Latency::Percentiles { p50, p90, p99, max },
                })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn percentiles_are_met_at_their_shares() {
        let latency = Latency::Percentiles { p50: MS(20), p90: MS(80), p99: MS(2000), max: Some(MS(5000)) };
        assert_eq!(latency.at(0.0, 0.0), Duration::ZERO);
        assert_eq!(latency.at(0.5, 0.0), MS(20));
        assert_eq!(latency.at(0.9, 0.0), MS(80));
        assert_eq!(latency.at(0.99, 0.0), MS(2000));
        assert!(latency.at(0.999_999, 0.0) > MS(4900));
    }

    #[test]
    fn a_normal_distribution_has_its_mean() {
        let latency = Latency::Normal { mean: MS(100), deviation: MS(10) };
        let mean = (0..4000).map(|_| latency.draw().as_secs_f64()).sum::<f64>() / 4000.0;
        assert!((0.09..0.11).contains(&mean), "{mean}");
    }

    proptest! {
        #[test]
        fn uniform_stays_within_its_bounds(first in 0.0f64..1.0, min in 0u64..1000, width in 0u64..1000) {
            let drawn = Latency::Uniform { min: MS(min), max: MS(min + width) }.at(first, 0.0);
            prop_assert!(drawn >= MS(min) && drawn <= MS(min + width));
        }
    }
}
