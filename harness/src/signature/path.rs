//! Paths into Kubernetes objects as people write them: `status.conditions[Ready].status`, `spec.ports[0].targetPort`,
//! `metadata.labels[app.kubernetes.io/name]`, `endpoints[*].conditions.ready`.

use serde_json::Value;

/// One step down.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    /// `[x]`: an index of a list, a key of a mapping, or the element of a list whose `type` or `name` is x.
    Bracket(String),
    All,
}

/// A path that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path(Vec<Step>);

impl Path {
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut steps = Vec::new();
        let mut rest = text;
        loop {
            if let Some(bracket) = rest.strip_prefix('[') {
                let (inside, after) = bracket.split_once(']').ok_or("a `[` is not closed")?;
                match inside {
                    "" => return Err("`[]` is empty".to_owned()),
                    "*" => steps.push(Step::All),
                    inside => steps.push(Step::Bracket(inside.to_owned())),
                }
                rest = after;
            } else {
                let end = rest.find(['.', '[']).unwrap_or(rest.len());
                let (key, after) = rest.split_at(end);
                if key.is_empty() {
                    return Err("a step is empty".to_owned());
                }
                steps.push(Step::Key(key.to_owned()));
                rest = after;
            }
            match rest.strip_prefix('.') {
                Some(after) => rest = after,
                None if rest.is_empty() => return Ok(Path(steps)),
                None if rest.starts_with('[') => {}
                None => return Err("`.` or `[` follows a `]`".to_owned()),
            }
        }
    }

    /// Every value that the path leads to; what is absent or null is none.
    pub fn find<'a>(&self, object: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![object];
        for step in &self.0 {
            found = found.into_iter().flat_map(|value| take(value, step)).collect();
        }
        found.retain(|value| !value.is_null());
        found
    }
}

fn take<'a>(value: &'a Value, step: &Step) -> Vec<&'a Value> {
    match (step, value) {
        (Step::Key(key), Value::Object(entries)) => entries.get(key).into_iter().collect(),
        (Step::Bracket(key), Value::Object(entries)) => entries.get(key).into_iter().collect(),
        (Step::Bracket(name), Value::Array(items)) => match name.parse::<usize>() {
            Ok(index) => items.get(index).into_iter().collect(),
            Err(_) => items.iter().filter(|item| item["type"] == **name || item["name"] == **name).collect(),
        },
        (Step::All, Value::Array(items)) => items.iter().collect(),
        (Step::All, Value::Object(entries)) => entries.values().collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case("status.conditions[Ready].status", json!(["True"]))]
    #[case("spec.ports[0].port", json!([80]))]
    #[case("spec.ports[https].port", json!([443]))]
    #[case("metadata.labels[app.kubernetes.io/name]", json!(["shop"]))]
    #[case("endpoints[*].addresses[*]", json!(["10.0.0.1", "10.0.0.2", "10.0.0.3"]))]
    #[case("spec.ports[7].port", json!([]))]
    #[case("spec.nothing", json!([]))]
    #[case("status.conditions.status", json!([]))]
    fn paths_lead_to_values(#[case] path: &str, #[case] expected: Value) {
        let object = json!({
            "metadata": { "labels": { "app.kubernetes.io/name": "shop" } },
            "spec": { "ports": [{ "name": "http", "port": 80 }, { "name": "https", "port": 443 }], "nothing": null },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }, { "type": "Initialized", "status": "False" }] },
            "endpoints": [{ "addresses": ["10.0.0.1", "10.0.0.2"] }, { "addresses": ["10.0.0.3"] }],
        });
        let found: Vec<Value> = Path::parse(path).unwrap().find(&object).into_iter().cloned().collect();
        assert_eq!(Value::Array(found), expected);
    }

    #[rstest]
    #[case("")]
    #[case("a..b")]
    #[case("a[0")]
    #[case("a[]")]
    #[case("a.")]
    #[case("a[0]b")]
    fn nonsense_is_refused(#[case] path: &str) {
        assert!(Path::parse(path).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-z0-9.*\\[\\]]{0,12}") {
            if let Ok(path) = Path::parse(&text) {
                path.find(&json!({ "a": [{ "b": 1 }] }));
            }
        }
    }
}
