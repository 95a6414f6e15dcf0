//! Failures that line up with what happened to pods: the mark of a race.

use jiff::Timestamp;

use super::client::{failed, of};
use super::expectation::{Item, Items};
use super::observation::Observations;
use crate::probe::Record;
use crate::scenario::expect::OrderExpectation;
use crate::scenario::time::format_duration;
use crate::scenario::{Bound, Times};

/// Matches one expectation.
pub fn evaluate(index: usize, expected: &OrderExpectation, observations: &Observations, times: &Times) -> Item {
    let mut items = Items::under(format!("order[{index}]"));
    let within = expected.within.resolve(times);
    let kinds: Vec<String> = expected.line_up_with.iter().map(|kind| kind.name()).collect();
    let moments: Vec<Timestamp> =
        observations.timeline.iter().filter(|event| expected.line_up_with.contains(&event.kind)).map(|event| event.at).collect();
    let failures: Vec<&Record> =
        observations.requests.get(&expected.failures_of).into_iter().flatten().filter(|record| failed(record)).collect();
    let near = |record: &&&Record| {
        // A request is a stretch of time: an event within it is as near as can be.
        moments.iter().any(|moment| {
            let distance = if *moment < record.due_at {
                record.due_at.duration_since(*moment)
            } else if *moment > record.finished_at {
                moment.duration_since(record.finished_at)
            } else {
                jiff::SignedDuration::ZERO
            };
            distance.unsigned_abs() <= within
        })
    };
    let lined_up = failures.iter().filter(near).count();
    let bound = expected.share.unwrap_or(Bound::All);
    let wanted =
        format!("{bound} of the failures of {} within {} of {}", expected.failures_of, format_duration(within), kinds.join(" or "));
    let observed = format!("{} failures; {} such events", of(lined_up, failures.len()), moments.len());
    items.add("", !failures.is_empty() && bound.holds(lined_up, failures.len()), wanted, observed);
    items.into_vec().remove(0)
}
