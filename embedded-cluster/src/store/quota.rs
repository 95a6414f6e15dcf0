//! ResourceQuotas: what exceeds one is refused (admission plugin ResourceQuota), and their status tells what is used (resource quota
//! controller). On a cluster the controller counts a moment later; here both are done with the write.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::quantities::Sum;
use super::rules::{group_suffix, is_pod, resource_key};
use super::shard::ResourceKey;
use super::usage::{self, Amounts};
use super::{Fault, Reason, Resource};

/// What a quota may demand that each container says, too.
const DEMANDED: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

/// Plugin ResourceQuota: of a new object, or of one that is changed from `old`.
///
/// # Errors
/// `Forbidden` where a quota would be exceeded, or demands what the pod does not say.
pub(super) fn admit(quotas: &[Arc<Value>], resource: &Resource, old: Option<&Value>, object: &Value) -> Result<(), Fault> {
    let refuse = |why: String| {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        Fault::new(Reason::Forbidden, format!("{}{} \"{name}\" is forbidden: {why}", resource.plural, group_suffix(resource)))
    };
    for quota in quotas.iter().filter(|quota| matches_scopes(quota, resource, object)) {
        let hard = amounts(&quota["status"]["hard"]);
        let bounded: Vec<&str> = hard.keys().map(String::as_str).filter(|name| is_measured_by(name, resource)).collect();
        if bounded.is_empty() {
            continue;
        }
        let name = quota["metadata"]["name"].as_str().unwrap_or_default();
        if is_pod(resource)
            && let Some(missing) = unsaid(&bounded, object)
        {
            return Err(refuse(format!("failed quota: {name}: must specify {missing}")));
        }
        let mut asked = usage::of(resource, object);
        if let Some(old) = old.filter(|old| matches_scopes(quota, resource, old)) {
            let had = usage::of(resource, old);
            asked =
                asked.into_iter().map(|(name, amount)| (name.clone(), amount.minus(had.get(&name).copied().unwrap_or_default()))).collect();
        }
        let used = amounts(&quota["status"]["used"]);
        let of = |amounts: &Amounts, name: &str| amounts.get(name).copied().unwrap_or_default();
        let exceeded = |name: &&str| {
            let asked = of(&asked, name);
            asked.nanos > 0 && of(&used, name).plus(asked).nanos > of(&hard, name).nanos
        };
        let exceeded: Vec<&str> = bounded.into_iter().filter(exceeded).collect();
        if !exceeded.is_empty() {
            let told =
                |amounts: &Amounts| exceeded.iter().map(|name| format!("{name}={}", of(amounts, name))).collect::<Vec<_>>().join(",");
            let (asked, used, hard) = (told(&asked), told(&used), told(&hard));
            return Err(refuse(format!("exceeded quota: {name}, requested: {asked}, used: {used}, limited: {hard}")));
        }
    }
    Ok(())
}

/// The quota with its status as it is now; of what one resource uses, if only that changed. `objects` are those of the namespace.
pub(super) fn measured(quota: &Value, changed: Option<&Resource>, objects: impl Fn(&ResourceKey) -> Vec<Arc<Value>>) -> Value {
    let mut next = quota.clone();
    let hard = quota["spec"]["hard"].as_object().cloned().unwrap_or_default();
    let mut sums: BTreeMap<ResourceKey, Amounts> = BTreeMap::new();
    let mut used = Map::new();
    for name in hard.keys() {
        let Some(key) = usage::measured_by(name) else { continue };
        let known = &quota["status"]["used"][name];
        if changed.is_some_and(|changed| resource_key(changed) != key) && known.is_string() {
            used.insert(name.clone(), known.clone());
            continue;
        }
        let sum = sums.entry(key.clone()).or_insert_with(|| {
            let (group, plural) = key.clone();
            let resource = Resource { group, plural, version: String::new(), kind: String::new(), scope: super::Scope::Namespaced };
            let mut sum = Amounts::new();
            for object in objects(&key).iter().filter(|object| matches_scopes(quota, &resource, object)) {
                usage::add(&mut sum, &usage::of(&resource, object));
            }
            sum
        });
        used.insert(name.clone(), sum.get(name).copied().unwrap_or_default().to_string().into());
    }
    if !hard.is_empty() || quota["status"].is_object() {
        next["status"] = serde_json::json!({"hard": hard, "used": used});
    }
    next
}

fn is_measured_by(name: &str, resource: &Resource) -> bool {
    usage::measured_by(name).is_some_and(|key| key == resource_key(resource))
}

fn amounts(given: &Value) -> Amounts {
    given.as_object().into_iter().flatten().filter_map(|(name, amount)| Some((name.clone(), Sum::of(amount)?))).collect()
}

/// `cpu for: app,side; limits.memory for: app`: what the quota bounds and these containers do not say.
fn unsaid(bounded: &[&str], pod: &Value) -> Option<String> {
    let mut missing: BTreeMap<&str, std::collections::BTreeSet<&str>> = BTreeMap::new();
    for container in ["containers", "initContainers"].iter().flat_map(|list| pod["spec"][*list].as_array().into_iter().flatten()) {
        let said = usage::compute(&usage::of_container(container, "requests"), &usage::of_container(container, "limits"));
        for name in bounded.iter().filter(|name| DEMANDED.contains(name) && !said.contains_key(**name)) {
            missing.entry(name).or_default().insert(container["name"].as_str().unwrap_or_default());
        }
    }
    let told = missing.iter().map(|(name, containers)| {
        let containers: Vec<&str> = containers.iter().copied().collect();
        format!("{name} for: {}", containers.join(","))
    });
    (!missing.is_empty()).then(|| told.collect::<Vec<_>>().join("; "))
}

/// Whether the quota is for such an object: scopes are for pods only.
fn matches_scopes(quota: &Value, resource: &Resource, object: &Value) -> bool {
    let scopes = quota["spec"]["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let selectors = quota["spec"]["scopeSelector"]["matchExpressions"].as_array().into_iter().flatten();
    let mut named =
        scopes.map(|scope| (scope, None)).chain(selectors.map(|one| (one["scopeName"].as_str().unwrap_or_default(), Some(one))));
    named.all(|(scope, selector)| is_pod(resource) && matches_scope(scope, selector, object))
}

fn matches_scope(scope: &str, selector: Option<&Value>, pod: &Value) -> bool {
    let spec = &pod["spec"];
    let terminating = spec["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0);
    let best_effort = pod["status"]["qosClass"] == "BestEffort";
    match scope {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => best_effort,
        "NotBestEffort" => !best_effort,
        "PriorityClass" => {
            let class = spec["priorityClassName"].as_str().filter(|class| !class.is_empty());
            let Some(selector) = selector else { return class.is_some() };
            let listed = selector["values"].as_array().into_iter().flatten().any(|value| value.as_str() == class && class.is_some());
            match selector["operator"].as_str() {
                Some("In") => listed,
                Some("NotIn") => !listed,
                Some("DoesNotExist") => class.is_none(),
                _ => class.is_some(),
            }
        }
        "CrossNamespacePodAffinity" => ["podAffinity", "podAntiAffinity"].iter().any(|kind| crosses_namespaces(&spec["affinity"][*kind])),
        _ => false,
    }
}

fn crosses_namespaces(affinity: &Value) -> bool {
    let list = |field: &str| affinity[field].as_array().into_iter().flatten();
    let preferred = list("preferredDuringSchedulingIgnoredDuringExecution").map(|term| &term["podAffinityTerm"]);
    list("requiredDuringSchedulingIgnoredDuringExecution")
        .chain(preferred)
        .any(|term| term["namespaces"].as_array().is_some_and(|names| !names.is_empty()) || !term["namespaceSelector"].is_null())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Pod, ResourceQuota, Service};
    use serde_json::json;

    use super::super::{DeleteOptions, Store};
    use super::*;

    fn store(spec: Value) -> Store {
        let store = Store::default();
        create(&store, &Resource::of::<ResourceQuota>(), json!({"metadata": {"name": "q"}, "spec": spec})).expect("created");
        store
    }

    fn create(store: &Store, resource: &Resource, object: Value) -> Result<Arc<Value>, Fault> {
        store.create(resource, Some("n"), object)
    }

    fn pod(name: &str, resources: Value) -> Value {
        json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "app", "image": "a", "resources": resources}]}})
    }

    fn status(store: &Store) -> Value {
        store.get(&Resource::of::<ResourceQuota>(), Some("n"), "q").expect("there")["status"].clone()
    }

    #[test]
    fn what_exceeds_a_quota_is_refused_in_kubernetes_words() {
        let store = store(json!({"hard": {"pods": "1", "services": "1", "count/configmaps": "0"}}));
        assert_eq!(status(&store)["used"], json!({"pods": "0", "services": "0", "count/configmaps": "0"}));
        let pods = Resource::of::<Pod>();
        create(&store, &pods, pod("one", json!({}))).expect("the first");
        assert_eq!(status(&store)["used"]["pods"], "1");
        let refused = create(&store, &pods, pod("two", json!({}))).expect_err("the second").message;
        assert_eq!(refused, "pods \"two\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1");
        assert!(create(&store, &Resource::of::<ConfigMap>(), json!({"metadata": {"name": "c"}})).is_err());
        // A pod that has ended makes room, and so does one that is gone.
        let modified = store.modify(&pods, Some("n"), "one", |pod| {
            pod["status"]["phase"] = "Succeeded".into();
            Ok(())
        });
        modified.expect("modified");
        create(&store, &pods, pod("two", json!({}))).expect("there is room");
        let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
        store.delete(&pods, Some("n"), "two", &now).expect("deleted");
        assert_eq!(
            status(&store),
            json!({"hard": {"pods": "1", "services": "1", "count/configmaps": "0"}, "used": {"pods": "0", "services": "0", "count/configmaps": "0"}})
        );
    }

    #[test]
    fn requests_are_summed_and_demanded() {
        let store = store(json!({"hard": {"requests.memory": "1Gi", "limits.cpu": "2"}}));
        let pods = Resource::of::<Pod>();
        let refused = create(&store, &pods, pod("bare", json!({"limits": {"cpu": "1"}}))).expect_err("no memory").message;
        assert_eq!(refused, "pods \"bare\" is forbidden: failed quota: q: must specify requests.memory for: app");
        create(&store, &pods, pod("one", json!({"limits": {"cpu": "500m", "memory": "600Mi"}}))).expect("fits");
        assert_eq!(status(&store)["used"], json!({"requests.memory": "600Mi", "limits.cpu": "500m"}));
        let refused =
            create(&store, &pods, pod("two", json!({"limits": {"cpu": "500m", "memory": "600Mi"}}))).expect_err("too much").message;
        assert!(
            refused.ends_with("requested: requests.memory=600Mi, used: requests.memory=600Mi, limited: requests.memory=1Gi"),
            "{refused}"
        );
    }

    #[test]
    fn a_service_that_changes_its_type_is_counted_anew() {
        let store = store(json!({"hard": {"services.nodeports": "0"}}));
        let services = Resource::of::<Service>();
        create(&store, &services, json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}})).expect("no node port");
        let changed = store.modify(&services, Some("n"), "s", |service| {
            service["spec"]["type"] = "NodePort".into();
            Ok(())
        });
        let refused = changed.expect_err("one too many").message;
        assert!(refused.contains("exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=0"), "{refused}");
    }

    #[test]
    fn scopes_leave_other_pods_alone() {
        let store = store(json!({"hard": {"pods": "0"}, "scopes": ["NotBestEffort"]}));
        let pods = Resource::of::<Pod>();
        create(&store, &pods, pod("best-effort", json!({}))).expect("not of the scope");
        assert!(create(&store, &pods, pod("burstable", json!({"requests": {"cpu": "1m"}}))).is_err());
    }
}
