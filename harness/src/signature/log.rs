//! The gateway's own lines against the lines that a scenario expects.

use std::collections::BTreeSet;

use gateways::{LogRecord, log_keys};

use super::client::of;
use super::expectation::{Item, Items};
use super::observation::{GatewayLine, Observations};
use crate::scenario::Bound;
use crate::scenario::log::LogExpectation;

/// Matches one expected line; `index` tells it from others of the same gateway.
pub fn evaluate(index: usize, expected: &LogExpectation, observations: &Observations) -> Item {
    let mut items = Items::under(format!("log[{index}]"));
    let matching: Vec<&GatewayLine> = observations.gateway_log.iter().filter(|line| matches(expected, line.record.as_ref())).collect();
    let bound = expected.count.unwrap_or(Bound::SOME);
    let wanted = describe(expected);
    match &expected.of {
        Some(probe) => {
            let sent: BTreeSet<_> = observations.requests.get(probe).into_iter().flatten().map(|record| record.request_id).collect();
            let named: BTreeSet<_> = matching.iter().filter_map(|line| line.request_id).filter(|id| sent.contains(id)).collect();
            let observed = format!("such lines about {} requests; {}", of(named.len(), sent.len()), nearest(observations));
            items.add("", bound.holds(named.len(), sent.len()), format!("{wanted}, for {bound} of the requests of {probe}"), observed);
        }
        None => {
            let observed = match matching.first() {
                Some(first) => format!("{} such lines, the first: {}", matching.len(), first.text),
                None => format!("no such line; {}", nearest(observations)),
            };
            items.add("", bound.holds(matching.len(), observations.gateway_log.len()), format!("{wanted}, {bound} lines"), observed);
        }
    }
    items.into_vec().remove(0)
}

/// Whether one line has everything that is asked for. Without a word of its vocabulary nothing is asked of a line.
pub fn matches(expected: &LogExpectation, record: Option<&LogRecord>) -> bool {
    let Some(record) = record else { return false };
    !expected.wanted.is_empty()
        && expected.wanted.iter().all(|(key, wanted)| record.fields.get(key).is_some_and(|value| wanted.matches(value)))
}

fn describe(expected: &LogExpectation) -> String {
    let parts = log_keys().into_iter().filter_map(|key| {
        let wanted = expected.wanted.get(key.name)?;
        Some(format!("{} {wanted}", key.name.replace('-', " ")))
    });
    parts.collect::<Vec<_>>().join(", ")
}

/// What there was instead: the different kinds of lines, as a person would look for them.
fn nearest(observations: &Observations) -> String {
    let kinds: BTreeSet<String> = observations
        .gateway_log
        .iter()
        .filter_map(|line| line.record.as_ref()?.summary.as_ref())
        .map(|summary| format!("`{summary}`"))
        .collect();
    if kinds.is_empty() {
        return format!("the log holds {} lines and no record", observations.gateway_log.len());
    }
    let shown: Vec<String> = kinds.iter().take(4).cloned().collect();
    format!("there is {}{}", shown.join(" and "), if kinds.len() > 4 { " and more" } else { "" })
}
