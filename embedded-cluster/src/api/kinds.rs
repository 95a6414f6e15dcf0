//! Which resources the API serves: one table, from which routing, discovery, OpenAPI and validation are made.

use std::sync::{Arc, LazyLock};

use k8s_openapi::api::{
    apps::v1 as apps, autoscaling::v1 as autoscaling_v1, autoscaling::v2 as autoscaling, batch::v1 as batch,
    coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery, events::v1 as events, networking::v1 as networking,
    policy::v1 as policy, rbac::v1 as rbac, scheduling::v1 as scheduling, storage::v1 as storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::store::{Resource, Scope, Store};

/// A further path below an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sub {
    Status,
    Scale,
    Finalize,
    Log,
    Exec,
    Attach,
    PortForward,
    Eviction,
    Binding,
    EphemeralContainers,
    Token,
}

impl Sub {
    const ALL: [Self; 11] = [
        Self::Status,
        Self::Scale,
        Self::Finalize,
        Self::Log,
        Self::Exec,
        Self::Attach,
        Self::PortForward,
        Self::Eviction,
        Self::Binding,
        Self::EphemeralContainers,
        Self::Token,
    ];

    pub fn path(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Finalize => "finalize",
            Self::Log => "log",
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "portforward",
            Self::Eviction => "eviction",
            Self::Binding => "binding",
            Self::EphemeralContainers => "ephemeralcontainers",
            Self::Token => "token",
        }
    }

    pub fn parse(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|sub| sub.path() == path)
    }

    /// Verbs, and the kind in discovery when it differs from the parent's: group, version, kind.
    pub fn discovery(self) -> (&'static [&'static str], Option<(&'static str, &'static str, &'static str)>) {
        match self {
            Self::Status | Self::EphemeralContainers => (&["get", "patch", "update"], None),
            Self::Scale => (&["get", "patch", "update"], Some(("autoscaling", "v1", "Scale"))),
            Self::Finalize => (&["update"], None),
            Self::Log => (&["get"], None),
            Self::Exec => (&["create", "get"], Some(("", "v1", "PodExecOptions"))),
            Self::Attach => (&["create", "get"], Some(("", "v1", "PodAttachOptions"))),
            Self::PortForward => (&["create", "get"], Some(("", "v1", "PodPortForwardOptions"))),
            Self::Eviction => (&["create"], Some(("policy", "v1", "Eviction"))),
            Self::Binding => (&["create"], Some(("", "v1", "Binding"))),
            Self::Token => (&["create"], Some(("authentication.k8s.io", "v1", "TokenRequest"))),
        }
    }
}

/// Reads a value as its k8s-openapi type and writes it again: what is missing afterwards was no field of the type.
pub(crate) type RoundTrip = fn(&Value) -> Result<Value, serde_json::Error>;

fn round_trip<K: Serialize + DeserializeOwned>(value: &Value) -> Result<Value, serde_json::Error> {
    serde_json::to_value(K::deserialize(value)?)
}

/// One served resource type.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    pub resource: Resource,
    /// Where the objects are kept: differs from `resource` where two groups or versions share them (events, autoscalers).
    pub storage: Resource,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub subresources: Vec<Sub>,
    /// `None` for custom resources.
    pub round_trip: Option<RoundTrip>,
    /// For custom resources: the version's entry in the CustomResourceDefinition.
    pub custom: Option<Arc<Value>>,
    /// The version's CEL rules.
    pub rules: Arc<super::custom::Rules>,
    selectable: &'static [&'static str],
}

impl Kind {
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.resource.group == group && self.resource.plural == plural
    }

    pub fn is_namespaced(&self) -> bool {
        self.resource.scope == Scope::Namespaced
    }

    /// `deployments.apps`
    pub fn qualified_plural(&self) -> String {
        qualified(&self.resource.plural, &self.resource.group)
    }

    /// `Deployment.apps`
    pub fn qualified_kind(&self) -> String {
        qualified(&self.resource.kind, &self.resource.group)
    }

    pub fn list_kind(&self) -> String {
        format!("{}List", self.resource.kind)
    }

    pub fn selectable(&self, field: &str) -> bool {
        matches!(field, "metadata.name" | "metadata.namespace") || self.selectable.contains(&field)
    }

    pub fn has(&self, sub: Sub) -> bool {
        self.subresources.contains(&sub)
    }
}

fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

struct Row {
    singular: &'static str,
    short: &'static [&'static str],
    categories: &'static [&'static str],
    subresources: &'static [Sub],
    selectable: &'static [&'static str],
}

fn kind<K>(row: &Row) -> Arc<Kind>
where
    K: k8s_openapi::Resource + Serialize + DeserializeOwned,
    K::Scope: crate::store::KnownScope,
{
    let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
    let resource = Resource::of::<K>();
    let storage = match (resource.group.as_str(), resource.version.as_str()) {
        ("events.k8s.io", _) => Resource::of::<core::Event>(),
        ("autoscaling", _) => Resource::of::<autoscaling::HorizontalPodAutoscaler>(),
        _ => resource.clone(),
    };
    Arc::new(Kind {
        resource,
        storage,
        singular: row.singular.to_owned(),
        short_names: owned(row.short),
        categories: owned(row.categories),
        subresources: row.subresources.to_vec(),
        round_trip: Some(round_trip::<K>),
        custom: None,
        rules: Arc::default(),
        selectable: row.selectable,
    })
}

macro_rules! kinds {
    ($($type:ty: $singular:literal [$($short:literal)*] [$($category:literal)*] [$($sub:ident)*] [$($field:literal)*];)*) => {
        vec![$(kind::<$type>(&Row {
            singular: $singular,
            short: &[$($short),*],
            categories: &[$($category),*],
            subresources: &[$(Sub::$sub),*],
            selectable: &[$($field),*],
        })),*]
    };
}

/// type: singular [short names] [categories] [subresources] [selectable fields]
static BUILTIN: LazyLock<Vec<Arc<Kind>>> = LazyLock::new(|| {
    kinds! {
        core::ConfigMap: "configmap" ["cm"] [] [] [];
        core::Endpoints: "endpoints" ["ep"] [] [] [];
        core::Event: "event" ["ev"] [] []
            ["involvedObject.kind" "involvedObject.namespace" "involvedObject.name" "involvedObject.uid" "involvedObject.apiVersion"
             "involvedObject.resourceVersion" "involvedObject.fieldPath" "reason" "reportingComponent" "source" "type"];
        core::Namespace: "namespace" ["ns"] [] [Finalize Status] ["status.phase"];
        core::Node: "node" ["no"] [] [Status] ["spec.unschedulable"];
        core::PersistentVolumeClaim: "persistentvolumeclaim" ["pvc"] [] [Status] [];
        core::PersistentVolume: "persistentvolume" ["pv"] [] [Status] [];
        core::Pod: "pod" ["po"] ["all"] [Attach Binding EphemeralContainers Eviction Exec Log PortForward Status]
            ["spec.nodeName" "spec.restartPolicy" "spec.schedulerName" "spec.serviceAccountName" "spec.hostNetwork" "status.phase"
             "status.podIP" "status.podIPs" "status.nominatedNodeName"];
        core::Secret: "secret" [] [] [] ["type"];
        core::ServiceAccount: "serviceaccount" ["sa"] [] [Token] [];
        core::Service: "service" ["svc"] ["all"] [Status] ["spec.clusterIP" "spec.type"];
        core::LimitRange: "limitrange" ["limits"] [] [] [];
        core::ResourceQuota: "resourcequota" ["quota"] [] [Status] [];
        apiextensions::CustomResourceDefinition: "customresourcedefinition" ["crd" "crds"] ["api-extensions"] [Status] [];
        apps::ControllerRevision: "controllerrevision" [] [] [] [];
        apps::DaemonSet: "daemonset" ["ds"] ["all"] [Status] [];
        apps::Deployment: "deployment" ["deploy"] ["all"] [Scale Status] [];
        apps::ReplicaSet: "replicaset" ["rs"] ["all"] [Scale Status] ["status.replicas"];
        apps::StatefulSet: "statefulset" ["sts"] ["all"] [Scale Status] [];
        autoscaling_v1::HorizontalPodAutoscaler: "horizontalpodautoscaler" ["hpa"] ["all"] [Status] [];
        autoscaling::HorizontalPodAutoscaler: "horizontalpodautoscaler" ["hpa"] ["all"] [Status] [];
        batch::CronJob: "cronjob" ["cj"] ["all"] [Status] [];
        batch::Job: "job" [] ["all"] [Status] ["status.successful"];
        coordination::Lease: "lease" [] [] [] [];
        discovery::EndpointSlice: "endpointslice" [] [] [] [];
        events::Event: "event" ["ev"] [] []
            ["regarding.kind" "regarding.namespace" "regarding.name" "regarding.uid" "regarding.apiVersion" "regarding.resourceVersion"
             "regarding.fieldPath" "reason" "reportingController" "type"];
        networking::IngressClass: "ingressclass" [] [] [] [];
        networking::Ingress: "ingress" ["ing"] [] [Status] [];
        networking::NetworkPolicy: "networkpolicy" ["netpol"] [] [] [];
        policy::PodDisruptionBudget: "poddisruptionbudget" ["pdb"] [] [Status] [];
        rbac::ClusterRoleBinding: "clusterrolebinding" [] [] [] [];
        rbac::ClusterRole: "clusterrole" [] [] [] [];
        rbac::RoleBinding: "rolebinding" [] [] [] [];
        rbac::Role: "role" [] [] [] [];
        scheduling::PriorityClass: "priorityclass" ["pc"] [] [] [];
        storage::StorageClass: "storageclass" ["sc"] [] [] [];
    }
});

/// Everything served: built-in kinds, then those of CustomResourceDefinitions.
pub(crate) fn all(store: &Store) -> Vec<Arc<Kind>> {
    let definitions = store.list(&Resource::of::<apiextensions::CustomResourceDefinition>(), None);
    let custom = definitions.items.iter().flat_map(|definition| super::custom::kinds(definition));
    BUILTIN.iter().cloned().chain(custom).collect()
}

pub(crate) fn builtins() -> &'static [Arc<Kind>] {
    &BUILTIN
}

pub(crate) fn builtin(group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
    BUILTIN.iter().find(|kind| kind.is(group, plural) && kind.resource.version == version).cloned()
}

pub(crate) fn find(store: &Store, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
    builtin(group, version, plural).or_else(|| {
        // The name of a definition is fixed by what it defines.
        let name = format!("{plural}.{group}");
        let definition = store.get(&Resource::of::<apiextensions::CustomResourceDefinition>(), None, &name).ok()?;
        super::custom::kinds(&definition).into_iter().find(|kind| kind.resource.version == version)
    })
}

impl Kind {
    /// A kind that a CustomResourceDefinition defines; `version` is the entry of `spec.versions`.
    pub(super) fn custom(definition: &Value, version: &Value) -> Option<Self> {
        let spec = &definition["spec"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let list = |value: &Value| value.as_array().into_iter().flatten().filter_map(text).collect();
        let names = &spec["names"];
        let resource = Resource {
            group: text(&spec["group"])?,
            version: text(&version["name"])?,
            kind: text(&names["kind"])?,
            plural: text(&names["plural"])?,
            scope: if spec["scope"] == "Cluster" { Scope::Cluster } else { Scope::Namespaced },
        };
        let mut subresources = Vec::new();
        if version["subresources"]["status"].is_object() {
            subresources.push(Sub::Status);
        }
        if version["subresources"]["scale"].is_object() {
            subresources.push(Sub::Scale);
        }
        // Kept under the storage version's identity; all versions share the plural, so the key is the same.
        Some(Self {
            storage: resource.clone(),
            singular: text(&names["singular"]).unwrap_or_else(|| resource.kind.to_lowercase()),
            short_names: list(&names["shortNames"]),
            categories: list(&names["categories"]),
            subresources,
            round_trip: None,
            custom: Some(Arc::new(version.clone())),
            rules: Arc::default(),
            selectable: &[],
            resource,
        })
    }
}
