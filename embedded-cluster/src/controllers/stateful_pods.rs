//! The identity of a StatefulSet's pods: name, hostname, labels, volume claims (`stateful_set_utils.go`).

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume};

use super::claim::pod_of;
use super::revisions::REVISION_LABEL;

const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// The number in the name of a pod of this set.
pub(super) fn ordinal_of(set: &str, pod: &Pod) -> Option<i32> {
    let digits = pod.metadata.name.as_deref()?.strip_prefix(set)?.strip_prefix('-')?;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

pub(super) fn new_pod(set: &StatefulSet, spec: &StatefulSetSpec, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let name = format!("{}-{ordinal}", set.metadata.name.as_deref().unwrap_or_default());
    let mut pod = pod_of(set, template);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME_LABEL.to_owned(), name.clone());
    labels.insert(POD_INDEX_LABEL.to_owned(), ordinal.to_string());
    labels.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    pod.metadata.generate_name = Some(format!("{}-", set.metadata.name.as_deref().unwrap_or_default()));
    pod.metadata.name = Some(name.clone());
    let pod_spec = pod.spec.get_or_insert_default();
    pod_spec.hostname = Some(name);
    pod_spec.subdomain = spec.service_name.clone().filter(|service| !service.is_empty());
    let volumes = pod_spec.volumes.get_or_insert_default();
    for claim in claims_of(set, spec, ordinal) {
        let template = claim_template_name(&claim, set, ordinal);
        volumes.retain(|volume| volume.name != template);
        volumes.push(Volume {
            name: template,
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.metadata.name.unwrap_or_default(),
                read_only: None,
            }),
            ..Volume::default()
        });
    }
    if volumes.is_empty() {
        pod_spec.volumes = None;
    }
    pod
}

/// The claims of one pod: `<template>-<pod>`.
pub(super) fn claims_of(set: &StatefulSet, spec: &StatefulSetSpec, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let set_name = set.metadata.name.as_deref().unwrap_or_default();
    let templates = spec.volume_claim_templates.iter().flatten();
    templates
        .map(|template| {
            let mut claim = template.clone();
            claim.metadata.name = Some(format!("{}-{set_name}-{ordinal}", template.metadata.name.as_deref().unwrap_or_default()));
            claim.metadata.namespace.clone_from(&set.metadata.namespace);
            let labels = claim.metadata.labels.get_or_insert_default();
            labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
            claim.status = None;
            claim
        })
        .collect()
}

fn claim_template_name(claim: &PersistentVolumeClaim, set: &StatefulSet, ordinal: i32) -> String {
    let suffix = format!("-{}-{ordinal}", set.metadata.name.as_deref().unwrap_or_default());
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    name.strip_suffix(&suffix).unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    #[test]
    fn only_pods_with_the_set_s_name_and_a_number_are_its_own() {
        let pod = |name: &str| Pod { metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }, ..Pod::default() };
        assert_eq!(ordinal_of("web", &pod("web-0")), Some(0));
        assert_eq!(ordinal_of("web", &pod("web-12")), Some(12));
        assert_eq!(ordinal_of("web", &pod("web-db-0")), None);
        assert_eq!(ordinal_of("web", &pod("web-")), None);
        assert_eq!(ordinal_of("web", &pod("website-0")), None);
    }

    #[test]
    fn a_pod_s_identity_follows_from_its_number() {
        let set: StatefulSet = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "db", "namespace": "shop", "uid": "u"},
            "spec": {"serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
                "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c"}]}},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]},
        }))
        .expect("a StatefulSet");
        let spec = set.spec.clone().expect("a spec");
        let pod = new_pod(&set, &spec, &spec.template, "db-abc", 2);
        let pod_spec = pod.spec.expect("a spec");
        assert_eq!((pod.metadata.name.as_deref(), pod_spec.hostname.as_deref()), (Some("db-2"), Some("db-2")));
        assert_eq!(pod_spec.subdomain.as_deref(), Some("db"));
        let claim = pod_spec.volumes.expect("volumes")[0].persistent_volume_claim.clone().expect("a claim");
        assert_eq!(claim.claim_name, "data-db-2");
        assert_eq!(pod.metadata.labels.expect("labels")["controller-revision-hash"], "db-abc");
    }
}
