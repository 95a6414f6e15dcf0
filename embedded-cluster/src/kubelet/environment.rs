//! A container's environment variables and the references to them in its command line.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, ObjectFieldSelector, Pod, ResourceFieldSelector, Service};

use super::node::Kubelet;
use super::quantity;

/// Why a container cannot be configured: the kubelet's waiting reason is `CreateContainerConfigError`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct ConfigError(pub(super) String);

/// Everything the container gets, in the order in which later entries win: Services, `envFrom`, `env`.
pub(super) fn environment(kubelet: &Kubelet, pod: &Pod, container: &Container, pod_ip: &str) -> Result<Vec<(String, String)>, ConfigError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let links = pod.spec.as_ref().and_then(|s| s.enable_service_links).unwrap_or(true);
    let mut environment = service_variables(&kubelet.services.list(None), namespace, links);
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            match kubelet.config_maps.get(namespace, &reference.name) {
                Some(map) => environment.extend(map.data.iter().flatten().map(|(k, v)| (format!("{prefix}{k}"), v.clone()))),
                None if reference.optional == Some(true) => {}
                None => return Err(ConfigError(format!("configmap \"{}\" not found", reference.name))),
            }
        }
        if let Some(reference) = &source.secret_ref {
            match kubelet.secrets.get(namespace, &reference.name) {
                Some(secret) => {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    environment.extend(secret.data.iter().flatten().map(|(k, v)| (format!("{prefix}{k}"), text(&v.0))));
                }
                None if reference.optional == Some(true) => {}
                None => return Err(ConfigError(format!("secret \"{}\" not found", reference.name))),
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            Some(source) => referenced(kubelet, pod, container, source, pod_ip)?,
            None => Some(expand(variable.value.as_deref().unwrap_or_default(), &environment)),
        };
        if let Some(value) = value {
            environment.insert(variable.name.clone(), value);
        }
    }
    Ok(environment.into_iter().collect())
}

fn referenced(
    kubelet: &Kubelet,
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    pod_ip: &str,
) -> Result<Option<String>, ConfigError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(reference) = &source.config_map_key_ref {
        let optional = reference.optional == Some(true);
        let Some(map) = kubelet.config_maps.get(namespace, &reference.name) else {
            return if optional { Ok(None) } else { Err(ConfigError(format!("configmap \"{}\" not found", reference.name))) };
        };
        return match map.data.as_ref().and_then(|data| data.get(&reference.key)) {
            Some(value) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => Err(ConfigError(format!("couldn't find key {} in ConfigMap {namespace}/{}", reference.key, reference.name))),
        };
    }
    if let Some(reference) = &source.secret_key_ref {
        let optional = reference.optional == Some(true);
        let Some(secret) = kubelet.secrets.get(namespace, &reference.name) else {
            return if optional { Ok(None) } else { Err(ConfigError(format!("secret \"{}\" not found", reference.name))) };
        };
        return match secret.data.as_ref().and_then(|data| data.get(&reference.key)) {
            Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
            None if optional => Ok(None),
            None => Err(ConfigError(format!("couldn't find key {} in Secret {namespace}/{}", reference.key, reference.name))),
        };
    }
    if let Some(reference) = &source.field_ref {
        return field(kubelet, pod, reference, pod_ip).map(Some);
    }
    if let Some(reference) = &source.resource_field_ref {
        return resource(pod, container, reference).map(Some);
    }
    Ok(None)
}

/// The downward API's fields (`fieldRef`), for variables and volumes.
pub(super) fn field(kubelet: &Kubelet, pod: &Pod, reference: &ObjectFieldSelector, pod_ip: &str) -> Result<String, ConfigError> {
    let spec = pod.spec.clone().unwrap_or_default();
    let metadata = &pod.metadata;
    let path = reference.field_path.as_str();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        let labels = if map == "metadata.labels" { metadata.labels.as_ref() } else { metadata.annotations.as_ref() };
        return Ok(labels.and_then(|l| l.get(key)).cloned().unwrap_or_default());
    }
    let listed = |map: Option<&BTreeMap<String, String>>| {
        let lines: Vec<String> = map.into_iter().flatten().map(|(k, v)| format!("{k}={v:?}")).collect();
        lines.join("\n")
    };
    Ok(match path {
        "metadata.name" => metadata.name.clone().unwrap_or_default(),
        "metadata.namespace" => metadata.namespace.clone().unwrap_or_default(),
        "metadata.uid" => metadata.uid.clone().unwrap_or_default(),
        "metadata.labels" => listed(metadata.labels.as_ref()),
        "metadata.annotations" => listed(metadata.annotations.as_ref()),
        "spec.nodeName" => kubelet.node.name.clone(),
        "spec.serviceAccountName" => spec.service_account_name.unwrap_or_else(|| "default".to_owned()),
        "status.hostIP" | "status.hostIPs" => kubelet.node.address.to_string(),
        "status.podIP" | "status.podIPs" => pod_ip.to_owned(),
        _ => return Err(ConfigError(format!("unsupported fieldPath: {path}"))),
    })
}

/// `resourceFieldRef`: limits default to what the node has.
pub(super) fn resource(pod: &Pod, container: &Container, reference: &ResourceFieldSelector) -> Result<String, ConfigError> {
    let spec = pod.spec.clone().unwrap_or_default();
    let wanted = reference.container_name.as_deref();
    let container = wanted.map_or(Some(container), |name| spec.containers.iter().find(|c| c.name == name));
    let Some(container) = container else {
        return Err(ConfigError(format!("container {} not found", wanted.unwrap_or_default())));
    };
    let resources = container.resources.clone().unwrap_or_default();
    let (list, name) = reference.resource.split_once('.').unwrap_or_default();
    let amount = |list: Option<BTreeMap<String, _>>| list.and_then(|list| list.get(name).and_then(quantity::value));
    let value = match list {
        "limits" => amount(resources.limits).unwrap_or(if name == "cpu" { quantity::NODE_CPUS } else { quantity::NODE_MEMORY }),
        "requests" => amount(resources.requests).unwrap_or(0.0),
        _ => return Err(ConfigError(format!("unsupported container resource: {}", reference.resource))),
    };
    let divisor = reference.divisor.as_ref().and_then(quantity::value).filter(|divisor| *divisor > 0.0).unwrap_or(1.0);
    Ok(format!("{}", (value / divisor).ceil()))
}

/// The variables that name Services: those of the pod's namespace when it wants links, and always the API's own.
fn service_variables(services: &[std::sync::Arc<Service>], namespace: &str, links: bool) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let own = service.metadata.namespace.as_deref().unwrap_or_default();
        let is_api = own == "default" && name == "kubernetes";
        if !is_api && (!links || own != namespace) {
            continue;
        }
        let Some(spec) = &service.spec else { continue };
        let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else { continue };
        let prefix = name.to_uppercase().replace('-', "_");
        let ports = spec.ports.as_deref().unwrap_or_default();
        let Some(first) = ports.first() else { continue };
        variables.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
        variables.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
        let url = |port: i32, protocol: &str| format!("{}://{ip}:{port}", protocol.to_lowercase());
        variables.insert(format!("{prefix}_PORT"), url(first.port, first.protocol.as_deref().unwrap_or("TCP")));
        for port in ports {
            if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                variables.insert(format!("{prefix}_SERVICE_PORT_{}", name.to_uppercase().replace('-', "_")), port.port.to_string());
            }
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let each = format!("{prefix}_PORT_{}_{protocol}", port.port);
            variables.insert(each.clone(), url(port.port, protocol));
            variables.insert(format!("{each}_PROTO"), protocol.to_lowercase());
            variables.insert(format!("{each}_PORT"), port.port.to_string());
            variables.insert(format!("{each}_ADDR"), ip.to_owned());
        }
    }
    variables
}

/// `$(NAME)` becomes the variable's value, `$$` a dollar sign; what is not defined stays as it is.
pub(super) fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        expanded.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            expanded.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match variables.get(name) {
                Some(value) => expanded.push_str(value),
                None => {
                    expanded.push_str("$(");
                    expanded.push_str(name);
                    expanded.push(')');
                }
            }
            rest = tail;
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    #[test]
    fn references_expand_as_in_kubernetes() {
        let variables: BTreeMap<String, String> = [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "two".to_owned())].into();
        for (text, expected) in [
            ("$(A)-$(B)", "1-two"),
            ("$$(A)", "$(A)"),
            ("$(MISSING)", "$(MISSING)"),
            ("cost $5 $", "cost $5 $"),
            ("$(A", "$(A"),
            ("$$$(A)", "$1"),
        ] {
            assert_eq!(expand(text, &variables), expected, "{text}");
        }
    }

    #[test]
    fn service_links_cover_the_own_namespace_and_the_api() {
        let service = |namespace: &str, name: &str, ip: &str| {
            let spec = json!({"clusterIP": ip, "ports": [{"name": "http", "port": 80}]});
            Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec})).expect("a Service"))
        };
        let services = [
            service("default", "kubernetes", "10.96.0.1"),
            service("shop", "web-shop", "10.96.0.2"),
            service("other", "hidden", "10.96.0.3"),
            service("shop", "headless", "None"),
        ];
        let variables = service_variables(&services, "shop", true);
        assert_eq!(variables["KUBERNETES_SERVICE_HOST"], "10.96.0.1");
        assert_eq!(variables["WEB_SHOP_SERVICE_PORT_HTTP"], "80");
        assert_eq!(variables["WEB_SHOP_PORT_80_TCP"], "tcp://10.96.0.2:80");
        assert!(!variables.keys().any(|name| name.starts_with("HIDDEN") || name.starts_with("HEADLESS")));
        let without = service_variables(&services, "shop", false);
        assert!(without.contains_key("KUBERNETES_SERVICE_PORT") && !without.contains_key("WEB_SHOP_SERVICE_HOST"));
    }
}
