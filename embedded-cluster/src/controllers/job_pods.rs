//! The pods of a Job: their names, labels and, in Indexed Jobs, numbers.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use super::claim::pod_of;
use super::pods::{generated_name, is_terminating};

/// Keeps a pod until it has been counted.
pub(super) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";

pub(super) fn new_pod(job: &Job, spec: &JobSpec, index: Option<i32>) -> Pod {
    let mut pod = pod_of(job, &spec.template);
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let prefix = match index {
        Some(index) => format!("{name}-{index}-"),
        None => format!("{name}-"),
    };
    pod.metadata.name = Some(generated_name(&prefix));
    pod.metadata.generate_name = Some(prefix);
    pod.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    let Some(index) = index else { return pod };
    pod.metadata.annotations.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    pod.metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    let pod_spec = pod.spec.get_or_insert_default();
    pod_spec.hostname = Some(format!("{name}-{index}"));
    let containers = pod_spec.init_containers.iter_mut().flatten().chain(&mut pod_spec.containers);
    for container in containers {
        let env = container.env.get_or_insert_default();
        if !env.iter().any(|variable| variable.name == "JOB_COMPLETION_INDEX") {
            env.push(EnvVar {
                name: "JOB_COMPLETION_INDEX".to_owned(),
                value_from: Some(EnvVarSource {
                    field_ref: Some(ObjectFieldSelector { api_version: None, field_path: format!("metadata.labels['{INDEX}']") }),
                    ..EnvVarSource::default()
                }),
                ..EnvVar::default()
            });
        }
    }
    pod
}

pub(super) fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

pub(super) fn index_of(pod: &Pod) -> Option<i32> {
    pod.metadata.annotations.as_ref()?.get(INDEX)?.parse().ok()
}

/// When the last of the pod's containers ended.
pub(super) fn finished_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().filter_map(|s| Some(s.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0)).max()
}

/// Numbers that neither succeeded nor are being worked on, lowest first; none unless the Job is Indexed.
pub(super) fn free_indexes(spec: &JobSpec, status: &JobStatus, live: &[Arc<Pod>]) -> impl Iterator<Item = i32> + use<> {
    let mut taken = completed_indexes::parse(status.completed_indexes.as_deref().unwrap_or_default());
    taken.extend(live.iter().filter(|pod| !is_terminating(pod)).filter_map(|pod| index_of(pod)));
    let indexed = spec.completion_mode.as_deref() == Some("Indexed");
    let end = if indexed { spec.completions.unwrap_or(0) } else { 0 };
    (0..end).filter(move |index| !taken.contains(index))
}

/// `status.completedIndexes`: `0,2-5`.
pub(super) mod completed_indexes {
    use super::BTreeSet;

    pub(in super::super) fn parse(text: &str) -> BTreeSet<i32> {
        let mut indexes = BTreeSet::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
                indexes.extend(first..=last);
            }
        }
        indexes
    }

    pub(in super::super) fn text(indexes: &BTreeSet<i32>) -> String {
        let mut ranges: Vec<(i32, i32)> = Vec::new();
        for index in indexes {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == *index => *last = *index,
                _ => ranges.push((*index, *index)),
            }
        }
        let range = |(first, last): &(i32, i32)| match last - first {
            0 => first.to_string(),
            // As Kubernetes writes it: a range only from three on.
            1 => format!("{first},{last}"),
            _ => format!("{first}-{last}"),
        };
        ranges.iter().map(range).collect::<Vec<_>>().join(",")
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn ranges_are_read_and_written() {
            for text in ["", "0", "0,1", "0-2", "1,3-5,7"] {
                assert_eq!(super::text(&parse(text)), text);
            }
        }
    }
}
