//! What the client met against what a scenario expects it to meet.

use std::collections::BTreeMap;
use std::time::Duration;

use super::expectation::{Item, Items};
use super::maker::{APPLICATION_HEADER, maker};
use super::observation::Observations;
use crate::probe::{Outcome, Record};
use crate::scenario::expect::{ClientExpectation, GapExpectation, GrpcStatus, ResponseExpectation, StatusExpectation};
use crate::scenario::time::format_duration;
use crate::scenario::{Bound, Times};

/// No complete response, or one that reports an error.
pub fn failed(record: &Record) -> bool {
    record.failed()
}

/// Whether one request alone met what is expected of its probe, as far as one can tell: how it ended, its status and who served it. Without
/// an expectation, and of a mix of statuses: that it got no error of a gateway. How many and how fast is for [`evaluate`].
pub fn answers_as(expected: Option<&ClientExpectation>, record: &Record) -> bool {
    if record.outcome != Outcome::Answered {
        return expected.is_some_and(|expected| expected.outcome.contains_key(record.outcome.name()));
    }
    let status = match expected.and_then(|expected| expected.status.as_ref()).map(|status| &status.value) {
        Some(StatusExpectation::Every(wanted)) => record.status == Some(*wanted),
        Some(StatusExpectation::Mix(mix)) => record.status.is_some_and(|status| status < 500 && mix.contains_key(&status)),
        None => record.status.is_some_and(|status| status < 500),
    };
    let ended = match expected.and_then(|expected| expected.grpc_status.as_ref()) {
        Some(wanted) => wanted.value == GrpcStatus(record.grpc.as_ref().and_then(|end| end.status)),
        None => record.grpc.as_ref().is_none_or(|end| end.status == Some(0)),
    };
    let served = expected.and_then(|expected| expected.served_by.as_ref());
    status && ended && served.is_none_or(|wanted| record.header(APPLICATION_HEADER) == Some(wanted.value.as_str()))
}

/// Matches one probe.
pub fn evaluate(probe: &str, expected: &ClientExpectation, observations: &Observations, times: &Times) -> Vec<Item> {
    let all: Vec<&Record> = observations.requests.get(probe).into_iter().flatten().collect();
    let mut items = Items::under(format!("client.{probe}"));
    if all.is_empty() {
        items.add("requests", false, "at least one request".to_owned(), "none was sent".to_owned());
        return items.into_vec();
    }
    if let Some(status) = &expected.status {
        match_status(status, &all, !expected.outcome.is_empty(), &mut items);
    }
    for (name, bound) in &expected.outcome {
        let count = all.iter().filter(|record| record.outcome.name() == name).count();
        items.add(&format!("outcome.{name}"), bound.holds(count, all.len()), bound.to_string(), of(count, all.len()));
    }
    if let Some(bound) = &expected.failures {
        let count = all.iter().filter(|record| failed(record)).count();
        let observed = format!("{} ({})", of(count, all.len()), statuses(&all));
        items.add("failures", bound.holds(count, all.len()), format!("{} fail", bound.value), observed);
    }
    let response = ResponseExpectation {
        made_by: expected.made_by.clone(),
        served_by: expected.served_by.clone(),
        headers: expected.headers.clone(),
        body: expected.body.clone(),
        within: expected.within.clone(),
        at_least: expected.at_least.clone(),
        reused: expected.reused.clone(),
        grpc_status: expected.grpc_status.clone(),
        close_code: expected.close_code.clone(),
    };
    match_responses(&response, &all, observations, times, "", &mut items);
    if let Some(bound) = &expected.echoed {
        let count = all.iter().filter(|record| record.websocket.as_ref().is_some_and(|used| used.echo.is_some())).count();
        items.add("echoed", bound.holds(count, all.len()), format!("{} get their message back", bound.value), of(count, all.len()));
    }
    if let Some(response) = &expected.failed {
        let some: Vec<&Record> = all.iter().copied().filter(|record| failed(record)).collect();
        if some.is_empty() {
            items.add("failed", false, "at least one failed request".to_owned(), format!("all {} succeeded", all.len()));
        } else {
            match_responses(response, &some, observations, times, "failed.", &mut items);
        }
    }
    for gap in &expected.by_gap {
        match_gap(gap, &all, times, &mut items);
    }
    items.into_vec()
}

fn match_status(expected: &StatusExpectation, records: &[&Record], outcomes_are_listed: bool, items: &mut Items) {
    let met = match expected {
        StatusExpectation::Every(status) => records.iter().all(|record| record.status == Some(*status)),
        StatusExpectation::Mix(mix) => {
            let count = |status: u16| records.iter().filter(|record| record.status == Some(status)).count();
            let listed = |record: &&&Record| match record.status {
                Some(status) => mix.contains_key(&status),
                None => outcomes_are_listed,
            };
            mix.iter().all(|(status, bound)| bound.holds(count(*status), records.len())) && records.iter().all(|record| listed(&record))
        }
    };
    let wanted = match expected {
        StatusExpectation::Every(status) => format!("every one {status}"),
        StatusExpectation::Mix(mix) => mix.iter().map(|(status, bound)| format!("{status}: {bound}")).collect::<Vec<_>>().join(", "),
    };
    items.add("status", met, wanted, statuses(records));
}

fn match_responses(
    expected: &ResponseExpectation,
    records: &[&Record],
    observations: &Observations,
    times: &Times,
    prefix: &str,
    items: &mut Items,
) {
    let mut every = |name: &str, wanted: String, seen: &dyn Fn(&Record) -> String, holds: &dyn Fn(&Record) -> bool| {
        let observed = tally(records.iter().map(|record| seen(record)));
        items.add(&format!("{prefix}{name}"), records.iter().all(|record| holds(record)), wanted, observed);
    };
    if let Some(wanted) = &expected.made_by {
        let wanted = wanted.value;
        every("made-by", wanted.name(), &|record| maker(record, observations).name(), &|record| maker(record, observations) == wanted);
    }
    if let Some(wanted) = &expected.served_by {
        every("served-by", wanted.value.clone(), &|record| header(record, APPLICATION_HEADER), &|record| {
            record.header(APPLICATION_HEADER) == Some(wanted.value.as_str())
        });
    }
    for (name, wanted) in &expected.headers {
        every(&format!("headers.{name}"), wanted.to_string(), &|record| header(record, name), &|record| {
            record.header(name).is_some_and(|value| wanted.matches(value))
        });
    }
    if let Some(wanted) = &expected.body {
        every("body", wanted.to_string(), &|record| shortened(&record.body), &|record| wanted.matches(&record.body));
    }
    if let Some(wanted) = &expected.grpc_status {
        let seen = |record: &Record| GrpcStatus(record.grpc.as_ref().and_then(|end| end.status));
        every("grpc-status", wanted.name(), &|record| seen(record).name(), &|record| seen(record) == wanted.value);
    }
    if let Some(wanted) = &expected.close_code {
        let seen = |record: &Record| record.websocket.as_ref().and_then(|used| used.close_code);
        every(
            "close-code",
            wanted.to_string(),
            &|record| seen(record).map_or_else(|| "none".to_owned(), |code| code.to_string()),
            &|record| seen(record).map(u32::from) == Some(wanted.value),
        );
    }
    let spread = || {
        let totals = records.iter().map(|record| record.timings.total.duration());
        let (least, most) = totals.fold((Duration::MAX, Duration::ZERO), |(least, most), total| (least.min(total), most.max(total)));
        format!("{} to {}", rounded(least), rounded(most))
    };
    if let Some(bound) = &expected.within {
        let limit = bound.resolve(times);
        let met = records.iter().all(|record| record.timings.total.duration() <= limit);
        items.add(&format!("{prefix}within"), met, format!("at most {}", format_duration(limit)), spread());
    }
    if let Some(bound) = &expected.at_least {
        let limit = bound.resolve(times);
        let met = records.iter().all(|record| record.timings.total.duration() >= limit);
        items.add(&format!("{prefix}at-least"), met, format!("at least {}", format_duration(limit)), spread());
    }
    if let Some(bound) = &expected.reused {
        let count = records.iter().filter(|record| record.connection.as_ref().is_some_and(|connection| connection.reused())).count();
        let wanted = format!("{} over a used connection", bound.value);
        items.add(&format!("{prefix}reused"), bound.holds(count, records.len()), wanted, of(count, records.len()));
    }
}

fn match_gap(expected: &GapExpectation, records: &[&Record], times: &Times, items: &mut Items) {
    let (from, to) = (expected.from.resolve(times), expected.to.resolve(times));
    // A busy machine wakes the probe late; what was sent after a longer pause than the row's says nothing about the row.
    let in_time = |record: &&&Record| record.paused.is_none_or(|paused| paused.duration() <= to);
    let of_row = |record: &&&Record| record.gap.is_some_and(|gap| (from..=to).contains(&gap.duration()));
    let inside: Vec<&&Record> = records.iter().filter(of_row).filter(in_time).collect();
    let failures = inside.iter().filter(|record| failed(record)).count();
    let name = format!("by-gap.{}..{}", format_duration(from), format_duration(to));
    let wanted = format!("{} fail", expected.failures);
    if inside.is_empty() {
        items.add(&name, false, wanted, "no request was sent after such a gap".to_owned());
    } else {
        items.add(&name, expected.failures.holds(failures, inside.len()), wanted, of(failures, inside.len()));
    }
}

fn header(record: &Record, name: &str) -> String {
    record.header(name).map_or_else(|| "absent".to_owned(), |value| format!("`{value}`"))
}

/// `12 of 20`.
pub(super) fn of(count: usize, whole: usize) -> String {
    format!("{count} of {whole}")
}

/// `502: 18, 200: 2`, the most frequent first; requests without a response by how they ended.
pub(super) fn statuses(records: &[&Record]) -> String {
    tally(records.iter().map(|record| match record.status {
        Some(status) if record.outcome == Outcome::Answered => status.to_string(),
        Some(status) => format!("{status} {}", record.outcome.name()),
        None => record.outcome.name().to_owned(),
    }))
}

/// Each different text with how often it came, the most frequent first; at most five.
fn tally(texts: impl Iterator<Item = String>) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for text in texts {
        *counts.entry(text).or_default() += 1;
    }
    let mut counts: Vec<(String, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let more = counts.len().saturating_sub(5);
    let mut said: Vec<String> = counts.into_iter().take(5).map(|(text, count)| format!("{text}: {count}")).collect();
    if more > 0 {
        said.push(format!("{more} more"));
    }
    said.join(", ")
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(60).map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("`{short}`")
}

/// To a tenth of a millisecond: more says nothing to a person.
fn rounded(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

/// Whether some of the requests fail and others do not; such a signature needs several requests to be seen.
pub fn is_intermittent(bound: &Bound) -> bool {
    !matches!(bound, Bound::All) && *bound != Bound::NONE
}
