//! HorizontalPodAutoscalers of `autoscaling/v1` and of `autoscaling/v2`, in which they are stored.
//!
//! `v1` knows one metric, the processor's. kube-apiserver keeps everything else in annotations, in the words of the older beta
//! versions, so that nothing is lost by a round trip (`pkg/apis/autoscaling/v1/conversion.go` in Kubernetes).

use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";

/// A stored object as `autoscaling/v1` shows it.
pub(super) fn to_v1(stored: &Value) -> Value {
    let mut object = stored.clone();
    object["apiVersion"] = "autoscaling/v1".into();
    let mut notes = Vec::new();
    if let Some(spec) = object["spec"].as_object_mut() {
        if let Some((percent, others)) = split(spec.remove("metrics"), "target") {
            put(spec, "targetCPUUtilizationPercentage", percent);
            notes.push((METRICS, others));
        }
        notes.push((BEHAVIOR, spec.remove("behavior").filter(Value::is_object)));
    }
    if let Some(status) = object["status"].as_object_mut() {
        if let Some((percent, others)) = split(status.remove("currentMetrics"), "current") {
            put(status, "currentCPUUtilizationPercentage", percent);
            notes.push((CURRENT_METRICS, others));
        }
        notes.push((CONDITIONS, status.remove("conditions").filter(Value::is_array)));
        status.entry("currentReplicas").or_insert_with(|| 0.into());
    }
    for (name, value) in notes {
        if let Some(value) = value {
            object["metadata"]["annotations"][name] = value.to_string().into();
        }
    }
    object
}

/// What a client wrote to `autoscaling/v1`, as it is stored. Annotations that cannot be read are dropped; kube-apiserver refuses them.
pub(super) fn from_v1(mut object: Value) -> Value {
    object["apiVersion"] = "autoscaling/v2".into();
    let mut noted = |name: &str| {
        let metadata = object.get_mut("metadata")?.as_object_mut()?;
        let annotations = metadata.get_mut("annotations")?.as_object_mut()?;
        let text = annotations.remove(name)?;
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
        serde_json::from_str::<Value>(text.as_str()?).ok()
    };
    let (metrics, behavior) = (noted(METRICS), noted(BEHAVIOR));
    let (current, conditions) = (noted(CURRENT_METRICS), noted(CONDITIONS));
    if let Some(spec) = object["spec"].as_object_mut() {
        let metrics = join(spec.remove("targetCPUUtilizationPercentage"), metrics, "target");
        put(spec, "metrics", metrics);
        put(spec, "behavior", behavior);
    }
    if let Some(status) = object["status"].as_object_mut() {
        let metrics = join(status.remove("currentCPUUtilizationPercentage"), current, "current");
        put(status, "currentMetrics", metrics);
        put(status, "conditions", conditions);
    }
    object
}

fn put(map: &mut Map<String, Value>, field: &str, value: Option<Value>) {
    if let Some(value) = value {
        map.insert(field.to_owned(), value);
    }
}

/// The processor's percentage, and the other metrics in the older words. `side` is `target` or `current`. `None`: there are none.
fn split(metrics: Option<Value>, side: &str) -> Option<(Option<Value>, Option<Value>)> {
    let mut percent = None;
    let mut others = Vec::new();
    for metric in metrics?.as_array()? {
        let resource = &metric["resource"];
        let used = &resource[side]["averageUtilization"];
        if metric["type"] == "Resource" && resource["name"] == "cpu" && used.is_number() && percent.is_none() {
            percent = Some(used.clone());
        } else {
            others.push(to_old(metric, side));
        }
    }
    let others = (!others.is_empty()).then_some(Value::Array(others));
    Some((percent, others))
}

fn join(percent: Option<Value>, others: Option<Value>, side: &str) -> Option<Value> {
    let percent = percent.filter(Value::is_number).map(|percent| {
        let mut values = json!({"averageUtilization": percent});
        if side == "target" {
            values["type"] = "Utilization".into();
        }
        json!({"type": "Resource", "resource": {"name": "cpu", side: values}})
    });
    let others = others.as_ref().and_then(Value::as_array).into_iter().flatten().map(|metric| from_old(metric, side));
    let metrics: Vec<Value> = percent.into_iter().chain(others).collect();
    (!metrics.is_empty()).then_some(Value::Array(metrics))
}

/// `ContainerResource` is kept in `containerResource`.
fn source(metric: &Value) -> Option<String> {
    let kind = metric["type"].as_str()?;
    let (first, rest) = kind.split_at_checked(1)?;
    Some(format!("{}{rest}", first.to_lowercase()))
}

/// Fields of one kind of metric that have other names in the older words: those, and the ones of `v2`.
fn names(source: &str, side: &str) -> Vec<(String, &'static [&'static str])> {
    let value = |name: &str| format!("{side}{name}");
    match source {
        "resource" | "containerResource" => vec![
            ("name".to_owned(), &["name"]),
            ("container".to_owned(), &["container"]),
            (value("AverageUtilization"), &["", "averageUtilization"]),
            (value("AverageValue"), &["", "averageValue"]),
        ],
        "pods" => vec![
            ("metricName".to_owned(), &["metric", "name"]),
            ("selector".to_owned(), &["metric", "selector"]),
            (value("AverageValue"), &["", "averageValue"]),
        ],
        "object" => vec![
            ("target".to_owned(), &["describedObject"]),
            ("metricName".to_owned(), &["metric", "name"]),
            ("selector".to_owned(), &["metric", "selector"]),
            (value("Value"), &["", "value"]),
            ("averageValue".to_owned(), &["", "averageValue"]),
        ],
        "external" => vec![
            ("metricName".to_owned(), &["metric", "name"]),
            ("metricSelector".to_owned(), &["metric", "selector"]),
            (value("Value"), &["", "value"]),
            (value("AverageValue"), &["", "averageValue"]),
        ],
        _ => Vec::new(),
    }
}

/// The part of a path that is named after the side.
fn along<'a>(path: &'a [&'a str], side: &'a str) -> impl Iterator<Item = &'a str> {
    path.iter().map(move |part| if part.is_empty() { side } else { part })
}

fn to_old(metric: &Value, side: &str) -> Value {
    let Some(source) = source(metric) else { return metric.clone() };
    let mut old = Map::new();
    for (name, path) in names(&source, side) {
        let value = along(path, side).fold(&metric[&source], |value, part| &value[part]);
        if !value.is_null() {
            old.insert(name, value.clone());
        }
    }
    json!({"type": metric["type"], source: old})
}

fn from_old(metric: &Value, side: &str) -> Value {
    let Some(source) = source(metric) else { return metric.clone() };
    let mut new = json!({});
    for (name, path) in names(&source, side) {
        let value = &metric[&source][&name];
        if !value.is_null() {
            *along(path, side).fold(&mut new, |value, part| &mut value[part]) = value.clone();
        }
    }
    if side == "target" {
        let values = &mut new["target"];
        let kind = [("averageUtilization", "Utilization"), ("averageValue", "AverageValue")]
            .into_iter()
            .find(|(field, _)| !values[field].is_null());
        values["type"] = kind.map_or("Value", |(_, kind)| kind).into();
    }
    json!({"type": metric["type"], source: new})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> Value {
        json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "shop"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"}, "minReplicas": 1, "maxReplicas": 4,
                "metrics": [
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}},
                    {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "64Mi"}}},
                    {"type": "Pods", "pods": {"metric": {"name": "rps", "selector": {"matchLabels": {"a": "b"}}},
                                              "target": {"type": "AverageValue", "averageValue": "10"}}},
                    {"type": "Object", "object": {"describedObject": {"kind": "Ingress", "name": "shop"}, "metric": {"name": "rps"},
                                                  "target": {"type": "Value", "value": "2k"}}},
                    {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "shop",
                                                  "target": {"type": "Utilization", "averageUtilization": 60}}},
                ],
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}},
            },
            "status": {"currentReplicas": 1, "desiredReplicas": 1, "currentMetrics": [
                {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 12}}}],
                "conditions": [{"type": "AbleToScale", "status": "True"}]},
        })
    }

    #[test]
    fn version_1_has_the_processor_as_a_field_and_the_rest_in_annotations() {
        let shown = to_v1(&stored());
        assert_eq!(
            shown["spec"],
            json!({
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"}, "minReplicas": 1, "maxReplicas": 4,
                "targetCPUUtilizationPercentage": 70,
            })
        );
        assert_eq!(shown["status"], json!({"currentReplicas": 1, "desiredReplicas": 1, "currentCPUUtilizationPercentage": 12}));
        let metrics: Value = serde_json::from_str(shown["metadata"]["annotations"][METRICS].as_str().unwrap()).unwrap();
        assert_eq!(metrics[0], json!({"type": "Resource", "resource": {"name": "memory", "targetAverageValue": "64Mi"}}));
        assert_eq!(metrics[2]["object"], json!({"target": {"kind": "Ingress", "name": "shop"}, "metricName": "rps", "targetValue": "2k"}));
    }

    #[test]
    fn nothing_is_lost_there_and_back() {
        assert_eq!(from_v1(to_v1(&stored())), stored());
    }

    #[test]
    fn what_kubectl_autoscale_writes_becomes_a_metric() {
        let written = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "shop"},
            "spec": {"maxReplicas": 4, "targetCPUUtilizationPercentage": 70}});
        let stored = from_v1(written);
        assert_eq!(stored["apiVersion"], "autoscaling/v2");
        assert_eq!(stored["metadata"], json!({"name": "shop"}));
        assert_eq!(
            stored["spec"]["metrics"],
            json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}])
        );
        assert_eq!(stored["spec"].get("targetCPUUtilizationPercentage"), None);
    }
}
