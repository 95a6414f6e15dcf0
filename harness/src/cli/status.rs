//! `gatelab status`: is the lab green or red, and at which hop?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use owo_colors::OwoColorize;
use serde::Serialize;
use tokio::sync::mpsc;

use super::arguments::{Global, StatusArgs};
use super::exit::Exit;
use super::failure::Failure;
use super::labs::{self, LabNote, OuterPlace};
use super::{catalogue, gateways as gateway_command, interrupt, up};
use crate::events::RunId;
use crate::hop::first_failing;
use crate::probe::{Micros, Outcome, Record, Schedule};
use crate::provider::{Attached, ClusterHandle, ClusterSetting, Embedded, Kind, KindOptions, Provider};
use crate::run::lab::Lab;
use crate::run::phase::Stage;
use crate::run::{Emitter, probing};
use crate::scenario::{Hop, Plan, Scale};
use crate::signature::HopRecord;
use crate::terminal::Screen;

/// Requests of each probe: a status is a glance, the proof is `run`.
const REQUESTS: u32 = 5;
const AGAIN_AFTER: Duration = Duration::from_secs(2);

#[derive(Debug, Serialize)]
struct Status {
    lab: String,
    healthy: bool,
    probes: Vec<ProbeStatus>,
    first_failing_hop: Hop,
    hops: Vec<HopRecord>,
}

#[derive(Debug, Serialize)]
struct ProbeStatus {
    name: String,
    request: String,
    healthy: bool,
    /// How many requests ended in which status or outcome.
    results: BTreeMap<String, u32>,
    /// The slowest, in milliseconds.
    slowest_ms: u64,
}

pub async fn run(args: &StatusArgs, global: &Global, screen: &Arc<Screen>) -> Result<Exit, Failure> {
    let record = labs::find(args.name.as_deref())?;
    let note = record.note().ok_or_else(|| {
        Failure::environment(format!("what lab `{}` was made for is not known", record.name()))
            .hint("labs made by `gatelab up` have a status")
    })?;
    let plan = plan(&note, global)?;
    let cancel = interrupt::token(screen, "the lab stays up")?;
    let (setting, handle) = attach(&record)?;
    let lab = Lab::attach(setting, handle, &plan).await.map_err(|error| up::failure(&error))?;
    loop {
        let status = tokio::select! {
            status = look(record.name(), &lab, &plan) => status?,
            () = cancel.cancelled() => return Err(Failure::new(Exit::Interrupted, "interrupted")),
        };
        if args.json {
            screen.data(&serde_json::to_string(&status).unwrap_or_default());
        } else {
            show(&status, screen);
        }
        if !args.watch {
            return Ok(if status.healthy { Exit::Success } else { Exit::Unexpected });
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN_AFTER) => {}
            // Being interrupted is how watching ends.
            () = cancel.cancelled() => return Ok(Exit::Success),
        }
    }
}

/// The cluster, which stays as it is.
fn attach(lab: &labs::Lab) -> Result<(ClusterSetting, Box<dyn ClusterHandle>), Failure> {
    match lab {
        labs::Lab::Embedded(record) => {
            let handle = Embedded::attach(&record.state_dir).map_err(|error| Failure::from_error(Exit::Environment, &error))?;
            Ok((Embedded.setting(), handle))
        }
        labs::Lab::Outer(outer) => {
            let mark = match &outer.place {
                OuterPlace::Kind { .. } => None,
                OuterPlace::Context { mark } => Some(mark.clone()),
            };
            let setting = Kind::new(KindOptions::default()).setting();
            Ok((setting, Box::new(Attached { kubeconfig: outer.kubeconfig.clone(), mark })))
        }
    }
}

fn plan(note: &LabNote, global: &Global) -> Result<Plan, Failure> {
    let found = catalogue::find(global)?;
    let entry = catalogue::pick(&found, std::slice::from_ref(&note.scenario))?.remove(0);
    let kind = gateway_command::kind(&note.gateway)?;
    Ok(entry.plan(kind.name(), if note.real_time { Scale::Production } else { Scale::Lab }))
}

async fn look(name: &str, lab: &Lab, plan: &Plan) -> Result<Status, Failure> {
    let failed = |error: crate::run::RunError| up::failure(&error);
    let mut wires = Vec::new();
    for probe in plan.probes.iter().flatten().filter(|probe| probe.from.is_none()) {
        let address = lab.gateway_address(probe.send.tls).await.map_err(|error| failed(error.into()))?;
        let mut wire = probe.to_wire(address);
        wire.schedule = Schedule::Sequence { times: REQUESTS, gap: Micros::ZERO, concurrency: 1 };
        wires.push(wire);
    }
    let records = lab.senders.quietly(&probing::client(), wires).await.map_err(|error| failed(error.into()))?;
    let probes: Vec<ProbeStatus> = plan
        .probes
        .iter()
        .flatten()
        .filter(|probe| probe.from.is_none())
        .map(|probe| probe_status(probe, records.iter().filter(|record| record.probe == probe.name)))
        .collect();
    let (events, _) = mpsc::unbounded_channel();
    let id = RunId { scenario: name.to_owned(), gateway: plan.gateway.clone(), repeat: 1 };
    let emit = Emitter::new(id, events);
    let gateway = crate::run::lab::gateway_kind(plan).map_err(failed)?;
    let hops = Stage { lab, plan, gateway, emit: &emit }.try_hops().await.map_err(failed)?;
    let first_failing_hop = first_failing(&hops);
    let healthy = probes.iter().all(|probe| probe.healthy) && first_failing_hop == Hop::None;
    Ok(Status { lab: name.to_owned(), healthy, probes, first_failing_hop, hops })
}

fn probe_status<'a>(probe: &crate::scenario::PlannedProbe, records: impl Iterator<Item = &'a Record>) -> ProbeStatus {
    let mut results = BTreeMap::new();
    let (mut healthy, mut slowest, mut count) = (true, Micros::ZERO, 0);
    for record in records {
        let good = record.outcome == Outcome::Answered && record.status.is_some_and(|status| status < 400);
        healthy &= good;
        count += 1;
        slowest = slowest.max(record.timings.total);
        let result = match (record.outcome, record.status) {
            (Outcome::Answered, Some(status)) => status.to_string(),
            (outcome, _) => outcome.name().to_owned(),
        };
        *results.entry(result).or_default() += 1;
    }
    ProbeStatus {
        name: probe.name.clone(),
        request: probe.send.to_string(),
        healthy: healthy && count > 0,
        results,
        slowest_ms: slowest.0 / 1000,
    }
}

fn show(status: &Status, screen: &Screen) {
    let word = |healthy: bool| match healthy {
        true => format!("{:<6}", "green").green().to_string(),
        false => format!("{:<6}", "red").red().bold().to_string(),
    };
    for probe in &status.probes {
        let results = probe.results.iter().map(|(result, count)| format!("{count} x {result}")).collect::<Vec<_>>().join(", ");
        screen.data(&format!("{} {}  {}  {results}  (slowest {} ms)", word(probe.healthy), probe.name, probe.request, probe.slowest_ms));
    }
    for hop in &status.hops {
        screen.data(&format!("{} {:<19} {}  [{}]", word(hop.worked), hop.hop.name(), hop.seen, hop.tried));
    }
    match status.first_failing_hop {
        Hop::None => {}
        hop => screen.data(&format!("first failing hop: {hop}")),
    }
}
