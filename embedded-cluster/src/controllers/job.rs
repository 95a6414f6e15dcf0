//! Jobs: pods until enough of them succeeded, or too many failed (`pkg/controller/job`).

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};

use super::claim;
use super::events::{Recorder, reference};
use super::job_pods::{self, FINALIZER, completed_indexes};
use super::objects::{Key, Objects};
use super::pods::{controller_of, is_finished, is_ready, is_terminating, key, phase};
use super::reconcile::{Outcome, Trigger, drive};
use crate::store::{DeleteOptions, Store};

/// Between a failure and the next try; doubles with each failure (`DefaultJobPodFailureBackOff`).
const BACK_OFF: Duration = Duration::from_secs(10);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(600);

/// Runs for ever.
pub(super) async fn run(store: Store, pods: Objects<Pod>) {
    let jobs: Objects<Job> = Objects::new(&store);
    let triggers =
        vec![Trigger::itself(jobs.resource()), Trigger::controller_of(pods.resource(), "Job"), claim::orphans::<Job>(&store, &pods)];
    let controller = Controller { recorder: Recorder::new(&store, "job-controller", None), jobs, pods };
    drive(store, triggers, move |key| controller.reconcile(key)).await;
}

struct Controller {
    jobs: Objects<Job>,
    pods: Objects<Pod>,
    recorder: Recorder,
}

/// Why a Job is given up.
struct Failure {
    reason: &'static str,
    message: String,
}

impl Controller {
    fn reconcile(&self, job_key: &Key) -> Outcome {
        let Some(job) = self.jobs.get(&job_key.0, &job_key.1) else {
            self.release_orphans(job_key);
            return Outcome::Done;
        };
        let Some(spec) = &job.spec else { return Outcome::Done };
        if condition(&job, "Complete") || condition(&job, "Failed") {
            return self.expire(&job, spec);
        }
        if job.metadata.deletion_timestamp.is_some() {
            return Outcome::Done;
        }
        let everything = LabelSelector::default();
        let pods = claim::claim(&self.pods, &*job, spec.selector.as_ref().unwrap_or(&everything), |_| true);
        let mut status = job.status.clone().unwrap_or_default();
        let suspended = spec.suspend.unwrap_or(false);
        if status.start_time.is_none() && !suspended {
            status.start_time = Some(now());
        }
        self.count_finished(&mut status, spec, &pods);
        let mut live: Vec<Arc<Pod>> = pods.iter().filter(|pod| !is_finished(pod)).cloned().collect();
        let failure = failure(&job, spec, &status, &live);
        let succeeded = is_complete(spec, &status, live.iter().filter(|pod| !is_terminating(pod)).count());
        let mut outcome = Outcome::Done;
        if let Some(failure) = &failure {
            add_condition(&mut status, "FailureTarget", failure.reason, &failure.message);
            self.remove_all(&job, &mut live);
        } else if succeeded {
            add_condition(&mut status, "SuccessCriteriaMet", "CompletionsReached", "Reached expected number of succeeded pods");
            self.remove_all(&job, &mut live);
        } else if suspended {
            self.remove_all(&job, &mut live);
            if !condition(&job, "Suspended") {
                set_suspended(&mut status, true);
                status.start_time = None;
                self.recorder.normal(&reference(&*job), "Suspended", "Job suspended");
            }
        } else {
            if condition(&job, "Suspended") {
                set_suspended(&mut status, false);
                self.recorder.normal(&reference(&*job), "Resumed", "Job resumed");
            }
            outcome = self.scale(&job, spec, &status, &pods, &mut live);
        }
        let active = live.iter().filter(|pod| !is_terminating(pod)).count();
        let leaving = live.len() - active;
        let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        status.active = Some(count(active)).filter(|n| *n > 0);
        status.ready = Some(count(live.iter().filter(|pod| !is_terminating(pod) && is_ready(pod)).count()));
        status.terminating = Some(count(leaving));
        status.uncounted_terminated_pods = Some(UncountedTerminatedPods::default());
        // Final only when no pod runs any more (KEP-3939).
        if live.is_empty() {
            if let Some(failure) = &failure {
                add_condition(&mut status, "Failed", failure.reason, &failure.message);
                self.recorder.warning(&reference(&*job), failure.reason, failure.message.clone());
            } else if succeeded {
                add_condition(&mut status, "Complete", "CompletionsReached", "Reached expected number of succeeded pods");
                status.completion_time = Some(now());
                self.recorder.normal(&reference(&*job), "Completed", "Job completed");
            }
        }
        if job.status.as_ref() != Some(&status) {
            let _ = self.jobs.modify(job_key, |job| job.status = Some(status));
        }
        sooner(outcome, deadline(&job, spec))
    }

    /// Counts pods that ended since the last look, and lets them go: the finalizer is what keeps each counted once.
    fn count_finished(&self, status: &mut JobStatus, spec: &JobSpec, pods: &[Arc<Pod>]) {
        let indexed = spec.completion_mode.as_deref() == Some("Indexed");
        let mut done = completed_indexes::parse(status.completed_indexes.as_deref().unwrap_or_default());
        for pod in pods.iter().filter(|pod| is_finished(pod) && job_pods::is_tracked(pod)) {
            match phase(pod) {
                "Succeeded" => match job_pods::index_of(pod) {
                    Some(index) if indexed => {
                        done.insert(index);
                    }
                    _ => status.succeeded = Some(status.succeeded.unwrap_or(0) + 1),
                },
                _ => status.failed = Some(status.failed.unwrap_or(0) + 1),
            }
            self.release(pod);
        }
        if indexed {
            status.succeeded = Some(i32::try_from(done.len()).unwrap_or(i32::MAX)).filter(|n| *n > 0);
            status.completed_indexes = Some(completed_indexes::text(&done)).filter(|text| !text.is_empty());
        }
    }

    fn release(&self, pod: &Pod) {
        let _ = self.pods.modify(&key(pod), |pod| {
            if let Some(finalizers) = &mut pod.metadata.finalizers {
                finalizers.retain(|finalizer| finalizer != FINALIZER);
            }
        });
    }

    /// Nobody counts the pods of a Job that is gone.
    fn release_orphans(&self, job: &Key) {
        for pod in self.pods.list(Some(&job.0)) {
            let ours = controller_of(&pod.metadata).is_some_and(|owner| owner.kind == "Job" && owner.name == job.1);
            if ours && job_pods::is_tracked(&pod) {
                self.release(&pod);
            }
        }
    }

    fn remove_all(&self, job: &Job, live: &mut Vec<Arc<Pod>>) {
        for pod in live.iter().filter(|pod| !is_terminating(pod)) {
            self.delete(job, pod);
        }
        *live = live.iter().filter_map(|pod| self.pods.get(&key(&**pod).0, &key(&**pod).1)).collect();
        live.retain(|pod| !is_finished(pod));
    }

    fn delete(&self, job: &Job, pod: &Pod) {
        let options = DeleteOptions { uid: pod.metadata.uid.clone(), ..DeleteOptions::default() };
        let (_, name) = key(pod);
        if phase(pod) == "Pending" && pod.spec.as_ref().and_then(|s| s.node_name.as_ref()).is_none() {
            // No kubelet will ever say that it ended.
            self.release(pod);
        }
        if self.pods.delete(&key(pod), &options).is_ok() {
            self.recorder.normal(&reference(job), "SuccessfulDelete", format!("Deleted pod: {name}"));
        }
    }

    /// As many pods as may work at once and are still needed.
    fn scale(&self, job: &Job, spec: &JobSpec, status: &JobStatus, pods: &[Arc<Pod>], live: &mut Vec<Arc<Pod>>) -> Outcome {
        let parallelism = usize::try_from(spec.parallelism.unwrap_or(1)).unwrap_or(0);
        let succeeded = usize::try_from(status.succeeded.unwrap_or(0)).unwrap_or(0);
        let wanted = match spec.completions {
            Some(completions) => parallelism.min(usize::try_from(completions).unwrap_or(0).saturating_sub(succeeded)),
            // A work queue: once one pod succeeded, no new ones are made.
            None if succeeded > 0 => live.len().min(parallelism),
            None => parallelism,
        };
        let active: Vec<Arc<Pod>> = live.iter().filter(|pod| !is_terminating(pod)).cloned().collect();
        if active.len() > wanted {
            let mut surplus = active.clone();
            surplus.sort_by_key(|pod| (is_ready(pod), pod.metadata.creation_timestamp.clone()));
            for pod in surplus.iter().take(active.len() - wanted) {
                self.delete(job, pod);
            }
        }
        // `podReplacementPolicy: Failed` waits until a pod is really over.
        let replaced_late = spec.pod_replacement_policy.as_deref() == Some("Failed");
        let have = if replaced_late { live.len() } else { active.len() };
        if have >= wanted {
            return Outcome::Done;
        }
        if let Some(left) = back_off_left(status, pods) {
            return Outcome::Again(left);
        }
        let mut free = job_pods::free_indexes(spec, status, live);
        for _ in have..wanted {
            let index = free.next();
            if spec.completion_mode.as_deref() == Some("Indexed") && index.is_none() {
                break;
            }
            let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
            match self.pods.create(namespace, &job_pods::new_pod(job, spec, index)) {
                Ok(pod) => {
                    let name = pod.metadata.name.as_deref().unwrap_or_default();
                    self.recorder.normal(&reference(job), "SuccessfulCreate", format!("Created pod: {name}"));
                    live.push(pod);
                }
                Err(fault) => {
                    self.recorder.warning(&reference(job), "FailedCreate", format!("Error creating: {fault}"));
                    return Outcome::Again(Duration::from_secs(1));
                }
            }
        }
        Outcome::Done
    }

    /// `ttlSecondsAfterFinished`.
    fn expire(&self, job: &Job, spec: &JobSpec) -> Outcome {
        for pod in self.pods.list(job.metadata.namespace.as_deref()) {
            let ours = controller_of(&pod.metadata).is_some_and(|owner| Some(&owner.uid) == job.metadata.uid.as_ref());
            if ours && is_finished(&pod) && job_pods::is_tracked(&pod) {
                self.release(&pod);
            }
        }
        let Some(ttl) = spec.ttl_seconds_after_finished.and_then(|ttl| u64::try_from(ttl).ok()) else { return Outcome::Done };
        let finished = job.status.iter().flat_map(|s| s.conditions.iter().flatten()).find(|c| c.type_ == "Complete" || c.type_ == "Failed");
        let Some(at) = finished.and_then(|c| c.last_transition_time.clone()) else { return Outcome::Done };
        let passed = Duration::try_from(Timestamp::now().duration_since(at.0)).unwrap_or_default();
        let ttl = Duration::from_secs(ttl);
        if passed < ttl {
            return Outcome::Again(ttl.saturating_sub(passed));
        }
        let options =
            DeleteOptions { uid: job.metadata.uid.clone(), propagation_policy: Some("Foreground".to_owned()), ..DeleteOptions::default() };
        let _ = self.jobs.delete(&key(job), &options);
        Outcome::Done
    }
}

fn condition(job: &Job, kind: &str) -> bool {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == kind && c.status == "True")
}

fn now() -> Time {
    Time(Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default())
}

fn add_condition(status: &mut JobStatus, kind: &str, reason: &str, message: &str) {
    let conditions = status.conditions.get_or_insert_default();
    if conditions.iter().any(|c| c.type_ == kind && c.status == "True") {
        return;
    }
    conditions.push(JobCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(now()),
        last_transition_time: Some(now()),
    });
}

fn set_suspended(status: &mut JobStatus, suspended: bool) {
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|c| c.type_ != "Suspended");
    let (value, reason, message) =
        if suspended { ("True", "JobSuspended", "Job suspended") } else { ("False", "JobResumed", "Job resumed") };
    conditions.push(JobCondition {
        type_: "Suspended".to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(now()),
        last_transition_time: Some(now()),
    });
}

fn is_complete(spec: &JobSpec, status: &JobStatus, active: usize) -> bool {
    let succeeded = status.succeeded.unwrap_or(0);
    match spec.completions {
        Some(completions) => succeeded >= completions,
        None => succeeded > 0 && active == 0,
    }
}

/// Whether the Job is to be given up: decided once, then kept as the condition `FailureTarget`.
fn failure(job: &Job, spec: &JobSpec, status: &JobStatus, live: &[Arc<Pod>]) -> Option<Failure> {
    let decided = status.conditions.iter().flatten().find(|c| c.type_ == "FailureTarget");
    if let Some(decided) = decided {
        let reason = match decided.reason.as_deref() {
            Some("DeadlineExceeded") => "DeadlineExceeded",
            _ => "BackoffLimitExceeded",
        };
        return Some(Failure { reason, message: decided.message.clone().unwrap_or_default() });
    }
    let limit = spec.backoff_limit.unwrap_or(6);
    let restarts: i32 = live
        .iter()
        .filter_map(|pod| pod.status.as_ref())
        .flat_map(|s| s.init_container_statuses.iter().flatten().chain(s.container_statuses.iter().flatten()))
        .map(|container| container.restart_count)
        .sum();
    let restarted_too_often = spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref()) == Some("OnFailure")
        && if limit == 0 { restarts > 0 } else { restarts >= limit };
    if status.failed.unwrap_or(0) > limit || restarted_too_often {
        return Some(Failure { reason: "BackoffLimitExceeded", message: "Job has reached the specified backoff limit".to_owned() });
    }
    if matches!(deadline(job, spec), Some(left) if left.is_zero()) {
        return Some(Failure { reason: "DeadlineExceeded", message: "Job was active longer than specified deadline".to_owned() });
    }
    None
}

/// What is left of `activeDeadlineSeconds`.
fn deadline(job: &Job, spec: &JobSpec) -> Option<Duration> {
    let allowed = Duration::from_secs(u64::try_from(spec.active_deadline_seconds?).ok()?);
    let Some(since) = job.status.as_ref().and_then(|s| s.start_time.as_ref()) else { return Some(allowed) };
    let passed = Duration::try_from(Timestamp::now().duration_since(since.0)).unwrap_or_default();
    Some(allowed.saturating_sub(passed))
}

fn sooner(outcome: Outcome, deadline: Option<Duration>) -> Outcome {
    match (outcome, deadline) {
        (Outcome::Again(a), Some(b)) => Outcome::Again(a.min(b.max(Duration::from_millis(100)))),
        (Outcome::Done, Some(left)) if !left.is_zero() => Outcome::Again(left),
        (outcome, _) => outcome,
    }
}

/// How long the next pod still waits after the last failure.
fn back_off_left(status: &JobStatus, pods: &[Arc<Pod>]) -> Option<Duration> {
    let failures = u32::try_from(status.failed.unwrap_or(0)).unwrap_or(0);
    let last = pods.iter().filter(|pod| phase(pod) == "Failed").filter_map(|pod| job_pods::finished_at(pod)).max()?;
    let last_success = pods.iter().filter(|pod| phase(pod) == "Succeeded").filter_map(|pod| job_pods::finished_at(pod)).max();
    if failures == 0 || last_success > Some(last) {
        return None;
    }
    let wait = BACK_OFF.saturating_mul(2_u32.saturating_pow(failures - 1)).min(LONGEST_BACK_OFF);
    let due = last + SignedDuration::try_from(wait).unwrap_or_default();
    Duration::try_from(due.duration_since(Timestamp::now())).ok().filter(|left| !left.is_zero())
}
