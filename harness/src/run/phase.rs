//! One look at the scenario: probes, evidence, hop test.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gateways::GatewayKind;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use super::emit::Emitter;
use super::lab::Lab;
use super::probing::{self, Collected};
use super::single::RunError;
use crate::events::EventKind;
use crate::evidence::journal::{JournalKeeper, following};
use crate::evidence::{PhaseWindow, observe};
use crate::hop::{HopTest, Speech, first_failing};
use crate::kubernetes::ExecTarget;
use crate::probe::{Line, Probe, Record};
use crate::scenario::expect::ObjectName;
use crate::scenario::{Plan, PlannedProbe};
use crate::signature::client::answers_as;
use crate::signature::{Observations, Phase};

/// Between the first request and what happens during the load, and between its end and the end of the load.
const AROUND_CHANGE: Duration = Duration::from_millis(500);
/// Answers in a row that show a gateway and an application to be there.
const GOOD_ANSWERS: u32 = 2;
/// Pause between attempts while waiting for them.
const ANSWER_AGAIN: Duration = Duration::from_millis(50);
/// Some gateways wait long for an answer unless they are told otherwise (see `gateways`), but a hop test need not.
const LONGEST_ANSWER: Duration = Duration::from_secs(5);

/// What phases of one run have in common.
pub struct Stage<'a> {
    pub lab: &'a Lab,
    pub plan: &'a Plan,
    pub gateway: GatewayKind,
    pub emit: &'a Emitter,
}

impl Stage<'_> {
    /// Sends the probes and gathers the evidence.
    pub async fn look(&self, phase: Phase, keeper: &mut JournalKeeper) -> Result<Observations, RunError> {
        let started = Timestamp::now();
        let lab = self.lab;
        let requests = following(keeper, &lab.kubernetes, &lab.mirror, &lab.namespaces, self.send(phase)).await?;

        self.emit.step(format!("{}: gathering evidence", phase.name()));
        if phase == Phase::Fault {
            self.reported().await;
        }
        let window = PhaseWindow {
            kubernetes: &lab.kubernetes,
            senders: &lab.senders,
            mirror: &lab.mirror,
            keeper,
            gateway: self.gateway,
            namespaces: &lab.namespaces,
            started,
        };
        let (mut observations, troubles) = observe(&window, requests).await;
        for message in troubles {
            self.emit.tell(EventKind::Warning { message });
        }
        // After the journal was read: the hop test's own connections are no evidence.
        self.emit.step(format!("{}: trying each hop", phase.name()));
        observations.hops = self.try_hops().await?;
        observations.first_failing_hop = Some(first_failing(&observations.hops));
        self.tell(phase, &observations);
        Ok(observations)
    }

    /// Waits until the gateway answers one request of every probe as the controls want it, several times in a row: a rollout that is over
    /// for Kubernetes may not be over for the last proxy on the way. The control that follows decides; this only waits.
    pub async fn first_answers(&self, phase: Phase, within: Duration) -> Result<bool, RunError> {
        self.emit.step(format!("{}: waiting for the first good answers", phase.name()));
        let deadline = tokio::time::Instant::now() + within * self.lab.setting.patience;
        let mut in_a_row = 0;
        while in_a_row < GOOD_ANSWERS {
            let mut probes = Vec::new();
            for probe in self.plan.probes.iter().flatten().filter(|probe| probe.from.is_none()) {
                probes.push(probe.to_wire(self.lab.gateway_address(probe.send.tls).await?).brief());
            }
            if probes.is_empty() {
                return Ok(true);
            }
            let records = self.lab.senders.quietly(&probing::client(), probes).await?;
            let healthy = &self.plan.healthy.parts.client;
            let good = records.iter().all(|record| answers_as(healthy.get(&record.probe).map(|expected| &expected.value), record));
            in_a_row = if good { in_a_row + 1 } else { 0 };
            if tokio::time::Instant::now() >= deadline {
                return Ok(false);
            }
            if in_a_row == 0 {
                tokio::time::sleep(ANSWER_AGAIN).await;
            }
        }
        Ok(true)
    }

    /// Gives nodes their time to report what the probes have done to containers: a kubelet looks at its containers once a second and
    /// writes their status some time later. Whether it has been reported then is judged like everything else.
    async fn reported(&self) {
        let expected = &self.plan.expected.parts.kubernetes;
        let missing = |mirror: &super::mirror::Mirror| {
            let snapshot = mirror.snapshot();
            let objects: Vec<&Value> = snapshot.all().map(|(_, object)| &**object).collect();
            let item = |(index, one)| crate::signature::object::evaluate(index, one, &objects, &self.plan.namespace);
            expected.iter().map(|one| &one.value).enumerate().map(item).find(|item| !item.met).map(|item| item.observed)
        };
        let _ = self.lab.mirror.wait(self.lab.setting.reported_within, "what nodes report", missing).await;
    }

    async fn send(&self, phase: Phase) -> Result<BTreeMap<String, Vec<Record>>, RunError> {
        let mut collected = Collected::new(phase, self.emit);
        for group in &self.plan.probes {
            self.send_group(phase, group, &mut collected).await?;
        }
        Ok(collected.into_requests())
    }

    /// Probes of a group run at the same time, each pod that sends with its own process.
    async fn send_group(&self, phase: Phase, group: &[PlannedProbe], collected: &mut Collected<'_>) -> Result<(), RunError> {
        let mut by_pod: BTreeMap<String, (ExecTarget, Vec<Probe>)> = BTreeMap::new();
        for probe in group {
            let from = self.sender(probe.from.as_ref())?;
            let address = self.lab.gateway_address(probe.send.tls).await?;
            by_pod.entry(from.to_string()).or_insert_with(|| (from, Vec::new())).1.push(probe.to_wire(address));
            self.emit.tell(EventKind::ProbeStarted { phase, probe: probe.name.clone(), expected_requests: probe.expected_requests() });
        }
        let names: Vec<&str> = group.iter().map(|probe| probe.name.as_str()).collect();
        self.emit.step(format!("{}: sending {}", phase.name(), names.join(", ")));

        let (lines, mut incoming) = mpsc::channel::<Line>(256);
        let (stop, stopped) = watch::channel(false);
        let sending = async {
            let drives = by_pod.into_values().map(|(from, probes)| self.drive(from, probes, lines.clone(), stopped.clone()));
            let result = futures::future::try_join_all(drives).await;
            drop(lines);
            result.map(drop)
        };
        let changing = async {
            let result = self.change_during(phase, group).await;
            if group.iter().any(|probe| probe.during.is_some()) {
                let _ = stop.send(true);
            }
            // Kept until the end: a dropped sender is no reason to stop.
            result.map(|()| stop)
        };
        let collecting = async {
            while let Some(line) = incoming.recv().await {
                collected.add(line);
            }
        };
        let (sent, changed, ()) = tokio::join!(sending, changing, collecting);
        sent?;
        changed?;
        Ok(())
    }

    async fn drive(
        &self,
        from: ExecTarget,
        probes: Vec<Probe>,
        lines: mpsc::Sender<Line>,
        mut stopped: watch::Receiver<bool>,
    ) -> Result<(), RunError> {
        let mut probing = self.lab.senders.start(&from, probes).await?;
        let mut told_to_stop = false;
        loop {
            tokio::select! {
                line = probing.next() => match line? {
                    Some(line) => { let _ = lines.send(line).await; }
                    None => break,
                },
                stop = until_true(&mut stopped), if !told_to_stop => {
                    told_to_stop = true;
                    if stop {
                        probing.stop().await?;
                    }
                }
            }
        }
        Ok(probing.finish().await?)
    }

    /// What happens while the load is on, and half a second on either side.
    async fn change_during(&self, phase: Phase, group: &[PlannedProbe]) -> Result<(), RunError> {
        for change in group.iter().filter_map(|probe| probe.during.as_ref()) {
            tokio::time::sleep(AROUND_CHANGE).await;
            self.lab.change(change, self.plan, phase, self.emit).await?;
            self.lab.settle(&change.settle, self.plan, phase, self.emit).await?;
            tokio::time::sleep(AROUND_CHANGE).await;
        }
        Ok(())
    }

    fn sender(&self, from: Option<&ObjectName>) -> Result<ExecTarget, RunError> {
        let Some(name) = from else { return Ok(probing::client()) };
        let namespace = name.namespace.as_deref().unwrap_or(&self.plan.namespace);
        let snapshot = self.lab.mirror.snapshot();
        let pod = snapshot.of_kind("Pod", Some(namespace)).find(|pod| {
            let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
            name.name.as_deref().is_some_and(|wanted| pod_name == wanted || pod_name.starts_with(&format!("{wanted}-")))
        });
        pod.and_then(crate::hop::test::exec_target)
            .ok_or_else(|| RunError::Plan(format!("a probe is to be sent from {name}, and no such pod with the lab's executable runs")))
    }

    /// Tries the hops of the first probe's request: the last look into pods under test, where nothing is left behind.
    pub async fn try_hops(&self) -> Result<Vec<crate::signature::HopRecord>, RunError> {
        let Some(probe) = self.plan.probes.iter().flatten().next() else { return Ok(Vec::new()) };
        let gateway = self.lab.gateway_address(probe.send.tls).await?;
        let settings = &self.plan.settings;
        let read_timeout =
            settings.get("read-timeout").and_then(Value::as_str).and_then(|text| crate::scenario::time::parse_duration(text).ok());
        let protocol = settings.get("backend-protocol").and_then(|protocol| serde_json::from_value(protocol.clone()).ok());
        let snapshot = self.lab.mirror.snapshot();
        let test = HopTest {
            senders: &self.lab.senders,
            snapshot: &snapshot,
            gateway: &gateway,
            namespace: &self.plan.namespace,
            kind: self.gateway,
            host: &probe.send.host,
            target: &probe.send.target,
            speech: protocol.map(Speech::of).unwrap_or_default(),
            answer_within: read_timeout.unwrap_or(LONGEST_ANSWER).min(LONGEST_ANSWER),
        };
        let hops = test.run().await;
        self.lab.senders.leave().await;
        Ok(hops)
    }

    fn tell(&self, phase: Phase, observations: &Observations) {
        for line in &observations.gateway_log {
            self.emit.tell(EventKind::GatewayLog { phase, line: line.clone() });
        }
        for record in &observations.journal {
            self.emit.tell(EventKind::Journal { phase, record: record.clone() });
        }
        for change in &observations.timeline {
            self.emit.tell(EventKind::Timeline { phase, change: change.clone() });
        }
        for hop in &observations.hops {
            self.emit.tell(EventKind::Hop { phase, hop: hop.clone() });
        }
        if let Some(hop) = observations.first_failing_hop {
            self.emit.tell(EventKind::FirstFailingHop { phase, hop });
        }
        for object in &observations.objects {
            self.emit.tell(EventKind::Object { phase, object: Arc::clone(object) });
        }
    }
}

/// False when nobody can say so any more.
async fn until_true(flag: &mut watch::Receiver<bool>) -> bool {
    flag.wait_for(|set| *set).await.is_ok()
}
