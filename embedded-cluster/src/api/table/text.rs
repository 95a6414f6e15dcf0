//! Texts that all printers use.

use jiff::Timestamp;
use serde_json::Value;

pub(super) const NONE: &str = "<none>";
pub(super) const UNKNOWN: &str = "<unknown>";

pub(super) fn name(object: &Value) -> Value {
    object["metadata"]["name"].as_str().unwrap_or_default().into()
}

pub(super) fn age(object: &Value) -> Value {
    since(&object["metadata"]["creationTimestamp"]).into()
}

/// How long ago a time was, for people; `<unknown>` without one.
pub(super) fn since(time: &Value) -> String {
    match moment(time) {
        Some(time) => human(Timestamp::now().as_second() - time.as_second()),
        None => UNKNOWN.to_owned(),
    }
}

pub(super) fn moment(time: &Value) -> Option<Timestamp> {
    time.as_str()?.parse().ok()
}

/// `duration.HumanDuration` of apimachinery.
pub(super) fn human(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let two = |large: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit}{small}{small_unit}") }
    };
    match seconds {
        s if s < -1 => "<invalid>".to_owned(),
        s if s < 0 => "0s".to_owned(),
        s if s < 120 => format!("{s}s"),
        s if minutes < 10 => two(minutes, "m", s % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 24 * 8 => two(hours / 24, "d", hours % 24, "h"),
        _ if hours < 24 * 365 * 2 => format!("{}d", hours / 24),
        _ if hours < 24 * 365 * 8 => two(hours / 24 / 365, "y", (hours / 24) % 365, "d"),
        _ => format!("{}y", hours / 24 / 365),
    }
}

/// A text as it is, `<none>` when empty or absent.
pub(super) fn or_none(text: &Value) -> Value {
    or(text, NONE)
}

pub(super) fn or(text: &Value, absent: &str) -> Value {
    text.as_str().filter(|s| !s.is_empty()).unwrap_or(absent).into()
}

pub(super) fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

pub(super) fn count(value: &Value) -> i64 {
    let length = value.as_array().map(Vec::len).or_else(|| value.as_object().map(serde_json::Map::len));
    i64::try_from(length.unwrap_or(0)).unwrap_or(i64::MAX)
}

/// `a=b,c=d`
pub(super) fn labels(map: &Value) -> String {
    let mut pairs: Vec<String> =
        map.as_object().into_iter().flatten().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    pairs.sort();
    if pairs.is_empty() { NONE.to_owned() } else { pairs.join(",") }
}

/// A `metav1.LabelSelector`.
pub(super) fn selector(selector: &Value) -> String {
    let text = super::super::subresources::selector_text(selector);
    if text.is_empty() { NONE.to_owned() } else { text }
}

/// The first three of a list, and how many more there are.
pub(super) fn first_three(all: &[String]) -> String {
    match all.len() {
        0 => NONE.to_owned(),
        1..=3 => all.join(","),
        n => format!("{} + {} more...", all[..3].join(","), n - 3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case(-5, "<invalid>")]
    #[case(-1, "0s")]
    #[case(119, "119s")]
    #[case(120, "2m")]
    #[case(125, "2m5s")]
    #[case(600, "10m")]
    #[case(3 * 3600, "3h")]
    #[case(3 * 3600 + 61, "3h1m")]
    #[case(47 * 3600, "47h")]
    #[case(49 * 3600, "2d1h")]
    #[case(9 * 86400, "9d")]
    #[case(800 * 86400, "2y70d")]
    fn durations_read_as_kubectl_prints_them(#[case] seconds: i64, #[case] expected: &str) {
        assert_eq!(human(seconds), expected);
    }
}
