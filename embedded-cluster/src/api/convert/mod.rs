//! Between the form that objects are stored in and the one that a resource shows.

mod autoscaler;

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::kinds::Kind;

/// Fields of core Events and what `events.k8s.io` calls them.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn is_new_event(kind: &Kind) -> bool {
    kind.resource.group == "events.k8s.io"
}

fn is_old_autoscaler(kind: &Kind) -> bool {
    kind.is("autoscaling", "horizontalpodautoscalers") && kind.resource.version == "v1"
}

/// A stored object as its resource shows it.
pub(crate) fn outgoing(kind: &Kind, stored: &Arc<Value>) -> Arc<Value> {
    if is_new_event(kind) {
        let mut event = rename(stored, |(stored, shown)| (stored, shown));
        event["apiVersion"] = "events.k8s.io/v1".into();
        return Arc::new(event);
    }
    if is_old_autoscaler(kind) {
        return Arc::new(autoscaler::to_v1(stored));
    }
    // Versions of a custom resource share their objects; conversion is by relabelling (strategy None).
    if kind.custom.is_some() && stored["apiVersion"] != kind.resource.api_version().as_str() {
        let mut object = (**stored).clone();
        object["apiVersion"] = kind.resource.api_version().into();
        return Arc::new(object);
    }
    stored.clone()
}

/// An object as a client wrote it, in its stored form.
pub(crate) fn incoming(kind: &Kind, object: Value) -> Value {
    if is_new_event(kind) {
        let mut event = rename(&object, |(stored, shown)| (shown, stored));
        event["apiVersion"] = "v1".into();
        if let Some(instance) = event.as_object_mut().and_then(|map| map.remove("reportingInstance")) {
            event["reportingInstance"] = instance;
        }
        return event;
    }
    if is_old_autoscaler(kind) { autoscaler::from_v1(object) } else { object }
}

fn rename(event: &Value, direction: fn((&'static str, &'static str)) -> (&'static str, &'static str)) -> Value {
    let fields = event.as_object().into_iter().flatten().map(|(name, value)| {
        let renamed = EVENT_FIELDS.map(direction).into_iter().find(|(from, _)| from == name).map_or(name.as_str(), |(_, to)| to);
        (renamed.to_owned(), value.clone())
    });
    Value::Object(fields.collect::<Map<_, _>>())
}

pub(crate) fn metadata_only(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}
