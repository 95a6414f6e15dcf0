//! The table as the scenarios document it.

use gateways::GatewayKind;

use super::table::{Cell, Matrix, Row, SCHEMA};
use crate::scenario::catalogue::Catalogue;
use crate::scenario::expect::{ClientExpectation, GatewayExpectation, StatusExpectation};
use crate::scenario::planning::gateway_names;
use crate::scenario::{Bound, Maker, Scenario};

pub fn matrix(catalogue: &Catalogue) -> Matrix {
    let rows: Vec<Row> = catalogue.entries().map(|entry| row(&entry.scenario)).collect();
    // One that nothing was observed with yet has no column.
    let observed = gateway_names().into_iter().filter(|gateway| rows.iter().any(|row| row.cells.contains_key(*gateway)));
    let gateways = observed.map(str::to_owned).collect();
    Matrix { schema: SCHEMA, source: "expectations", gateways, rows }
}

fn row(scenario: &Scenario) -> Row {
    let cells =
        scenario.gateways().into_iter().map(|gateway| (gateway.to_owned(), cell(gateway, &scenario.expect.merged(gateway)))).collect();
    Row { scenario: scenario.id.value.clone(), title: scenario.title.value.clone(), cells }
}

fn cell(gateway: &str, expected: &GatewayExpectation) -> Cell {
    let mut cell = Cell { skipped: expected.skip.clone(), ..Cell::default() };
    let told: Vec<(&String, Told)> = expected.client.iter().map(|(probe, client)| (probe, told(&client.value))).collect();
    let any_fails = told.iter().any(|(_, told)| told.fails);
    for (probe, told) in told {
        if told.fails || !any_fails {
            cell.add(probe, told.what, told.made_by);
        }
    }
    if let Ok(kind) = gateway.parse::<GatewayKind>() {
        expected.log.iter().filter_map(|line| line.mark(kind)).for_each(|mark| cell.add_mark(mark));
    }
    cell
}

struct Told {
    what: String,
    made_by: Option<String>,
    fails: bool,
}

fn told(client: &ClientExpectation) -> Told {
    let mut parts = Vec::new();
    let mut fails = false;
    match client.status.as_ref().map(|status| &status.value) {
        Some(StatusExpectation::Every(status)) => {
            fails |= *status >= 400;
            parts.push(status.to_string());
        }
        Some(StatusExpectation::Mix(mix)) => {
            let failing: Vec<String> =
                mix.iter().filter(|(status, _)| **status >= 400).map(|(status, bound)| share(&status.to_string(), bound)).collect();
            fails |= !failing.is_empty();
            parts.extend(failing);
        }
        None => {}
    }
    for (outcome, bound) in &client.outcome {
        fails = true;
        parts.push(share(outcome, &bound.value));
    }
    if parts.is_empty() {
        let failures = client.failures.as_ref().map(|bound| bound.value);
        fails |= failures.is_some_and(|bound| bound != Bound::NONE);
        parts.push(if fails { "some fail".to_owned() } else { "200".to_owned() });
    }
    let made_by = client.failed.as_ref().and_then(|failed| failed.value.made_by.as_ref()).or(client.made_by.as_ref());
    Told { what: parts.join(", "), made_by: made_by.map(|maker| Maker::name(maker.value)), fails }
}

/// How many is a matter of load and luck: `all`, or `some`.
fn share(what: &str, bound: &Bound) -> String {
    match bound {
        Bound::All => what.to_owned(),
        _ => format!("some {what}"),
    }
}
