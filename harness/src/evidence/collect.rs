//! The observations of one phase.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gateways::{GATEWAY_NAMESPACE, GatewayKind};
use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::gateway_log;
use super::journal::JournalKeeper;
use crate::kubernetes::Kubernetes;
use crate::probe::{Outcome, Phase as ProbePhase, Record};
use crate::run::mirror::{Mirror, Snapshot};
use crate::run::probing::Senders;
use crate::run::{probing, sync};
use crate::signature::{GatewayLine, JournalRecord, Observations};

/// A request's access log line is written when the request ends, and reaches the pod's log a moment later.
const LOG_WITHIN: Duration = Duration::from_secs(3);
const LOG_AGAIN: Duration = Duration::from_millis(50);

/// What a phase's evidence is about.
pub struct PhaseWindow<'a> {
    pub kubernetes: &'a Kubernetes,
    pub senders: &'a Senders,
    pub mirror: &'a Mirror,
    pub keeper: &'a JournalKeeper,
    pub gateway: GatewayKind,
    /// Namespaces of the application.
    pub namespaces: &'a BTreeSet<String>,
    pub started: Timestamp,
}

/// Everything seen in a phase but for the hops, and what could not be looked at.
pub async fn observe(window: &PhaseWindow<'_>, requests: BTreeMap<String, Vec<Record>>) -> (Observations, Vec<String>) {
    let snapshot = window.mirror.snapshot();
    let since = gateway_log::just_before(window.started);
    let (log, journal) = tokio::join!(
        gateway_lines(window, &requests, since),
        window.keeper.entries(window.kubernetes, window.senders, &snapshot, window.namespaces, since)
    );
    let (gateway_log, mut troubles) = log;
    let (journal, journal_troubles) = journal;
    troubles.extend(journal_troubles);
    let observations = Observations {
        requests,
        gateway_log,
        journal: of_probes_or_connections(journal),
        hops: Vec::new(),
        first_failing_hop: None,
        objects: objects(&snapshot, window.namespaces),
        timeline: window.mirror.take_timeline(),
    };
    (observations, troubles)
}

/// Lines of all gateway pods, once every request that got a status from the gateway has its line.
async fn gateway_lines(
    window: &PhaseWindow<'_>,
    requests: &BTreeMap<String, Vec<Record>>,
    since: Timestamp,
) -> (Vec<GatewayLine>, Vec<String>) {
    let awaited: BTreeSet<Uuid> =
        requests.values().flatten().filter(|record| record.status.is_some()).map(|record| record.request_id).collect();
    let answered: BTreeSet<Uuid> = requests.values().flatten().filter(|record| complete(record)).map(|record| record.request_id).collect();
    let begun = Instant::now();
    loop {
        let (mut lines, mut troubles) = (Vec::new(), Vec::new());
        for pod in sync::gateway_pods(&window.mirror.snapshot()) {
            match window.kubernetes.logs_since(&pod, since).await {
                Ok(text) => lines.extend(gateway_log::read(window.gateway, &text)),
                Err(error) => troubles.push(error.to_string()),
            }
        }
        lines.sort_by_key(|line| line.at);
        let logged: BTreeSet<Uuid> = gateway_log::logged_requests(&lines).collect();
        if awaited.is_subset(&logged) || begun.elapsed() >= LOG_WITHIN {
            // Of those that broke off, some gateways write nothing: whether that was expected is judged.
            let missing = answered.difference(&logged).count();
            if missing > 0 {
                troubles.push(format!("{missing} of {} answered requests have no line in the gateway's access log", answered.len()));
            }
            return (lines, troubles);
        }
        tokio::time::sleep(LOG_AGAIN).await;
    }
}

fn complete(record: &Record) -> bool {
    record.outcome == Outcome::Answered && record.phase == ProbePhase::Done && record.status.is_some()
}

/// Entries of health checks are of no interest: the kubelet's, and the lab's own.
fn of_probes_or_connections(journal: Vec<JournalRecord>) -> Vec<JournalRecord> {
    journal.into_iter().filter(|record| record.entry["health"] != true).collect()
}

/// Objects of the application's and the gateway's namespaces, and the nodes; Secrets with their content blacked out.
fn objects(snapshot: &Snapshot, namespaces: &BTreeSet<String>) -> Vec<Arc<Value>> {
    let wanted = |namespace: &str| namespaces.contains(namespace) || namespace == GATEWAY_NAMESPACE;
    snapshot
        .all()
        .filter(|(key, _)| key.0 == "Node" || wanted(&key.1))
        .filter(|(key, _)| key.1 != probing::CLIENT_NAMESPACE)
        .map(|(key, object)| {
            let mut object = Arc::clone(object);
            if key.0 == "Secret"
                && let Some(data) = Arc::make_mut(&mut object).get_mut("data").and_then(Value::as_object_mut)
            {
                data.values_mut().for_each(|value| *value = "…".into());
            }
            object
        })
        .collect()
}
