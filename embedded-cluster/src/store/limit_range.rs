//! LimitRanges: what containers do not say is filled in, and what is out of their bounds refused (admission plugin LimitRanger).

use std::sync::Arc;

use serde_json::{Value, json};

use super::quantities::Sum;
use super::rules::{group_suffix, is_claim};
use super::usage::{self, Amounts};
use super::{Fault, Reason, Resource, defaults};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// Of a new pod or claim.
///
/// # Errors
/// `Forbidden` with all that is out of bounds.
pub(super) fn admit(ranges: &[Arc<Value>], resource: &Resource, object: &mut Value) -> Result<(), Fault> {
    let claim = is_claim(resource);
    for range in ranges.iter().filter(|_| !claim) {
        fill_in(range, resource, object);
    }
    for range in ranges {
        let wrong = if claim { of_claim(range, object) } else { of_pod(range, object) };
        let wrong = match wrong.as_slice() {
            [] => continue,
            [one] => one.clone(),
            // As `utilerrors.NewAggregate` tells several, each once.
            several => format!("[{}]", several.join(", ")),
        };
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        return Err(Fault::new(
            Reason::Forbidden,
            format!("{}{} \"{name}\" is forbidden: {wrong}", resource.plural, group_suffix(resource)),
        ));
    }
    Ok(())
}

fn limits<'a>(range: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    range["spec"]["limits"].as_array().into_iter().flatten().filter(move |limit| limit["type"] == kind)
}

fn fill_in(range: &Value, resource: &Resource, pod: &mut Value) {
    let mut told = Vec::new();
    for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
        let containers = pod.get_mut("spec").and_then(|spec| spec.get_mut(list)).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter(|container| container.is_object()) {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            for (field, of, default) in [("requests", "request", "defaultRequest"), ("limits", "limit", "default")] {
                let mut set = Vec::new();
                for (key, amount) in limits(range, "Container").flat_map(|limit| limit[default].as_object().into_iter().flatten()) {
                    if container["resources"][field].get(key).is_none() {
                        container["resources"][field][key] = amount.clone();
                        set.push(key.as_str());
                    }
                }
                if !set.is_empty() {
                    set.sort_unstable();
                    told.push(format!("{} {of} for {what} {name}", set.join(", ")));
                }
            }
        }
    }
    if !told.is_empty() {
        pod["metadata"]["annotations"][ANNOTATION] = format!("LimitRanger plugin set: {}", told.join("; ")).into();
        // The class follows from them.
        if let Some(status) = pod["status"].as_object_mut() {
            status.remove("qosClass");
        }
        defaults::apply(resource, pod);
    }
}

fn of_pod(range: &Value, pod: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    for limit in range["spec"]["limits"].as_array().into_iter().flatten() {
        match limit["type"].as_str() {
            Some("Container") => {
                for container in
                    ["containers", "initContainers"].iter().flat_map(|list| pod["spec"][*list].as_array().into_iter().flatten())
                {
                    let (requests, limits) = (usage::of_container(container, "requests"), usage::of_container(container, "limits"));
                    check(limit, "Container", &requests, &limits, &mut wrong);
                }
            }
            Some("Pod") => {
                check(limit, "Pod", &usage::total(&pod["spec"], "requests"), &usage::total(&pod["spec"], "limits"), &mut wrong);
            }
            _ => {}
        }
    }
    wrong
}

fn of_claim(range: &Value, claim: &Value) -> Vec<String> {
    const KIND: &str = "PersistentVolumeClaim";
    let requests = usage::of_container(&claim["spec"], "requests");
    let mut wrong = Vec::new();
    for limit in limits(range, KIND) {
        check(&json!({"min": limit["min"]}), KIND, &requests, &Amounts::new(), &mut wrong);
        for (name, most) in bounds(limit, "max") {
            match requests.get(name) {
                None => wrong.push(format!("maximum {name} usage per {KIND} is {most}.  No request is specified")),
                Some(request) if request.nanos > most.nanos => {
                    wrong.push(format!("maximum {name} usage per {KIND} is {most}, but request is {request}"));
                }
                Some(_) => {}
            }
        }
    }
    wrong
}

fn bounds<'a>(limit: &'a Value, field: &str) -> impl Iterator<Item = (&'a str, Sum)> {
    limit[field].as_object().into_iter().flatten().filter_map(|(name, amount)| Some((name.as_str(), Sum::of(amount)?)))
}

/// `minConstraint`, `maxConstraint` and `limitRequestRatioConstraint`.
fn check(limit: &Value, kind: &str, requests: &Amounts, limits: &Amounts, wrong: &mut Vec<String>) {
    let mut say = |words: String| {
        if !wrong.contains(&words) {
            wrong.push(words);
        }
    };
    for (name, least) in bounds(limit, "min") {
        let told = format!("minimum {name} usage per {kind} is {least}");
        match (requests.get(name), limits.get(name)) {
            (None, _) => say(format!("{told}.  No request is specified")),
            (Some(request), _) if request.nanos < least.nanos => say(format!("{told}, but request is {request}")),
            (_, Some(limit)) if limit.nanos < least.nanos => say(format!("{told}, but limit is {limit}")),
            _ => {}
        }
    }
    for (name, most) in bounds(limit, "max") {
        let told = format!("maximum {name} usage per {kind} is {most}");
        match (limits.get(name), requests.get(name)) {
            (None, _) => say(format!("{told}.  No limit is specified")),
            (Some(limit), _) if limit.nanos > most.nanos => say(format!("{told}, but limit is {limit}")),
            (_, Some(request)) if request.nanos > most.nanos => say(format!("{told}, but request is {request}")),
            _ => {}
        }
    }
    for (name, most) in bounds(limit, "maxLimitRequestRatio") {
        let told = format!("{name} max limit to request ratio per {kind} is {most}");
        let given = |amounts: &Amounts| amounts.get(name).map(|amount| amount.nanos).filter(|nanos| *nanos != 0);
        match (given(requests), given(limits)) {
            (None, _) => say(format!("{told}, but no request is specified or request is 0")),
            (_, None) => say(format!("{told}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                #[expect(clippy::cast_precision_loss, reason = "Kubernetes compares floating-point numbers, too")]
                let (ratio, most) = (limit as f64 / request as f64, most.nanos as f64 / 1e9);
                if ratio > most {
                    say(format!("{told}, but provided ratio is {ratio:.6}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{LimitRange, PersistentVolumeClaim, Pod};

    use super::super::Store;
    use super::*;

    fn create(limit: Value, resource: &Resource, object: Value) -> Result<Arc<Value>, Fault> {
        let store = Store::default();
        let range = json!({"metadata": {"name": "r"}, "spec": {"limits": [limit]}});
        store.create(&Resource::of::<LimitRange>(), Some("n"), range).expect("created");
        store.create(resource, Some("n"), object)
    }

    fn pod(resources: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "app", "image": "a", "resources": resources}]}})
    }

    #[test]
    fn what_is_not_said_is_filled_in_and_told() {
        let limit = json!({"type": "Container", "default": {"cpu": "500m", "memory": "64Mi"}, "defaultRequest": {"cpu": "100m"}});
        let made = create(limit, &Resource::of::<Pod>(), pod(json!({"limits": {"memory": "32Mi"}}))).expect("admitted");
        let resources = &made["spec"]["containers"][0]["resources"];
        assert_eq!(resources["limits"], json!({"memory": "32Mi", "cpu": "500m"}));
        assert_eq!(resources["requests"], json!({"memory": "32Mi", "cpu": "100m"}));
        assert_eq!(made["status"]["qosClass"], "Burstable");
        let told = "LimitRanger plugin set: cpu request for container app; cpu limit for container app";
        assert_eq!(made["metadata"]["annotations"][ANNOTATION], told);
    }

    #[test]
    fn the_maximum_is_the_default() {
        let made = create(json!({"type": "Container", "max": {"cpu": "1"}}), &Resource::of::<Pod>(), pod(json!({}))).expect("admitted");
        let resources = &made["spec"]["containers"][0]["resources"];
        assert_eq!((&resources["limits"]["cpu"], &resources["requests"]["cpu"]), (&json!("1"), &json!("1")));
    }

    #[rstest::rstest]
    #[case(json!({"type": "Container", "max": {"memory": "1Gi"}}), json!({"limits": {"memory": "2Gi"}}), "maximum memory usage per Container is 1Gi, but limit is 2Gi")]
    #[case(json!({"type": "Pod", "max": {"cpu": "1"}}), json!({"requests": {"cpu": "1"}}), "maximum cpu usage per Pod is 1.  No limit is specified")]
    #[case(json!({"type": "Pod", "min": {"cpu": "100m"}}), json!({"requests": {"cpu": "50m"}}), "minimum cpu usage per Pod is 100m, but request is 50m")]
    #[case(
        json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}), json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "300m"}}),
        "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000"
    )]
    fn what_is_out_of_bounds_is_refused(#[case] limit: Value, #[case] resources: Value, #[case] words: &str) {
        let refused = create(limit, &Resource::of::<Pod>(), pod(resources)).expect_err("refused").message;
        assert_eq!(refused, format!("pods \"p\" is forbidden: {words}"));
    }

    #[test]
    fn a_claim_is_bounded_by_what_it_requests() {
        let limit = json!({"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}});
        let claim = json!({"metadata": {"name": "c"}, "spec": {"resources": {"requests": {"storage": "2Gi"}}}});
        let refused = create(limit, &Resource::of::<PersistentVolumeClaim>(), claim).expect_err("refused").message;
        assert_eq!(
            refused,
            "persistentvolumeclaims \"c\" is forbidden: maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi"
        );
    }
}
