//! Patterns and formats of texts in custom resources.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{LazyLock, Mutex, PoisonError};

use base64::Engine as _;
use regex::Regex;

/// Compiled patterns are kept: one HTTPRoute is held against dozens. Definitions bound how many there are; this bounds
/// them if somebody makes up definitions without end.
const KEPT: usize = 1024;
static PATTERNS: LazyLock<Mutex<HashMap<String, Option<Regex>>>> = LazyLock::new(Mutex::default);

/// Whether a text matches somewhere. A pattern that cannot be read is no obstacle: kube-apiserver refuses it with its
/// definition.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    compiled(pattern).is_none_or(|regex| regex.is_match(text))
}

/// `None` when the pattern cannot be read.
pub(super) fn compiled(pattern: &str) -> Option<Regex> {
    let mut patterns = PATTERNS.lock().unwrap_or_else(PoisonError::into_inner);
    if patterns.len() >= KEPT {
        patterns.clear();
    }
    if let Some(known) = patterns.get(pattern) {
        return known.clone();
    }
    patterns.entry(pattern.to_owned()).or_insert_with(|| compile(pattern)).clone()
}

/// Go's `regexp` and Rust's `regex` share their syntax and the promise of linear time; `\d`, `\s` and `\w` are ASCII in Go.
fn compile(pattern: &str) -> Option<Regex> {
    let ascii = pattern.replace("\\d", "[0-9]").replace("\\w", "[0-9A-Za-z_]").replace("\\s", "[\\t\\n\\f\\r ]");
    // Inside brackets the replacements nest, which means the same.
    Regex::new(&ascii).or_else(|_| Regex::new(pattern)).ok()
}

/// Formats that kube-apiserver knows and manifests use; all others say nothing.
pub(super) fn is(format: &str, text: &str) -> bool {
    match format {
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => text.parse::<ipnet::IpNet>().is_ok() && text.contains('/'),
        "date-time" | "datetime" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok() && text.len() == 10,
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "uuid" => uuid::Uuid::try_parse(text).is_ok(),
        "hostname" => is_hostname(text),
        "uri" => text.parse::<http::Uri>().is_ok() && !text.is_empty(),
        "email" => text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && is_hostname(host)),
        "mac" => text.split([':', '-']).filter(|part| part.len() == 2 && u8::from_str_radix(part, 16).is_ok()).count() == 6,
        "duration" => is_duration(text),
        _ => true,
    }
}

fn is_hostname(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    text.len() <= 255 && text.trim_end_matches('.').split('.').all(is_label)
}

/// `1h30m`, `300ms`, `1.5s` as Go's `time.ParseDuration`, with or without spaces as Scala's.
fn is_duration(text: &str) -> bool {
    let mut rest = text.trim_start_matches(['+', '-']);
    if rest == "0" {
        return true;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let known = [
            "ns", "us", "\u{b5}s", "\u{3bc}s", "ms", "s", "m", "h", "d", "w", "hour", "hours", "minute", "minutes", "second", "seconds",
            "day", "days",
        ];
        if number.parse::<f64>().is_err() || !known.contains(&unit) {
            return false;
        }
        rest = after.trim_start();
    }
    !text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case("ipv4", "10.0.0.1", "10.0.0")]
    #[case("ipv6", "fe80::1", "10.0.0.1")]
    #[case("cidr", "10.0.0.0/8", "10.0.0.0")]
    #[case("date-time", "2026-01-02T03:04:05Z", "yesterday")]
    #[case("date", "2026-01-02", "2026-13-02")]
    #[case("byte", "aGk=", "a b")]
    #[case("duration", "1h30m", "1 parsec")]
    #[case("hostname", "shop.example", "-shop")]
    #[case("uuid", "5d7f8a9e-1c2b-4d3e-8f4a-0123456789ab", "5d7f")]
    #[case("mac", "00:11:22:aa:bb:cc", "00:11")]
    fn formats(#[case] format: &str, #[case] good: &str, #[case] bad: &str) {
        assert!(is(format, good), "{good}");
        assert!(!is(format, bad), "{bad}");
        assert!(is("no-such-format", bad));
    }

    #[test]
    fn patterns_are_searched_for_and_digits_are_ascii() {
        assert!(matches("b", "abc") && !matches("^b", "abc"));
        assert!(matches(r"^[\d.]+$", "1.2") && !matches(r"^\d+$", "\u{661}"));
        assert!(matches("(", "anything"), "not to be read");
    }
}
