//! Stories about whole signatures: an expectation as it would stand in a file, observations as a run would bring them.

mod parts;
mod verdicts;

use gateways::{LogLine, LogRecord, read_log};
use jiff::{Timestamp, ToSpan};
use uuid::Uuid;

use super::observation::{GatewayLine, JournalRecord, Observations};
use super::{Expectation, Item};
use crate::probe::{Micros, Outcome, Phase, Record, Timings};
use crate::scenario::Times;
use crate::scenario::decode::Decode;
use crate::scenario::expect::GatewayExpectation;
use crate::scenario::problem::{Problems, source};
use crate::scenario::yaml::Node;

/// A gateway's part of `expect`, as YAML.
pub(super) fn expectation(yaml: &str) -> Expectation {
    let source = source("test.yaml", yaml);
    let mut problems = Problems::of(source.clone());
    let nodes = Node::documents(source.inner()).unwrap();
    let parts = GatewayExpectation::decode(&nodes[0], &mut problems);
    let found = problems.into_sorted();
    assert!(found.is_empty(), "{found:?}");
    let times = Times([("read-timeout".to_owned(), std::time::Duration::from_secs(1))].into());
    Expectation { gateway: "nginx".to_owned(), namespace: "shop".to_owned(), parts: parts.unwrap(), times }
}

pub(super) fn moment(millis: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH.checked_add(millis.milliseconds()).unwrap()
}

/// A request that was sent at `millis` and met `status` after `took` milliseconds.
pub(super) fn request(number: u32, millis: i64, status: u16, took: u64) -> Record {
    Record {
        probe: "home".to_owned(),
        sequence: number,
        request_id: Uuid::from_u128(u128::from(number)),
        gap: None,
        paused: None,
        due_at: moment(millis),
        finished_at: moment(millis + i64::try_from(took).unwrap()),
        outcome: Outcome::Answered,
        phase: Phase::Done,
        errno: None,
        detail: None,
        status: Some(status),
        headers: if status == 200 { vec![("x-app".to_owned(), "shop".to_owned())] } else { Vec::new() },
        body: String::new(),
        body_length: 0,
        body_sha256: String::new(),
        timings: Timings { total: Micros(took * 1000), ..Timings::default() },
        connection: None,
        addresses: Vec::new(),
        websocket: None,
        grpc: None,
    }
}

pub(super) fn reset(number: u32, millis: i64) -> Record {
    Record { outcome: Outcome::Reset, status: None, headers: Vec::new(), ..request(number, millis, 0, 1) }
}

pub(super) fn seen(records: Vec<Record>) -> Observations {
    Observations { requests: [("home".to_owned(), records)].into(), ..Observations::default() }
}

pub(super) fn line(number: Option<u32>, record: Option<LogRecord>) -> GatewayLine {
    GatewayLine { text: "a line".to_owned(), at: None, request_id: number.map(|number| Uuid::from_u128(u128::from(number))), record }
}

/// A gateway's line as the gateway writes it.
pub(super) fn written(gateway: &str, text: &str) -> Option<LogRecord> {
    read_log(gateway.parse().unwrap(), &[LogLine { text, at: None }]).remove(0).map(|line| line.record)
}

pub(super) fn nginx_error(errno: i32, doing: &str) -> Option<LogRecord> {
    let text = format!("2026/11/21 04:41:58 [error] 1#1: *2 connect() failed ({errno}: some words) while {doing}, client: 10.0.0.9");
    Some(written("nginx", &text).unwrap())
}

/// Statuses of the tries, and whether the last was an answer from behind.
pub(super) fn nginx_access(tries: &str, answered: bool) -> Option<LogRecord> {
    let each = |text: &str| vec![text; tries.split(", ").count()].join(", ");
    let text = format!(
        "10.0.0.9 - - [21/Nov/2026:04:00:00 +0000] \"GET / HTTP/1.1\" 502 160 \"-\" \"-\" 120 0.001 [shop-shop-http] [] {} {} {} {tries} id \
         \"shop.test\" \"{}\" \"{}\" \"7\"",
        each("10.0.0.1:80"),
        each("0"),
        each("0.001"),
        each("0.001"),
        each(if answered { "0.001" } else { "-" })
    );
    Some(written("nginx", &text).unwrap())
}

pub(super) fn envoy(status: u16, flags: &[&str], details: &str) -> Option<LogRecord> {
    let text = serde_json::json!({
        "start_time": "2026-11-21T04:44:15.016Z",
        "response_code": status,
        "response_flags": flags.join(","),
        "response_code_details": details,
    });
    Some(written("envoy", &text.to_string()).unwrap())
}

pub(super) fn journal(number: Option<u32>, ended: &str) -> JournalRecord {
    JournalRecord {
        pod: "shop-a".to_owned(),
        at: None,
        request_id: number.map(|number| Uuid::from_u128(u128::from(number))),
        connection_id: None,
        ended: ended.to_owned(),
        status: None,
        entry: serde_json::Value::Null,
    }
}

pub(super) fn unmet(items: &[Item]) -> Vec<&str> {
    items.iter().filter(|item| !item.met).map(|item| item.name.as_str()).collect()
}
