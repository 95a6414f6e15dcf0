//! The whole of an expectation against the whole of what was seen, and what a run comes to.

use super::expectation::{Expectation, Item, Items};
use super::observation::{Observations, Phase};
use super::{backend, client, log, object, order};
use crate::events::Verdict;

/// Every part of the expectation, met or not.
pub fn evaluate(expectation: &Expectation, observations: &Observations) -> Vec<Item> {
    let parts = &expectation.parts;
    let mut items = Vec::new();
    for (probe, expected) in &parts.client {
        items.extend(client::evaluate(probe, expected, observations, &expectation.times));
    }
    for (index, expected) in parts.log.iter().enumerate() {
        items.push(log::evaluate(index, expected, observations));
    }
    for (probe, expected) in &parts.backend {
        items.extend(backend::evaluate(probe, expected, observations));
    }
    if let Some(expected) = &parts.first_failing_hop {
        let mut hop = Items::under("first-failing-hop");
        let seen = observations.first_failing_hop;
        let observed = seen.map_or_else(|| "hops were not tried".to_owned(), |hop| hop.to_string());
        hop.add("", seen == Some(expected.value), expected.to_string(), observed);
        items.extend(hop.into_vec());
    }
    let objects: Vec<&serde_json::Value> = observations.objects.iter().map(|object| &**object).collect();
    for (index, expected) in parts.kubernetes.iter().enumerate() {
        items.push(object::evaluate(index, expected, &objects, &expectation.namespace));
    }
    for (index, expected) in parts.order.iter().enumerate() {
        items.push(order::evaluate(index, expected, observations, &expectation.times));
    }
    items
}

/// Whether the healthy run meets all that is expected of the broken one: then a match says nothing about the fault.
pub fn is_vacuous(expected: &Expectation, healthy: &Observations) -> bool {
    evaluate(expected, healthy).iter().all(|item| item.met)
}

/// Each phase held against its expectation; `None` where the run did not come so far.
#[derive(Clone, Debug, Default)]
pub struct Controls<'a> {
    pub healthy: Option<&'a [Item]>,
    pub fault: Option<&'a [Item]>,
    pub fixed: Option<&'a [Item]>,
    /// The healthy phase met the expectation of the fault.
    pub vacuous: bool,
}

/// What a run comes to. A control that failed outweighs everything: then nothing was learnt about the fault.
pub fn verdict(controls: &Controls<'_>) -> Verdict {
    let void = |reason: String| Verdict::Void { reason };
    if let Some(reason) = broken_control(Phase::Healthy, controls.healthy) {
        return void(reason);
    }
    if controls.vacuous {
        return void("the healthy run meets what is expected of the broken one: the expectation is empty".to_owned());
    }
    match controls.fault {
        None => return void("the phase `fault` was not judged".to_owned()),
        Some([]) => return void("the scenario expects nothing of this gateway".to_owned()),
        Some(_) => {}
    }
    if let Some(reason) = broken_control(Phase::Fixed, controls.fixed) {
        return void(reason);
    }
    if controls.fault.is_some_and(|items| items.iter().all(|item| item.met)) { Verdict::Proven } else { Verdict::Unexpected }
}

fn broken_control(phase: Phase, items: Option<&[Item]>) -> Option<String> {
    match items {
        None => Some(format!("the control `{}` was not judged", phase.name())),
        Some([]) => Some(format!("the control `{}` expects nothing", phase.name())),
        Some(items) => {
            let unmet = items.iter().find(|item| !item.met)?;
            Some(format!("control `{}`: {}: expected {}, observed {}", phase.name(), unmet.name, unmet.expected, unmet.observed))
        }
    }
}
