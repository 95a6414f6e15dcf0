//! What objects use of what ResourceQuotas bound, as `pkg/quota/v1/evaluator/core` of Kubernetes counts it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Resource;
use super::quantities::Sum;
use super::rules::{is_pod, resource_key};
use super::shard::ResourceKey;

/// By the names of resources.
pub(super) type Amounts = BTreeMap<String, Sum>;

const STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";
/// Counted by their plural alone as well as by `count/…`.
const BY_PLURAL: [&str; 4] = ["configmaps", "secrets", "replicationcontrollers", "resourcequotas"];

/// The resource whose objects use what a quota calls by this name; `None` for names that nothing is counted by.
pub(super) fn measured_by(name: &str) -> Option<ResourceKey> {
    let core = |plural: &str| Some((String::new(), plural.to_owned()));
    if let Some(counted) = name.strip_prefix("count/") {
        let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
        return Some((group.to_owned(), plural.to_owned()));
    }
    match name {
        "pods" | "cpu" | "memory" | "ephemeral-storage" => core("pods"),
        "services" | "services.loadbalancers" | "services.nodeports" => core("services"),
        "persistentvolumeclaims" | "requests.storage" => core("persistentvolumeclaims"),
        _ if name.contains(STORAGE_CLASS) => core("persistentvolumeclaims"),
        _ if BY_PLURAL.contains(&name) => core(name),
        _ if ["requests.", "limits.", "hugepages-"].iter().any(|prefix| name.starts_with(prefix)) => core("pods"),
        _ => None,
    }
}

pub(super) fn of(resource: &Resource, object: &Value) -> Amounts {
    let one = Sum::count(1);
    let (group, plural) = resource_key(resource);
    let counted = if group.is_empty() { format!("count/{plural}") } else { format!("count/{plural}.{group}") };
    let mut amounts = Amounts::from([(counted, one)]);
    if is_pod(resource) {
        if !is_over(object) {
            amounts.extend(compute(&total(&object["spec"], "requests"), &total(&object["spec"], "limits")));
        }
        return amounts;
    }
    match (group.as_str(), plural.as_str()) {
        ("", "services") => {
            amounts.insert("services".to_owned(), one);
            let (balancers, node_ports) = service_ports(&object["spec"]);
            amounts.insert("services.loadbalancers".to_owned(), Sum::count(balancers));
            amounts.insert("services.nodeports".to_owned(), Sum::count(node_ports));
        }
        ("", "persistentvolumeclaims") => {
            let requested = Sum::of(&object["spec"]["resources"]["requests"]["storage"]).unwrap_or_default();
            let class = object["spec"]["storageClassName"].as_str().filter(|class| !class.is_empty());
            for prefix in [Some(String::new()), class.map(|class| format!("{class}{STORAGE_CLASS}"))].into_iter().flatten() {
                amounts.insert(format!("{prefix}persistentvolumeclaims"), one);
                amounts.insert(format!("{prefix}requests.storage"), requested);
            }
        }
        ("", plural) if BY_PLURAL.contains(&plural) => drop(amounts.insert(plural.to_owned(), one)),
        _ => {}
    }
    amounts
}

/// `QuotaV1Pod`: pods that have ended, or should have long ago, count as objects only.
fn is_over(pod: &Value) -> bool {
    if matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
        return true;
    }
    let metadata = &pod["metadata"];
    let ends = metadata["deletionTimestamp"].as_str().and_then(|time| time.parse::<jiff::Timestamp>().ok());
    let grace = metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or_default();
    ends.is_some_and(|ends| jiff::Timestamp::now().as_second() > ends.as_second().saturating_add(grace))
}

/// `podComputeUsageHelper`, of a pod or of one container.
pub(super) fn compute(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut amounts = Amounts::from([("pods".to_owned(), Sum::count(1))]);
    for (name, amount) in requests {
        let native = ["cpu", "memory", "ephemeral-storage"].contains(&name.as_str()) || name.starts_with("hugepages-");
        if native {
            amounts.insert(name.clone(), *amount);
        }
        if native || name.contains('/') {
            amounts.insert(format!("requests.{name}"), *amount);
        }
    }
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(amount) = limits.get(name) {
            amounts.insert(format!("limits.{name}"), *amount);
        }
    }
    amounts
}

/// `requests` or `limits` of all containers, as the scheduler counts them: those of init containers only as far as they are more
/// than what runs after them; sidecars run with either.
pub(super) fn total(spec: &Value, list: &str) -> Amounts {
    let containers = |field: &str| spec[field].as_array().into_iter().flatten();
    let (mut total, mut sidecars, mut most) = (Amounts::new(), Amounts::new(), Amounts::new());
    for container in containers("containers") {
        add(&mut total, &of_container(container, list));
    }
    for container in containers("initContainers") {
        let own = of_container(container, list);
        let mut running = sidecars.clone();
        add(&mut running, &own);
        if container["restartPolicy"] == "Always" {
            add(&mut total, &own);
            sidecars = running.clone();
        }
        raise(&mut most, &running);
    }
    raise(&mut total, &most);
    total
}

pub(super) fn of_container(container: &Value, list: &str) -> Amounts {
    let given = container["resources"][list].as_object().into_iter().flatten();
    given.filter_map(|(name, amount)| Some((name.clone(), Sum::of(amount)?))).collect()
}

pub(super) fn add(to: &mut Amounts, amounts: &Amounts) {
    for (name, amount) in amounts {
        let sum = to.entry(name.clone()).or_default();
        *sum = sum.plus(*amount);
    }
}

fn raise(to: &mut Amounts, amounts: &Amounts) {
    for (name, amount) in amounts {
        let known = to.entry(name.clone()).or_insert(*amount);
        if amount.nanos > known.nanos {
            *known = *amount;
        }
    }
}

/// How many load balancers and node ports a Service asks for.
fn service_ports(spec: &Value) -> (usize, usize) {
    let ports = || spec["ports"].as_array().into_iter().flatten();
    match spec["type"].as_str() {
        Some("NodePort") => (0, ports().count()),
        Some("LoadBalancer") if spec["allocateLoadBalancerNodePorts"] == false => {
            (1, ports().filter(|port| port["nodePort"].as_i64().is_some_and(|port| port != 0)).count())
        }
        Some("LoadBalancer") => (1, ports().count()),
        _ => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_init_container_counts_where_it_asks_for_more() {
        let of = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = of("100m");
        sidecar["restartPolicy"] = "Always".into();
        let spec = json!({"containers": [of("200m"), of("300m")], "initContainers": [sidecar, of("450m"), of("900m")]});
        assert_eq!(total(&spec, "requests")["cpu"].to_string(), "1", "the sidecar and the largest init container");
        let spec = json!({"containers": [of("2")], "initContainers": [of("900m")]});
        assert_eq!(total(&spec, "requests")["cpu"].to_string(), "2");
    }

    #[test]
    fn a_pod_that_ended_is_an_object_and_no_more() {
        let resource = Resource::of::<Pod>();
        let mut pod = json!({"spec": {"containers": [{"resources": {"limits": {"memory": "1Gi"}}}]}, "status": {"phase": "Running"}});
        let names = |pod: &Value| of(&resource, pod).into_keys().collect::<Vec<_>>();
        assert_eq!(names(&pod), ["count/pods", "limits.memory", "pods"]);
        pod["status"]["phase"] = "Succeeded".into();
        assert_eq!(names(&pod), ["count/pods"]);
        for name in names(&json!({})) {
            assert_eq!(measured_by(&name), Some(resource_key(&resource)), "{name}");
        }
    }
}
