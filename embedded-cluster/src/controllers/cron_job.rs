//! CronJobs: a Job at each time of a schedule (`pkg/controller/cronjob`).

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::cron_schedule::Schedule;
use super::events::{Recorder, reference};
use super::objects::{Key, Objects};
use super::pods::{controlled_by, controller_of, key};
use super::reconcile::{Outcome, Trigger, drive};
use crate::store::{DeleteOptions, Reason, Store};

const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// How many missed times are looked through for the newest.
const MOST_MISSED: usize = 1000;

/// Runs for ever.
pub(super) async fn run(store: Store) {
    let cron_jobs: Objects<CronJob> = Objects::new(&store);
    let jobs: Objects<Job> = Objects::new(&store);
    let triggers = vec![Trigger::itself(cron_jobs.resource()), Trigger::controller_of(jobs.resource(), "CronJob")];
    let controller = Controller { recorder: Recorder::new(&store, "cronjob-controller", None), cron_jobs, jobs };
    drive(store, triggers, move |key| controller.reconcile(key)).await;
}

struct Controller {
    cron_jobs: Objects<CronJob>,
    jobs: Objects<Job>,
    recorder: Recorder,
}

impl Controller {
    fn reconcile(&self, cron_key: &Key) -> Outcome {
        let Some(cron) = self.cron_jobs.get(&cron_key.0, &cron_key.1) else { return Outcome::Done };
        let Some(spec) = &cron.spec else { return Outcome::Done };
        if cron.metadata.deletion_timestamp.is_some() {
            return Outcome::Done;
        }
        let jobs = self.jobs_of(&cron);
        self.note_ends(&cron, &jobs);
        self.clean_up(&cron, spec, &jobs);
        if spec.suspend.unwrap_or(false) {
            return Outcome::Done;
        }
        let zone = match spec.time_zone.as_deref().map(TimeZone::get).transpose() {
            Ok(zone) => zone.unwrap_or(TimeZone::UTC),
            Err(error) => {
                let message = format!("invalid timeZone: {:?}: {error}", spec.time_zone.as_deref().unwrap_or_default());
                self.recorder.warning(&reference(&*cron), "UnknownTimeZone", message);
                return Outcome::Done;
            }
        };
        let schedule = match Schedule::parse(&spec.schedule) {
            Ok(schedule) => schedule,
            Err(error) => {
                let message = format!("unparseable schedule: {:?} : {error}", spec.schedule);
                self.recorder.warning(&reference(&*cron), "UnparseableSchedule", message);
                return Outcome::Done;
            }
        };
        let now = Timestamp::now();
        if let Some(due) = self.newest_due(&cron, spec, &schedule, &zone, now) {
            self.start(&cron, spec, due);
        }
        let Some(next) = schedule.next(now, &zone) else { return Outcome::Done };
        // A little late rather than early, as the minute has to have begun.
        let wait = Duration::try_from(next.duration_since(now)).unwrap_or_default() + Duration::from_millis(100);
        Outcome::Again(wait)
    }

    fn jobs_of(&self, cron: &CronJob) -> Vec<Arc<Job>> {
        let mine = |job: &Arc<Job>| controller_of(&job.metadata).is_some_and(|owner| Some(&owner.uid) == cron.metadata.uid.as_ref());
        self.jobs.list(cron.metadata.namespace.as_deref()).into_iter().filter(mine).collect()
    }

    /// Takes Jobs that are over off the list of active ones.
    fn note_ends(&self, cron: &Arc<CronJob>, jobs: &[Arc<Job>]) {
        let about = reference(&**cron);
        let active = cron.status.iter().flat_map(|s| s.active.iter().flatten());
        let mut over = Vec::new();
        for entry in active {
            let job = jobs.iter().find(|job| job.metadata.uid == entry.uid);
            let name = entry.name.clone().unwrap_or_default();
            match job.map(|job| end_of(job)) {
                None => self.recorder.normal(&about, "MissingJob", format!("Active job went missing: {name}")),
                Some(Some(condition)) => {
                    self.recorder.normal(&about, "SawCompletedJob", format!("Saw completed job: {name}, condition: {condition}"));
                }
                Some(None) => continue,
            }
            let completed = job.and_then(|job| job.status.as_ref()?.completion_time.clone());
            over.push((entry.uid.clone(), completed));
        }
        if over.is_empty() {
            return;
        }
        let _ = self.cron_jobs.modify(&key(&**cron), |cron| {
            let status = cron.status.get_or_insert_default();
            if let Some(active) = &mut status.active {
                active.retain(|entry| !over.iter().any(|(uid, _)| *uid == entry.uid));
            }
            let newest = over.iter().filter_map(|(_, completed)| completed.clone()).max();
            if newest > status.last_successful_time {
                status.last_successful_time = newest;
            }
        });
    }

    /// Finished Jobs beyond the history limits go, oldest first.
    fn clean_up(&self, cron: &CronJob, spec: &CronJobSpec, jobs: &[Arc<Job>]) {
        for (condition, limit) in
            [("Complete", spec.successful_jobs_history_limit.unwrap_or(3)), ("Failed", spec.failed_jobs_history_limit.unwrap_or(1))]
        {
            let mut ended: Vec<_> = jobs.iter().filter(|job| end_of(job) == Some(condition)).collect();
            ended.sort_by_key(|job| job.status.as_ref().and_then(|s| s.start_time.clone()));
            let surplus = ended.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
            for job in ended.iter().take(surplus) {
                self.delete(cron, job);
            }
        }
    }

    fn delete(&self, cron: &CronJob, job: &Job) {
        let options = DeleteOptions { propagation_policy: Some("Background".to_owned()), ..DeleteOptions::default() };
        if self.jobs.delete(&key(job), &options).is_ok() {
            let name = key(job).1;
            self.recorder.normal(&reference(cron), "SuccessfulDelete", format!("Deleted job {name}"));
        }
    }

    /// The newest time that has come since the last one that was acted on.
    fn newest_due(&self, cron: &CronJob, spec: &CronJobSpec, schedule: &Schedule, zone: &TimeZone, now: Timestamp) -> Option<Timestamp> {
        let last = cron.status.as_ref().and_then(|s| s.last_schedule_time.as_ref());
        let since = last.or(cron.metadata.creation_timestamp.as_ref()).map_or(now, |time| time.0);
        let due = std::iter::successors(schedule.next(since, zone), |at| schedule.next(*at, zone))
            .take_while(|at| *at <= now)
            .take(MOST_MISSED)
            .last()?;
        let late = now.duration_since(due);
        if spec.starting_deadline_seconds.is_some_and(|deadline| late > SignedDuration::from_secs(deadline)) {
            let message = format!("Missed scheduled time to start a job: {}", due.strftime("%a, %d %b %Y %H:%M:%S +0000"));
            self.recorder.warning(&reference(cron), "MissSchedule", message);
            return None;
        }
        Some(due)
    }

    fn start(&self, cron: &CronJob, spec: &CronJobSpec, due: Timestamp) {
        let about = reference(cron);
        let (namespace, cron_name) = key(cron);
        let Some(current) = self.cron_jobs.get(&namespace, &cron_name) else { return };
        let active: Vec<_> = current.status.iter().flat_map(|s| s.active.iter().flatten()).cloned().collect();
        match spec.concurrency_policy.as_deref() {
            Some("Forbid") if !active.is_empty() => {
                let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.recorder.normal(&about, "JobAlreadyActive", message);
                return;
            }
            Some("Replace") => {
                for entry in &active {
                    if let Some(job) = self.jobs.get(&namespace, entry.name.as_deref().unwrap_or_default()) {
                        self.delete(cron, &job);
                    }
                }
            }
            _ => {}
        }
        let job = job_at(cron, spec, due);
        let name = job.metadata.name.clone().unwrap_or_default();
        match self.jobs.create(&namespace, &job) {
            Ok(job) => {
                self.recorder.normal(&about, "SuccessfulCreate", format!("Created job {name}"));
                let _ = self.cron_jobs.modify(&key(cron), |cron| {
                    let status = cron.status.get_or_insert_default();
                    status.last_schedule_time = Some(Time(due));
                    let mut entry = reference(&*job);
                    entry.field_path = None;
                    status.active.get_or_insert_default().push(entry);
                });
            }
            Err(fault) if fault.reason == Reason::AlreadyExists => {
                let _ = self.cron_jobs.modify(&key(cron), |cron| cron.status.get_or_insert_default().last_schedule_time = Some(Time(due)));
            }
            Err(fault) => self.recorder.warning(&about, "FailedCreate", format!("Error creating job: {fault}")),
        }
    }
}

/// Named by the minute it was due at, so that none is made twice.
fn job_at(cron: &CronJob, spec: &CronJobSpec, due: Timestamp) -> Job {
    let template = spec.job_template.clone();
    let metadata = template.metadata.unwrap_or_default();
    let mut annotations = metadata.annotations.unwrap_or_default();
    annotations.insert(SCHEDULED_AT.to_owned(), due.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    let prefix: String = cron.metadata.name.as_deref().unwrap_or_default().chars().take(52).collect();
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{prefix}-{}", due.as_second() / 60)),
            namespace: cron.metadata.namespace.clone(),
            labels: metadata.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controlled_by(cron)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

fn end_of(job: &Job) -> Option<&'static str> {
    let ended = |kind: &str| job.status.iter().flat_map(|s| s.conditions.iter().flatten()).any(|c| c.type_ == kind && c.status == "True");
    ["Complete", "Failed"].into_iter().find(|kind| ended(kind))
}
