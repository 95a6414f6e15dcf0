//! From a scenario to a plan for one gateway.

use std::collections::BTreeMap;
use std::time::Duration;

use gateways::GatewayKind;
use serde_json::{Map, Value};

use super::app::with_namespace;
use super::catalogue::Entry;
use super::decode::Spanned;
use super::expect::{Expect, GatewayExpectation, ObjectName};
use super::model::{Change, LinkChange, Scenario, Setting, Settle};
use super::plan::{Plan, PlannedChange, PlannedLink, PlannedProbe, PlannedSettle};
use super::probe::{ConnectionUse, ProbeSpec};
use super::substitute::{resolve_setting, substitute};
use super::time::{Scale, Scaled, Time, Times};
use crate::probe::Schedule;
use crate::signature::Expectation;
use crate::signature::object::CLUSTER_SCOPED;

/// Gateways that a scenario can speak of, in the order of their names.
pub fn gateway_names() -> Vec<&'static str> {
    let mut names = GatewayKind::names();
    names.sort_unstable();
    names
}

impl Scenario {
    /// Every scaled time: those under `times` and those of the gateway's settings.
    pub fn scaled_times(&self) -> BTreeMap<String, Spanned<Scaled>> {
        let mut times = self.times.clone();
        for (name, setting) in self.gateway.iter().flat_map(|settings| &settings.value.0) {
            if let Setting::Scaled(scaled) = &setting.value {
                times.insert(name.clone(), Spanned { value: scaled.clone(), span: setting.span });
            }
        }
        times
    }

    pub fn times(&self, scale: Scale) -> Times {
        Times::new(&self.scaled_times(), scale)
    }

    /// Gateways that the scenario says something about.
    pub fn gateways(&self) -> Vec<&'static str> {
        gateway_names().into_iter().filter(|name| self.expect.of(name).is_some()).collect()
    }

    /// Settings with every name replaced; an unknown name is the error.
    pub fn settings(&self, times: &Times) -> Result<Map<String, Value>, String> {
        let entries = self.gateway.iter().flat_map(|settings| &settings.value.0);
        entries
            .map(|(name, setting)| {
                let value = match &setting.value {
                    Setting::Scaled(_) => Value::from(format!("${name}")),
                    Setting::Plain(value) => value.clone(),
                };
                resolve_setting(&value, times).map(|value| (name.clone(), value))
            })
            .collect()
    }
}

impl Expect {
    pub fn of(&self, gateway: &str) -> Option<&Spanned<GatewayExpectation>> {
        self.gateways.get(gateway)
    }

    /// What holds for one gateway: its own part, and of the shared part what it does not say itself.
    pub fn merged(&self, gateway: &str) -> GatewayExpectation {
        let mut merged = self.of(gateway).map_or_else(GatewayExpectation::empty, |own| own.value.clone());
        for (probe, expected) in &self.client {
            merged.client.entry(probe.clone()).or_insert_with(|| expected.clone());
        }
        for (probe, expected) in &self.backend {
            merged.backend.entry(probe.clone()).or_insert_with(|| expected.clone());
        }
        if merged.first_failing_hop.is_none() {
            merged.first_failing_hop.clone_from(&self.first_failing_hop);
        }
        merged.kubernetes.extend(self.kubernetes.iter().cloned());
        merged.order.extend(self.order.iter().cloned());
        merged
    }
}

impl Entry {
    /// What a run on `gateway` does. Only for entries of a catalogue, whose names are all checked.
    pub fn plan(&self, gateway: &str, scale: Scale) -> Plan {
        let scenario = &self.scenario;
        let times = scenario.times(scale);
        let planner = Planner { times: &times, namespace: &self.app.namespace };
        let own = scenario.expect.of(gateway);
        let skip = match own {
            None => Some(format!("nothing was observed with {gateway} yet")),
            Some(own) => own.skip.clone(),
        };
        let expectation =
            |parts| Expectation { gateway: gateway.to_owned(), namespace: self.app.namespace.clone(), parts, times: times.clone() };
        let expected = scenario.expect.merged(gateway);
        let cluster = scenario.cluster.as_ref();
        Plan {
            scenario: scenario.id.value.clone(),
            title: scenario.title.value.clone(),
            level: scenario.level.name(),
            tags: scenario.tags.iter().map(|tag| tag.value.clone()).collect(),
            gateway: gateway.to_owned(),
            skip,
            versions: own.and_then(|own| own.versions.clone()),
            namespace: self.app.namespace.clone(),
            nodes: cluster.and_then(|cluster| cluster.nodes.as_ref()).map_or(2, |nodes| nodes.value),
            link_latency: cluster.and_then(|cluster| cluster.link_latency).map(|latency| latency.0),
            link_loss: cluster.and_then(|cluster| cluster.link_loss),
            node_grace: cluster.and_then(|cluster| cluster.node_grace.as_ref()).map(|grace| grace.on(scale)),
            needs: {
                let of_all = cluster.map(|cluster| cluster.needs.iter());
                of_all.into_iter().flatten().chain(own.iter().flat_map(|own| &own.needs)).copied().collect()
            },
            settings: scenario.settings(&times).unwrap_or_default(),
            app: self.app.manifests.iter().map(|manifest| planner.object(&manifest.object)).collect(),
            setup: scenario.setup.as_ref().map(|setup| planner.change(setup)).unwrap_or_default(),
            fault: planner.change(&scenario.fault),
            fix: planner.change(&scenario.fix.change()),
            probes: planner.probes(&scenario.probes),
            healthy: expectation(GatewayExpectation { client: scenario.healthy.clone(), ..GatewayExpectation::empty() }),
            first_failing_hop: expected.first_failing_hop.as_ref().map(|hop| hop.value),
            expected: expectation(expected),
        }
    }
}

struct Planner<'a> {
    times: &'a Times,
    namespace: &'a str,
}

impl Planner<'_> {
    fn object(&self, object: &Value) -> Value {
        let object = substitute(object, self.times).unwrap_or_else(|_| object.clone());
        with_namespace(object, self.namespace)
    }

    fn name(&self, name: &ObjectName) -> ObjectName {
        let mut name = name.clone();
        if name.namespace.is_none() && !CLUSTER_SCOPED.contains(&name.kind.as_str()) {
            name.namespace = Some(self.namespace.to_owned());
        }
        name
    }

    fn change(&self, change: &Change) -> PlannedChange {
        PlannedChange {
            apply: change.apply.iter().map(|object| self.object(object)).collect(),
            patch: change.patch.iter().map(|object| self.object(object)).collect(),
            delete: change.delete.iter().map(|name| self.name(name)).collect(),
            force_delete: change.force_delete.iter().map(|name| self.name(name)).collect(),
            links: change.links.iter().map(|link| self.link(link)).collect(),
            restart: change.restart.iter().map(|name| self.name(name)).collect(),
            settle: change.settle.as_ref().map(|settle| self.settle(settle)).unwrap_or_default(),
        }
    }

    fn link(&self, link: &LinkChange) -> PlannedLink {
        PlannedLink {
            node_of: link.node_of.clone(),
            nodes: link.nodes,
            pod_network: link.pod_network,
            latency: link.latency.as_ref().map(|latency| latency.resolve(self.times)),
            loss: link.loss,
        }
    }

    fn settle(&self, settle: &Settle) -> PlannedSettle {
        let default = PlannedSettle::default();
        PlannedSettle {
            within: settle.within.as_ref().map_or(default.within, |within| within.resolve(self.times)),
            rollouts: !settle.without_rollouts,
            terminating: !settle.without_terminating,
            gateway: !settle.without_gateway,
            until: settle.until.clone(),
        }
    }

    /// In the order of their names; `together` joins the group before.
    fn probes(&self, specs: &BTreeMap<String, Spanned<ProbeSpec>>) -> Vec<Vec<PlannedProbe>> {
        let mut groups: Vec<Vec<PlannedProbe>> = Vec::new();
        for (name, spec) in specs {
            let probe = self.probe(name, spec);
            match groups.last_mut().filter(|_| spec.together) {
                Some(group) => group.push(probe),
                None => groups.push(vec![probe]),
            }
        }
        groups
    }

    fn probe(&self, name: &str, spec: &ProbeSpec) -> PlannedProbe {
        let resolve = |time: &Time| time.resolve(self.times);
        let times = spec.times.as_ref().map_or(1, |times| times.value);
        let concurrency = spec.concurrency.as_ref().map(|concurrency| concurrency.value);
        let schedule = if let Some(sweep) = &spec.sweep {
            let gaps = gaps(resolve(&sweep.from), resolve(&sweep.to), resolve(&sweep.step));
            Schedule::Sweep { gaps: gaps.into_iter().map(Into::into).collect(), times, concurrency: concurrency.unwrap_or(1) }
        } else if let Some(rate) = &spec.rate {
            let lasting = spec.lasting.as_ref().map_or(Duration::from_secs(10), |lasting| resolve(lasting));
            Schedule::Rate { per_second: f64::from(rate.value), lasting: lasting.into(), concurrency: concurrency.unwrap_or(64) }
        } else {
            let gap = spec.gap.as_ref().map_or(Duration::ZERO, |gap| resolve(gap));
            Schedule::Sequence { times, gap: gap.into(), concurrency: concurrency.unwrap_or(1) }
        };
        PlannedProbe {
            name: name.to_owned(),
            send: spec.send.value.clone(),
            headers: spec.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            body: spec.body.clone().unwrap_or_default(),
            schedule,
            connection: spec.connection.unwrap_or(ConnectionUse::New),
            hold: spec.hold.as_ref().map_or(Duration::ZERO, |hold| resolve(hold)),
            deadline: spec.deadline.as_ref().map_or(Duration::from_secs(10), resolve),
            during: spec.during.as_ref().map(|change| self.change(change)),
            from: spec.from.as_ref().map(|name| self.name(name)),
        }
    }
}

/// Both ends included; a step of nothing gives the first alone.
fn gaps(from: Duration, to: Duration, step: Duration) -> Vec<Duration> {
    let mut gaps = Vec::new();
    let mut gap = from;
    while gap <= to {
        gaps.push(gap);
        if step.is_zero() {
            break;
        }
        gap += step;
    }
    gaps
}
