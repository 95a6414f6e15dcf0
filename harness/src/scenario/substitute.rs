//! Scaled times in objects: `${backend-latency}` in any text becomes the duration, `${grace:seconds}` alone in a text becomes a
//! whole number, for fields such as `terminationGracePeriodSeconds`.

use serde_json::Value;

use super::time::{Time, Times, format_duration};

/// The object with every reference replaced; names that are not there are returned as the error.
pub fn substitute(value: &Value, times: &Times) -> Result<Value, Vec<String>> {
    let mut unknown = Vec::new();
    let replaced = walk(value, times, &mut unknown);
    if unknown.is_empty() { Ok(replaced) } else { Err(unknown) }
}

/// A gateway setting: text that uses a time by name (`$read-timeout + 1s`) becomes a duration, lists and mappings are gone
/// through.
pub fn resolve_setting(value: &Value, times: &Times) -> Result<Value, String> {
    match value {
        Value::String(text) if text.contains('$') && !text.contains('\n') && !text.contains("${") => match Time::parse(text) {
            Ok(time) => match time.names().find(|name| !times.0.contains_key(*name)) {
                Some(name) => Err(name.to_owned()),
                None => Ok(format_duration(time.resolve(times)).into()),
            },
            // Text of a raw configuration snippet, in which `$` is the gateway's own.
            Err(_) => Ok(value.clone()),
        },
        Value::Array(items) => items.iter().map(|item| resolve_setting(item, times)).collect(),
        Value::Object(entries) => {
            let resolved: Result<serde_json::Map<String, Value>, String> =
                entries.iter().map(|(key, item)| resolve_setting(item, times).map(|item| (key.clone(), item))).collect();
            resolved.map(Value::Object)
        }
        other => Ok(other.clone()),
    }
}

fn walk(value: &Value, times: &Times, unknown: &mut Vec<String>) -> Value {
    match value {
        Value::String(text) => replace(text, times, unknown),
        Value::Array(items) => items.iter().map(|item| walk(item, times, unknown)).collect(),
        Value::Object(entries) => Value::Object(entries.iter().map(|(key, item)| (key.clone(), walk(item, times, unknown))).collect()),
        other => other.clone(),
    }
}

fn replace(text: &str, times: &Times, unknown: &mut Vec<String>) -> Value {
    if let Some(name) = text.strip_prefix("${").and_then(|rest| rest.strip_suffix(":seconds}")) {
        return match times.0.get(name) {
            // Rounded up: a grace period must not become shorter than what it is to cover.
            Some(duration) => (duration.as_millis().div_ceil(1000) as u64).into(),
            None => {
                unknown.push(name.to_owned());
                Value::Null
            }
        };
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        // A shell variable such as ${HOME} is in capitals and stays.
        match after.split_once('}') {
            Some((name, after)) if is_name(name) => {
                match times.0.get(name) {
                    Some(duration) => out.push_str(&format_duration(*duration)),
                    None => unknown.push(name.to_owned()),
                }
                rest = after;
            }
            _ => {
                out.push_str("${");
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out.into()
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-')
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn times() -> Times {
        Times([("grace".to_owned(), Duration::from_millis(1500)), ("slow".to_owned(), Duration::from_secs(3))].into())
    }

    #[test]
    fn names_become_durations_in_text_and_numbers_in_fields() {
        let object = json!({ "spec": { "terminationGracePeriodSeconds": "${grace:seconds}", "args": ["--wait=${grace}"] },
            "data": { "config.yaml": "latency: ${slow}\nhome: ${HOME}\n" } });
        let expected = json!({ "spec": { "terminationGracePeriodSeconds": 2, "args": ["--wait=1500ms"] },
            "data": { "config.yaml": "latency: 3s\nhome: ${HOME}\n" } });
        assert_eq!(substitute(&object, &times()), Ok(expected));
    }

    #[test]
    fn unknown_names_are_told_all_at_once() {
        let object = json!(["${fast}", { "a": "${slow} ${later:seconds} ${never}" }, "${soon:seconds}"]);
        assert_eq!(substitute(&object, &times()), Err(vec!["fast".to_owned(), "never".to_owned(), "soon".to_owned()]));
    }

    #[test]
    fn settings_add_times_up_and_leave_snippets_alone() {
        let setting = json!({ "tries": 2, "timeout": "$slow + 1s", "location": "set $x 1;\n", "header": "$host and more" });
        let expected = json!({ "tries": 2, "timeout": "4s", "location": "set $x 1;\n", "header": "$host and more" });
        assert_eq!(resolve_setting(&setting, &times()), Ok(expected));
        assert_eq!(resolve_setting(&json!("$slwo"), &times()), Err("slwo".to_owned()));
    }
}
