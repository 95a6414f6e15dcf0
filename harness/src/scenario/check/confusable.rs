//! Scenarios that look the same have to say how they are told apart.

use crate::scenario::catalogue::Catalogue;
use crate::scenario::expect::{ClientExpectation, GatewayExpectation};
use crate::scenario::log::LogExpectation;
use crate::scenario::planning::gateway_names;
use crate::scenario::problem::{Mistake, Problem};

pub fn check(catalogue: &Catalogue) -> Vec<Problem> {
    let mut problems = Vec::new();
    for entry in catalogue.entries() {
        let scenario = &entry.scenario;
        for (other, how) in &scenario.confusable_with {
            if let Ok(found) = catalogue.get(other)
                && !found.scenario.confusable_with.contains_key(&scenario.id.value)
            {
                let mistake = Mistake::Contradiction {
                    about: format!("`{other}` does not name this scenario in turn"),
                    label: "confusion is mutual".to_owned(),
                    help: format!("add `{}` under confusable-with of `{other}`", scenario.id.value),
                };
                problems.push(Problem::new(mistake, &entry.source, how.span));
            }
        }
        for other in catalogue.entries().filter(|other| other.scenario.id.value != scenario.id.value) {
            let other_id = &other.scenario.id.value;
            for gateway in gateway_names() {
                let both = scenario.expect.of(gateway).is_some_and(|own| own.skip.is_none())
                    && other.scenario.expect.of(gateway).is_some_and(|own| own.skip.is_none());
                if both && !scenario.confusable_with.contains_key(other_id) {
                    let (left, right) = (scenario.expect.merged(gateway), other.scenario.expect.merged(gateway));
                    if same(&left, &right) {
                        let span = scenario.expect.of(gateway).map_or(scenario.expect.span, |own| own.span);
                        let mistake = Mistake::Confusable { other: other_id.clone(), gateway: gateway.to_owned() };
                        problems.push(Problem::new(mistake, &entry.source, span));
                    }
                }
            }
        }
    }
    problems
}

/// Names of probes are a scenario's own; what they meet is what counts.
fn same(left: &GatewayExpectation, right: &GatewayExpectation) -> bool {
    let client = |parts: &GatewayExpectation| -> Vec<ClientExpectation> { parts.client.values().map(|part| part.value.clone()).collect() };
    let log =
        |parts: &GatewayExpectation| parts.log.iter().map(|line| LogExpectation { of: None, ..line.value.clone() }).collect::<Vec<_>>();
    let backend = |parts: &GatewayExpectation| parts.backend.values().cloned().collect::<Vec<_>>();
    client(left) == client(right)
        && log(left) == log(right)
        && backend(left) == backend(right)
        && left.first_failing_hop == right.first_failing_hop
        && left.kubernetes == right.kubernetes
        && left.order.len() == right.order.len()
}
