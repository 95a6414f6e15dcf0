//! Settings files: what a mistake looks like, and that the README tells the whole vocabulary.

use std::{collections::BTreeSet, path::Path};

use fake_backends::Config;
use rstest::rstest;
use serde_json::Value;

#[rstest]
#[case::unknown_key("name: shop\nserver:\n  keepalive_timeout: 2s\n", 3, "keepalive_timeout")]
#[case::unknown_word("server:\n  accept: sometimes\n", 2, "sometimes")]
#[case::number_without_unit("server:\n  keepalive_idle_timeout: 2\n", 2, "write e.g. `2s`")]
#[case::negative_duration("response:\n  latency: -2s\n", 2, "not a duration")]
#[case::unknown_distribution("response:\n  latency:\n    gamma: {}\n", 3, "gamma")]
#[case::misspelt_percentile("response:\n  latency:\n    percentiles: {p50: 1ms, p90: 2ms, p95: 3ms}\n", 3, "p95")]
#[case::bad_address("server:\n  listen: localhost\n", 2, "")]
fn mistakes_are_shown_where_they_are(#[case] yaml: &str, #[case] line: usize, #[case] says: &str) {
    let error = Config::from_yaml(yaml, "backend.yaml").unwrap_err().to_string();
    assert!(error.contains("backend.yaml") && error.contains(says), "{error}");
    assert!(error.contains(&format!("line {line}")) || error.contains(&format!(":{line}:")), "{error}");
}

#[test]
fn contradictions_are_reported_all_at_once() {
    let yaml = "{response: {status: 99, body: a, body_size: 1}, routes: [{path: x}], server: {close_on_request: 0}}";
    let error = Config::from_yaml(yaml, "test").unwrap_err().to_string();
    for part in ["response.status: 99", "exclude each other", "routes.0.path", "server.close_on_request"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[rstest]
#[case("")]
#[case("# nothing\n---\n")]
fn an_empty_file_is_a_healthy_server(#[case] yaml: &str) {
    assert_eq!(Config::from_yaml(yaml, "test").unwrap(), Config::default());
}

fn readme() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

fn vocabulary() -> Config {
    let readme = readme();
    let yaml = readme.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    Config::from_yaml(yaml, "README.md").unwrap()
}

/// The example in the README parses, and holds every key there is: a new setting has to be documented, a removed one to go.
#[test]
fn the_readme_shows_every_setting() {
    // What a route answers has the keys of `response`.
    let shown = keys(&serde_json::to_value(vocabulary()).unwrap(), "");
    let of_routes: Vec<_> =
        shown.iter().filter_map(|key| key.strip_prefix("routes.response")).map(|rest| format!("response{rest}")).collect();
    let shown: BTreeSet<_> = shown.into_iter().chain(of_routes).collect();
    let missing: BTreeSet<_> = every_key().into_iter().filter(|key| !shown.contains(key)).collect();
    assert!(missing.is_empty(), "not in README.md: {missing:?}");
}

/// serde names the expected keys when it meets one that it does not know.
fn every_key() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let roots =
        ["", "server", "tls", "health", "response", "response.body_pause", "response.upstream", "routes.0", "startup", "lifetime", "admin"];
    for root in roots {
        let path = if root.is_empty() { "no_such_key".to_owned() } else { format!("{root}.no_such_key") };
        let error = vocabulary().assigned([(path.as_str(), "1")]).unwrap_err().to_string();
        let (_, expected) = error.split_once("expected").unwrap_or_else(|| panic!("{error}"));
        let prefix = root.replace(".0", "");
        for key in expected.split('`').skip(1).step_by(2) {
            all.insert(if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") });
        }
    }
    assert!(all.len() > 50, "{all:?}");
    all
}

fn keys(value: &Value, prefix: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                found.extend(keys(value, &path));
                found.insert(path);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| found.extend(keys(item, prefix))),
        _ => {}
    }
    found
}

/// Every word of the enums is in the README as well.
#[test]
fn the_readme_shows_every_word() {
    let readme = readme();
    let paths = [
        "server.protocol",
        "server.accept",
        "server.keepalive_idle_close",
        "server.shutdown",
        "tls.certificate",
        "tls.handshake",
        "tls.plain_http",
        "health.readiness",
        "response.delivery",
        "response.latency",
    ];
    for path in paths {
        let value = if path == "response.latency" { "{no_such_word: {}}" } else { "no_such_word" };
        let error = vocabulary().assigned([(path, value)]).unwrap_err().to_string();
        let (_, expected) = error.split_once("expected").unwrap_or_else(|| panic!("{path}: {error}"));
        for word in expected.split('`').skip(1).step_by(2) {
            assert!(readme.contains(word), "{path}: `{word}` is not in README.md");
        }
    }
}

/// What the admin port shows can be sent back, whatever is set.
#[test]
fn every_setting_survives_json_and_yaml() {
    let config = vocabulary();
    assert_eq!(config.assigned([]).unwrap(), config);
    assert_eq!(Config::from_yaml(&serde_json::to_string(&config).unwrap(), "test").unwrap(), config);
}
