//! Which columns each kind has: those of kube-apiserver (`pkg/printers/internalversion`).

use serde_json::{Value, json};

use super::super::kinds::Kind;
use super::text::{age, name, or_none};
use super::{Column, custom, network, others, pods, workloads};

type Cells = fn(&Value) -> Vec<Value>;

/// Name, and whether it is shown with `-o wide` only. Types follow from the cells.
type Heads = &'static [(&'static str, bool)];

const NARROW: bool = false;
const WIDE: bool = true;

pub(super) enum Printer {
    Fixed(Heads, Cells),
    Custom(custom::Printer),
}

macro_rules! heads {
    ($($name:literal),* $(; $($wide:literal),*)?) => { &[$(($name, NARROW),)* $($(($wide, WIDE),)*)?] };
}

pub(super) fn printer(kind: &Kind) -> Printer {
    if let Some(version) = &kind.custom {
        return Printer::Custom(custom::Printer::new(version));
    }
    let (heads, cells): (Heads, Cells) = match (kind.resource.group.as_str(), kind.resource.plural.as_str()) {
        ("", "pods") => {
            (heads!["Name", "Ready", "Status", "Restarts", "Age"; "IP", "Node", "Nominated Node", "Readiness Gates"], pods::pod)
        }
        ("", "services") => (heads!["Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age"; "Selector"], network::service),
        ("", "endpoints") => (heads!["Name", "Endpoints", "Age"], network::endpoints),
        ("", "configmaps") => (heads!["Name", "Data", "Age"], others::config_map),
        ("", "secrets") => (heads!["Name", "Type", "Data", "Age"], others::secret),
        ("", "serviceaccounts") => (heads!["Name", "Secrets", "Age"], others::service_account),
        ("", "namespaces") => (heads!["Name", "Status", "Age"], others::namespace),
        ("", "nodes") => (
            heads!["Name", "Status", "Roles", "Age", "Version"; "Internal-IP", "External-IP", "OS-Image", "Kernel-Version", "Container-Runtime"],
            others::node,
        ),
        ("" | "events.k8s.io", "events") => (
            &[
                ("Last Seen", NARROW),
                ("Type", NARROW),
                ("Reason", NARROW),
                ("Object", NARROW),
                ("Subobject", WIDE),
                ("Source", WIDE),
                ("Message", NARROW),
                ("First Seen", WIDE),
                ("Count", WIDE),
                ("Name", WIDE),
            ],
            others::event,
        ),
        ("", "persistentvolumeclaims") => (
            heads!["Name", "Status", "Volume", "Capacity", "Access Modes", "StorageClass", "VolumeAttributesClass", "Age"; "VolumeMode"],
            others::claim,
        ),
        ("", "persistentvolumes") => (
            heads!["Name", "Capacity", "Access Modes", "Reclaim Policy", "Status", "Claim", "StorageClass", "VolumeAttributesClass", "Reason", "Age"; "VolumeMode"],
            others::volume,
        ),
        ("", "resourcequotas") => (heads!["Name", "Request", "Limit", "Age"], others::quota),
        ("apps", "deployments") => {
            (heads!["Name", "Ready", "Up-to-date", "Available", "Age"; "Containers", "Images", "Selector"], workloads::deployment)
        }
        ("apps", "replicasets") => {
            (heads!["Name", "Desired", "Current", "Ready", "Age"; "Containers", "Images", "Selector"], workloads::replica_set)
        }
        ("apps", "controllerrevisions") => (heads!["Name", "Controller", "Revision", "Age"], workloads::controller_revision),
        ("apps", "statefulsets") => (heads!["Name", "Ready", "Age"; "Containers", "Images"], workloads::stateful_set),
        ("apps", "daemonsets") => (
            heads!["Name", "Desired", "Current", "Ready", "Up-to-date", "Available", "Node Selector", "Age"; "Containers", "Images", "Selector"],
            workloads::daemon_set,
        ),
        ("batch", "jobs") => {
            (heads!["Name", "Status", "Completions", "Duration", "Age"; "Containers", "Images", "Selector"], workloads::job)
        }
        ("batch", "cronjobs") => (
            heads!["Name", "Schedule", "Timezone", "Suspend", "Active", "Last Schedule", "Age"; "Containers", "Images", "Selector"],
            workloads::cron_job,
        ),
        ("autoscaling", "horizontalpodautoscalers") => {
            (heads!["Name", "Reference", "Targets", "MinPods", "MaxPods", "Replicas", "Age"], workloads::autoscaler)
        }
        ("policy", "poddisruptionbudgets") => {
            (heads!["Name", "Min Available", "Max Unavailable", "Allowed Disruptions", "Age"], workloads::disruption_budget)
        }
        ("discovery.k8s.io", "endpointslices") => (heads!["Name", "AddressType", "Ports", "Endpoints", "Age"], network::endpoint_slice),
        ("networking.k8s.io", "ingresses") => (heads!["Name", "Class", "Hosts", "Address", "Ports", "Age"], network::ingress),
        ("networking.k8s.io", "ingressclasses") => (heads!["Name", "Controller", "Parameters", "Age"], network::ingress_class),
        ("networking.k8s.io", "networkpolicies") => (heads!["Name", "Pod-Selector", "Age"], network::network_policy),
        ("coordination.k8s.io", "leases") => {
            (heads!["Name", "Holder", "Age"], |o| vec![name(o), or_none(&o["spec"]["holderIdentity"]), age(o)])
        }
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => {
            (heads!["Name", "Role", "Age"; "Users", "Groups", "ServiceAccounts"], others::role_binding)
        }
        ("scheduling.k8s.io", "priorityclasses") => {
            (heads!["Name", "Value", "Global-Default", "Age", "PreemptionPolicy"], others::priority_class)
        }
        ("storage.k8s.io", "storageclasses") => {
            (heads!["Name", "Provisioner", "ReclaimPolicy", "VolumeBindingMode", "AllowVolumeExpansion", "Age"], others::storage_class)
        }
        _ => (heads!["Name", "Created At"], |o| vec![name(o), o["metadata"]["creationTimestamp"].clone()]),
    };
    Printer::Fixed(heads, cells)
}

impl Printer {
    pub fn cells(&self, object: &Value) -> Vec<Value> {
        match self {
            Self::Fixed(_, cells) => cells(object),
            Self::Custom(printer) => printer.cells(object),
        }
    }

    pub fn columns(&self) -> Vec<Column> {
        match self {
            Self::Fixed(heads, cells) => {
                // The cells of an empty object show each column's type.
                let sample = cells(&json!({}));
                heads
                    .iter()
                    .zip(sample)
                    .map(|((name, wide), cell)| Column {
                        name: (*name).to_owned(),
                        kind: if cell.is_number() { "integer" } else { "string" },
                        format: if *name == "Name" { "name" } else { "" },
                        priority: i32::from(*wide),
                    })
                    .collect()
            }
            Self::Custom(printer) => printer.columns(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_as_many_cells_as_columns_even_for_odd_objects() {
        for kind in super::super::super::kinds::builtins() {
            for object in [json!({}), json!({"metadata": 1, "spec": [], "status": "x"}), json!({"spec": {"ports": 7, "rules": [1]}})] {
                let printer = printer(kind);
                assert_eq!(printer.cells(&object).len(), printer.columns().len(), "{}", kind.qualified_plural());
            }
        }
    }
}
