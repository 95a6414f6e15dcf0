//! Model to Envoy's files: bootstrap, clusters (CDS), their endpoints (EDS, a file each), listeners (LDS) and routes (RDS, a file each).
//!
//! Each file is a DiscoveryResponse whose version is a hash of what it holds; Envoy shows the version that it accepted in its statistics,
//! which is how the agent knows what is in force.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{bootstrap, cluster, listener};
use crate::{
    agent::Files,
    configuration::digest,
    model::{Model, Target},
};

pub(super) const BOOTSTRAP: &str = "bootstrap.json";
pub(super) const CDS: &str = "cds.json";
pub(super) const LDS: &str = "lds.json";
pub(super) const EDS_FOLDER: &str = "eds";

/// Where things are.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Folder for configuration.
    pub state: PathBuf,
    pub http_port: u16,
    pub https_port: u16,
    /// On the pod's loopback; 0 takes any.
    pub admin_port: u16,
}

/// The two tables of routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RouteTable {
    Http,
    Https,
}

impl RouteTable {
    pub const ALL: [Self; 2] = [Self::Http, Self::Https];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "ingress_http",
            Self::Https => "ingress_https",
        }
    }

    pub fn file(self) -> PathBuf {
        format!("rds-{}.json", self.name()).into()
    }
}

/// The EDS file of a cluster. Names have slashes, files shall not.
pub(super) fn eds_file(cluster: &str) -> PathBuf {
    Path::new(EDS_FOLDER).join(format!("{}.json", cluster.replace('/', "_")))
}

/// All files that Envoy reads, by name in the state folder.
pub fn render(model: &Model, layout: &Layout) -> Files {
    let mut files = Files::new();
    let mut clusters: BTreeMap<String, Value> = BTreeMap::new();
    for route in model.hosts.iter().flat_map(|host| &host.routes) {
        let Target::Backend(key) = &route.target else { continue };
        let Some(backend) = model.backends.get(key) else { continue };
        let (name, resource) = cluster::cluster(&layout.state, backend, route);
        if backend.external.is_none() {
            let endpoints = response("endpoint.v3.ClusterLoadAssignment", [cluster::load_assignment(&name, backend)]);
            files.insert(eds_file(&name), endpoints);
        }
        clusters.insert(name, resource);
    }
    files.insert(CDS.into(), response("cluster.v3.Cluster", clusters.into_values()));
    let cluster_of = |route: &crate::model::Route| match &route.target {
        Target::Backend(key) => model.backends.get(key).map(|backend| cluster::cluster(&layout.state, backend, route).0),
        Target::Unresolved(_) => None,
    };
    for table in RouteTable::ALL {
        let routes = listener::route_configuration(model, table, &cluster_of);
        files.insert(table.file(), response("route.v3.RouteConfiguration", [routes]));
    }
    let listeners = std::iter::once(listener::http_listener(model, &layout.state, layout.http_port)).chain(listener::https_listener(
        model,
        &layout.state,
        layout.https_port,
    ));
    files.insert(LDS.into(), response("listener.v3.Listener", listeners));
    files.insert(BOOTSTRAP.into(), pretty(&bootstrap::bootstrap(&layout.state, layout.admin_port)));
    files
}

/// A DiscoveryResponse (service/discovery/v3/discovery.proto) with resources of one type of `envoy.config`.
pub(crate) fn response(type_name: &str, resources: impl IntoIterator<Item = Value>) -> String {
    let resources: Vec<Value> = resources
        .into_iter()
        .map(|resource| {
            let mut typed = json!({ "@type": format!("type.googleapis.com/envoy.config.{type_name}") });
            cluster::merge(&mut typed, &resource);
            typed
        })
        .collect();
    let version = &digest(&json!(resources).to_string())[..16];
    pretty(&json!({ "version_info": version, "resources": resources }))
}

/// The version of a file that [`response`] made.
pub(super) fn version_of(file: &str) -> Option<String> {
    serde_json::from_str::<Value>(file).ok()?["version_info"].as_str().map(str::to_owned)
}

/// The resources of a file that [`response`] made.
pub(super) fn resources_of(file: &str) -> Vec<Value> {
    let mut response: Value = serde_json::from_str(file).unwrap_or_default();
    match response["resources"].take() {
        Value::Array(resources) => resources,
        _ => Vec::new(),
    }
}

/// A bootstrap with the same clusters and routes as static resources, for `envoy --mode validate`.
pub(super) fn as_static(files: &Files) -> String {
    let resources = |name: &Path| files.get(name).map(|file| resources_of(file)).unwrap_or_default();
    let mut listeners = resources(Path::new(LDS));
    for listener in &mut listeners {
        let Some(chains) = listener["filter_chains"].as_array_mut() else { continue };
        for manager in chains.iter_mut().filter_map(|chain| chain.pointer_mut("/filters/0/typed_config")?.as_object_mut()) {
            let Some(table) = manager.remove("rds") else { continue };
            let table = RouteTable::ALL.into_iter().find(|known| table["route_config_name"] == known.name());
            let routes = table.and_then(|table| resources(&table.file()).into_iter().next()).map(untyped);
            manager.insert("route_config".to_owned(), routes.unwrap_or_default());
        }
    }
    let (clusters, listeners): (Vec<_>, Vec<_>) =
        (resources(Path::new(CDS)).into_iter().map(untyped).collect(), listeners.into_iter().map(untyped).collect());
    pretty(&json!({ "static_resources": { "clusters": clusters, "listeners": listeners } }))
}

fn untyped(mut resource: Value) -> Value {
    if let Some(object) = resource.as_object_mut() {
        object.remove("@type");
    }
    resource
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}
