//! Discovery: which groups, versions and resources there are; plain and aggregated.

use std::sync::Arc;

use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use super::kinds::{self, Kind};
use super::respond::{self, Body};
use super::status::Refusal;
use crate::store::Store;

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// A resource of which nothing is stored: answers are made when they are asked for.
pub(super) struct Answered {
    pub group: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
    pub kind: &'static str,
    pub namespaced: bool,
    pub verbs: &'static [&'static str],
}

const fn review(group: &'static str, plural: &'static str, kind: &'static str, namespaced: bool) -> Answered {
    Answered { group, version: "v1", plural, kind, namespaced, verbs: &["create"] }
}

const fn metrics(plural: &'static str, kind: &'static str, namespaced: bool) -> Answered {
    Answered { group: "metrics.k8s.io", version: "v1beta1", plural, kind, namespaced, verbs: &["get", "list"] }
}

pub(super) const ANSWERED: [Answered; 8] = [
    review("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview", false),
    review("authentication.k8s.io", "tokenreviews", "TokenReview", false),
    review("authorization.k8s.io", "localsubjectaccessreviews", "LocalSubjectAccessReview", true),
    review("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview", false),
    review("authorization.k8s.io", "selfsubjectrulesreviews", "SelfSubjectRulesReview", false),
    review("authorization.k8s.io", "subjectaccessreviews", "SubjectAccessReview", false),
    metrics("nodes", "NodeMetrics", false),
    metrics("pods", "PodMetrics", true),
];

fn answered<'a>(group: &'a str, version: &'a str) -> impl Iterator<Item = &'static Answered> + use<'a> {
    ANSWERED.iter().filter(move |answered| answered.group == group && answered.version == version)
}

/// The API of Kubernetes 1.33 as served here; the build says that it is the lab's.
pub(super) fn version() -> Value {
    json!({
        "major": "1",
        "minor": "33",
        "emulationMajor": "1",
        "emulationMinor": "33",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "32",
        "gitVersion": "v1.33.0+gatelab",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "2025-04-23T13:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, architecture()),
    })
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Answers `/`, `/api`, `/apis` and what lies right below.
pub(super) fn answer(store: &Store, path: &[&str], headers: &HeaderMap) -> Result<Response<Body>, Refusal> {
    let kinds = kinds::all(store);
    let accept = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let aggregated = accept.split(',').find(|a| a.contains("as=APIGroupDiscoveryList") && (a.contains("v=v2;") || a.ends_with("v=v2")));
    match path {
        [] => Ok(respond::json(StatusCode::OK, &json!({"paths": paths(&kinds)}))),
        ["api"] if aggregated.is_some() => Ok(aggregate(&kinds, &["".to_owned()])),
        ["api"] => Ok(respond::json(
            StatusCode::OK,
            &json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": "10.96.0.1:443"}]}),
        )),
        ["apis"] if aggregated.is_some() => Ok(aggregate(&kinds, &groups(&kinds))),
        ["apis"] => {
            let groups: Vec<Value> = groups(&kinds).iter().filter_map(|group| group_object(&kinds, group)).collect();
            Ok(respond::json(StatusCode::OK, &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})))
        }
        ["apis", group] => {
            let mut object = group_object(&kinds, group).ok_or_else(Refusal::no_such_resource)?;
            object["kind"] = "APIGroup".into();
            object["apiVersion"] = "v1".into();
            Ok(respond::json(StatusCode::OK, &object))
        }
        ["api", version] => resource_list(&kinds, "", version),
        ["apis", group, version] => resource_list(&kinds, group, version),
        _ => Err(Refusal::no_such_resource()),
    }
}

fn paths(kinds: &[Arc<Kind>]) -> Vec<String> {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for group in groups(kinds) {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions(kinds, &group).iter().map(|version| format!("/apis/{group}/{version}")));
    }
    paths.extend(["/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"].map(str::to_owned));
    paths
}

/// All groups but the core one, in the order of kube-apiserver's priorities as far as it shows (apps first).
pub(super) fn groups(kinds: &[Arc<Kind>]) -> Vec<String> {
    let mut groups: Vec<String> = Vec::new();
    let answered = ANSWERED.iter().map(|answered| answered.group);
    for group in kinds.iter().map(|kind| kind.resource.group.as_str()).chain(answered) {
        if !group.is_empty() && !groups.iter().any(|g| g == group) {
            groups.push(group.to_owned());
        }
    }
    groups.sort_by_key(|group| (!matches!(group.as_str(), "apps"), group.contains('.') && !group.ends_with(".k8s.io"), group.clone()));
    groups
}

/// Versions of a group, the preferred first.
pub(super) fn versions(kinds: &[Arc<Kind>], group: &str) -> Vec<String> {
    let mut versions: Vec<String> = Vec::new();
    for kind in kinds.iter().filter(|kind| kind.resource.group == group) {
        if !versions.contains(&kind.resource.version) {
            versions.push(kind.resource.version.clone());
        }
    }
    for answered in ANSWERED.iter().filter(|answered| answered.group == group) {
        if !versions.iter().any(|version| version == answered.version) {
            versions.push(answered.version.to_owned());
        }
    }
    versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
    versions
}

/// Kubernetes' version order: stable before beta before alpha, higher before lower.
fn priority(version: &str) -> (u8, u32, u32) {
    let rest = version.strip_prefix('v').unwrap_or(version);
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let major = rest[..digits].parse().unwrap_or(0);
    let tail = &rest[digits..];
    let minor = |stage: &str| tail.strip_prefix(stage).and_then(|n| n.parse().ok()).unwrap_or(0);
    match tail {
        "" => (3, major, 0),
        t if t.starts_with("beta") => (2, major, minor("beta")),
        t if t.starts_with("alpha") => (1, major, minor("alpha")),
        _ => (0, 0, 0),
    }
}

fn group_object(kinds: &[Arc<Kind>], group: &str) -> Option<Value> {
    let versions = versions(kinds, group);
    let entry = |version: &String| json!({"groupVersion": format!("{group}/{version}"), "version": version});
    let preferred = entry(versions.first()?);
    let versions: Vec<Value> = versions.iter().map(entry).collect();
    Some(json!({"name": group, "versions": versions, "preferredVersion": preferred}))
}

/// All namespaces at once cannot be deleted.
fn verbs(kind: &Kind) -> Vec<&'static str> {
    VERBS.into_iter().filter(|verb| *verb != "deletecollection" || !kind.is("", "namespaces")).collect()
}

fn resource_list(kinds: &[Arc<Kind>], group: &str, version: &str) -> Result<Response<Body>, Refusal> {
    let mut resources = Vec::new();
    for kind in kinds.iter().filter(|kind| kind.resource.group == group && kind.resource.version == version) {
        let mut entry = json!({
            "name": kind.resource.plural,
            "singularName": kind.singular,
            "namespaced": kind.is_namespaced(),
            "kind": kind.resource.kind,
            "verbs": verbs(kind),
            "storageVersionHash": hash(&kind.qualified_plural()),
        });
        if !kind.short_names.is_empty() {
            entry["shortNames"] = json!(kind.short_names);
        }
        if !kind.categories.is_empty() {
            entry["categories"] = json!(kind.categories);
        }
        resources.push(entry);
        for sub in &kind.subresources {
            let (verbs, other) = sub.discovery();
            let mut entry = json!({
                "name": format!("{}/{}", kind.resource.plural, sub.path()),
                "singularName": "",
                "namespaced": kind.is_namespaced(),
                "kind": other.map_or(kind.resource.kind.as_str(), |(.., kind)| kind),
                "verbs": verbs,
            });
            if let Some((group, version, _)) = other {
                entry["group"] = group.into();
                entry["version"] = version.into();
            }
            resources.push(entry);
        }
    }
    for Answered { plural, kind, namespaced, verbs, .. } in answered(group, version) {
        resources
            .push(json!({"name": plural, "singularName": kind.to_lowercase(), "namespaced": namespaced, "kind": kind, "verbs": verbs}));
    }
    if resources.is_empty() {
        return Err(Refusal::no_such_resource());
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Ok(respond::json(
        StatusCode::OK,
        &json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}),
    ))
}

/// Stable and short; clients only compare it.
fn hash(text: &str) -> String {
    use base64::Engine as _;
    use sha2::Digest as _;
    base64::engine::general_purpose::STANDARD.encode(&sha2::Sha256::digest(text)[..8])
}

/// `apidiscovery.k8s.io/v2`
fn aggregate(kinds: &[Arc<Kind>], groups: &[String]) -> Response<Body> {
    let items: Vec<Value> = groups
        .iter()
        .map(|group| {
            let versions: Vec<Value> = if group.is_empty() { vec!["v1".to_owned()] } else { versions(kinds, group) }
                .iter()
                .map(
                    |version| json!({"version": version, "freshness": "Current", "resources": aggregated_resources(kinds, group, version)}),
                )
                .collect();
            let metadata =
                if group.is_empty() { json!({"creationTimestamp": null}) } else { json!({"name": group, "creationTimestamp": null}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let mut response = respond::json(
        StatusCode::OK,
        &json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}),
    );
    let media = HeaderValue::from_static("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    response.headers_mut().insert(CONTENT_TYPE, media);
    response
}

fn aggregated_resources(kinds: &[Arc<Kind>], group: &str, version: &str) -> Vec<Value> {
    let scope = |namespaced: bool| if namespaced { "Namespaced" } else { "Cluster" };
    let mut resources = Vec::new();
    for kind in kinds.iter().filter(|kind| kind.resource.group == group && kind.resource.version == version) {
        let response_kind = json!({"group": "", "version": "", "kind": kind.resource.kind});
        let mut entry = json!({
            "resource": kind.resource.plural,
            "responseKind": response_kind,
            "scope": scope(kind.is_namespaced()),
            "singularResource": kind.singular,
            "verbs": verbs(kind),
        });
        if !kind.short_names.is_empty() {
            entry["shortNames"] = json!(kind.short_names);
        }
        if !kind.categories.is_empty() {
            entry["categories"] = json!(kind.categories);
        }
        let subresources: Vec<Value> = kind
            .subresources
            .iter()
            .map(|sub| {
                let (verbs, other) = sub.discovery();
                let (group, version, kind) = other.unwrap_or(("", "", kind.resource.kind.as_str()));
                json!({"subresource": sub.path(), "responseKind": {"group": group, "version": version, "kind": kind}, "verbs": verbs})
            })
            .collect();
        if !subresources.is_empty() {
            entry["subresources"] = subresources.into();
        }
        resources.push(entry);
    }
    for Answered { plural, kind, namespaced, verbs, .. } in answered(group, version) {
        resources.push(json!({
            "resource": plural,
            "responseKind": {"group": "", "version": "", "kind": kind},
            "scope": scope(*namespaced),
            "singularResource": kind.to_lowercase(),
            "verbs": verbs,
        }));
    }
    resources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_kubernetes_does() {
        let mut versions = vec!["v1beta1", "v2", "v1alpha1", "v1", "v1beta2", "v11", "odd"];
        versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
        assert_eq!(versions, ["v11", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "odd"]);
    }
}
