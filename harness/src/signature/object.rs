//! Kubernetes objects against what a scenario says of them.

use serde_json::Value;

use super::client::of;
use super::expectation::{Item, Items};
use super::path::Path;
use crate::scenario::Bound;
use crate::scenario::expect::{ObjectExpectation, Selection};

/// Kinds that live in no namespace.
pub const CLUSTER_SCOPED: &[&str] = &[
    "Node",
    "Namespace",
    "IngressClass",
    "PersistentVolume",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "StorageClass",
    "PriorityClass",
    "RuntimeClass",
    "GatewayClass",
];

/// Matches one expectation against the objects of a phase; also used to wait for one to come true.
pub fn evaluate(index: usize, expected: &ObjectExpectation, objects: &[&Value], namespace: &str) -> Item {
    let mut items = Items::under(format!("kubernetes[{index}]"));
    let selected = select(expected, objects, namespace);
    let wanted = describe(expected);
    if expected.path.is_none() {
        let bound = expected.count.unwrap_or(Bound::SOME);
        items.add("", bound.holds(selected.len(), selected.len()), wanted, format!("{} such objects", selected.len()));
        return items.into_vec().remove(0);
    }
    let path = expected.path.as_deref().map(Path::parse);
    let Some(Ok(path)) = path else {
        items.add("", false, wanted, "the path cannot be read".to_owned());
        return items.into_vec().remove(0);
    };
    let holding = selected.iter().filter(|object| holds(expected, &path.find(object))).count();
    let bound = expected.holds_for.unwrap_or(Bound::All);
    let seen: Vec<String> = selected.iter().take(4).map(|object| format!("{}: {}", name_of(object), values(&path.find(object)))).collect();
    let observed = if seen.is_empty() {
        "there is no such object".to_owned()
    } else {
        format!("holds for {}; {}", of(holding, selected.len()), seen.join("; "))
    };
    items.add("", bound.holds(holding, selected.len()), wanted, observed);
    items.into_vec().remove(0)
}

/// The objects that are meant.
pub fn select<'a>(expected: &ObjectExpectation, objects: &[&'a Value], namespace: &str) -> Vec<&'a Value> {
    let wanted = expected.object.namespace.as_deref().or(expected.namespace.as_deref()).unwrap_or(namespace);
    let scoped = !CLUSTER_SCOPED.contains(&expected.object.kind.as_str());
    objects
        .iter()
        .copied()
        .filter(|object| object["kind"] == *expected.object.kind)
        .filter(|object| !scoped || object["metadata"]["namespace"] == *wanted)
        .filter(|object| expected.object.name.as_ref().is_none_or(|name| object["metadata"]["name"] == **name))
        .filter(|object| expected.selects.as_ref().is_none_or(|selection| belongs(object, selection, objects, wanted)))
        .collect()
}

fn belongs(object: &Value, selection: &Selection, objects: &[&Value], namespace: &str) -> bool {
    let labels = &object["metadata"]["labels"];
    let labelled = selection.labels.iter().all(|(key, value)| labels[key.as_str()] == **value);
    let of_service = selection.service.as_ref().is_none_or(|service| match object["kind"].as_str() {
        Some("EndpointSlice") => labels["kubernetes.io/service-name"] == **service,
        Some("Endpoints") => object["metadata"]["name"] == **service,
        _ => objects
            .iter()
            .find(|other| {
                other["kind"] == "Service" && other["metadata"]["name"] == **service && other["metadata"]["namespace"] == *namespace
            })
            .and_then(|service| service["spec"]["selector"].as_object())
            .is_some_and(|selector| !selector.is_empty() && selector.iter().all(|(key, value)| &labels[key.as_str()] == value)),
    });
    let has = |path: &str, wanted: &str| Path::parse(path).is_ok_and(|path| path.find(object).iter().any(|value| text_of(value) == wanted));
    labelled && of_service && selection.fields.iter().all(|(path, wanted)| has(path, &wanted.value))
}

/// As a person would write the value.
fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

fn holds(expected: &ObjectExpectation, found: &[&Value]) -> bool {
    expected.equals.as_ref().is_none_or(|wanted| !found.is_empty() && found.iter().all(|value| *value == wanted))
        && expected.not_equals.as_ref().is_none_or(|unwanted| found.iter().all(|value| *value != unwanted))
        && expected.text.as_ref().is_none_or(|wanted| found.iter().any(|value| wanted.matches(&text_of(value))))
        && match expected.count {
            Some(bound) => bound.holds(found.len(), found.len()),
            // A path alone says that there is something there.
            None => expected.equals.is_some() || expected.not_equals.is_some() || expected.text.is_some() || !found.is_empty(),
        }
}

fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or("?")
}

fn values(found: &[&Value]) -> String {
    match found {
        [] => "absent".to_owned(),
        found => found.iter().take(6).map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn describe(expected: &ObjectExpectation) -> String {
    let mut text = expected.object.to_string();
    if let Some(selection) = &expected.selects {
        if let Some(service) = &selection.service {
            text.push_str(&format!(" of Service {service}"));
        }
        for (key, value) in &selection.labels {
            text.push_str(&format!(" {key}={value}"));
        }
        for (path, value) in &selection.fields {
            text.push_str(&format!(" {path}={}", value.value));
        }
    }
    if let Some(path) = &expected.path {
        text.push_str(&format!(": {path}"));
    }
    if let Some(wanted) = &expected.equals {
        text.push_str(&format!(" = {wanted}"));
    }
    if let Some(unwanted) = &expected.not_equals {
        text.push_str(&format!(" ≠ {unwanted}"));
    }
    if let Some(wanted) = &expected.text {
        text.push_str(&format!(" {wanted}"));
    }
    if let Some(bound) = &expected.count {
        text.push_str(&format!(", count {bound}"));
    }
    if let Some(bound) = &expected.holds_for {
        text.push_str(&format!(", for {bound}"));
    }
    text
}
