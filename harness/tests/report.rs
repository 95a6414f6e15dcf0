//! Reports from a made-up stream of events, mixed as two runs at once would mix them.

// In a test a panic is the failure.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use harness::events::{Control, Event, EventFileError, EventKind, EventReader, EventWriter, RunId, SCHEMA, Verdict};
use harness::probe::{Micros, Outcome, Phase as ProbePhase, Record, Timings};
use harness::report::{self, build, html, json, junit, summary};
use harness::scenario::Hop;
use harness::signature::{GatewayLine, HopRecord, Item, JournalRecord, Phase, TimelineEvent, TimelineKind};
use jiff::{Timestamp, ToSpan};
use uuid::Uuid;

fn at(millis: i64) -> Timestamp {
    "2026-02-03T04:05:06Z".parse::<Timestamp>().unwrap().checked_add(millis.milliseconds()).unwrap()
}

fn run(scenario: &str, gateway: &str) -> RunId {
    RunId { scenario: scenario.to_owned(), gateway: gateway.to_owned(), repeat: 1 }
}

fn record(number: u128, millis: i64, status: Option<u16>, took: u64, gap: Option<u64>) -> Record {
    Record {
        probe: "home".to_owned(),
        sequence: u32::try_from(number).unwrap(),
        request_id: Uuid::from_u128(number),
        gap: gap.map(|gap| Micros(gap * 1000)),
        paused: None,
        due_at: at(millis),
        finished_at: at(millis + i64::try_from(took).unwrap()),
        outcome: if status.is_some() { Outcome::Answered } else { Outcome::Reset },
        phase: if status.is_some() { ProbePhase::Done } else { ProbePhase::Head },
        errno: status.is_none().then(|| "ECONNRESET".to_owned()),
        detail: None,
        status,
        headers: vec![("server".to_owned(), "nginx <1>".to_owned())],
        body: "<h1>502 & nothing</h1>".to_owned(),
        body_length: 22,
        body_sha256: String::new(),
        timings: Timings { total: Micros(took * 1000), ..Timings::default() },
        connection: None,
        addresses: Vec::new(),
        websocket: None,
        grpc: None,
    }
}

fn item(name: &str, met: bool, observed: &str) -> Item {
    Item { name: name.to_owned(), met, expected: "every one 502".to_owned(), observed: observed.to_owned() }
}

fn events() -> Vec<Event> {
    let (proven, unexpected, void, skipped, lost) = (
        run("wrong-target-port", "nginx"),
        run("wrong-target-port", "envoy"),
        run("slow-backend", "nginx"),
        run("sidecar-race", "nginx"),
        run("slow-backend", "envoy"),
    );
    let mut events = vec![(
        0,
        None,
        EventKind::SessionStarted {
            schema: SCHEMA,
            version: "0.1.0".to_owned(),
            command: vec!["gatelab".to_owned(), "run".to_owned()],
            seed: 7,
            runs: vec![proven.clone(), unexpected.clone(), void.clone(), skipped.clone(), lost.clone()],
            machine: BTreeMap::from([("kernel".to_owned(), "6.18.0".to_owned())]),
        },
    )];
    let started = |title: &str| EventKind::RunStarted {
        title: title.to_owned(),
        level: "beginner".to_owned(),
        tags: vec!["service".to_owned()],
        provider: "embedded".to_owned(),
        gateway_version: "1.22.1".to_owned(),
        control: Control::Full,
        real_time: false,
    };
    for run in [&proven, &unexpected, &void, &lost] {
        events.push((10, Some(run.clone()), started("Service targetPort is a port nothing listens on")));
        events.push((20, Some(run.clone()), EventKind::PhaseStarted { phase: Phase::Healthy }));
    }
    for run in [&proven, &unexpected] {
        let mut tell = |millis, event| events.push((millis, Some(run.clone()), event));
        let (healthy, fault, fixed) = (Phase::Healthy, Phase::Fault, Phase::Fixed);
        tell(30, EventKind::Request { phase: healthy, record: Box::new(record(1, 30, Some(200), 3, None)) });
        tell(40, EventKind::Judged { phase: healthy, items: vec![item("client.home.status", true, "200: 1")] });
        tell(50, EventKind::PhaseStarted { phase: fault });
        tell(51, EventKind::Changed { phase: fault, changes: vec!["patched Service shop/shop".to_owned()] });
        tell(60, EventKind::Settled { phase: fault, took_ms: 9 });
        tell(
            61,
            EventKind::Timeline {
                phase: fault,
                change: TimelineEvent { at: at(64), kind: TimelineKind::PodTerminating, object: "Pod/shop-a".to_owned() },
            },
        );
        tell(
            62,
            EventKind::Timeline {
                phase: fault,
                change: TimelineEvent { at: at(90), kind: TimelineKind::PodDeleted, object: "Pod/shop-a".to_owned() },
            },
        );
        for (number, status) in [(2, Some(502)), (3, Some(502)), (4, None), (5, Some(200))] {
            let millis = 60 + i64::try_from(number).unwrap() * 5;
            let record = record(number, millis, status, u64::try_from(number).unwrap(), Some(100 * u64::from(number > 3)));
            tell(millis, EventKind::Request { phase: fault, record: Box::new(record) });
        }
        for number in [2, 3] {
            let text = format!(
                "2026/02/03 04:05:06 [error] 1#1: *{number} connect() failed (111: Connection refused) while connecting to upstream"
            );
            let read = gateways::read_log("nginx".parse().unwrap(), &[gateways::LogLine { text: &text, at: None }]).remove(0).unwrap();
            let line = GatewayLine {
                text: format!("2026/02/03 [error] *{number} connect() failed (111: Connection refused) while connecting to upstream"),
                at: Some(at(70)),
                request_id: Some(Uuid::from_u128(number)),
                record: Some(read.record),
            };
            tell(91, EventKind::GatewayLog { phase: fault, line });
        }
        let journal = JournalRecord {
            pod: "shop-a".to_owned(),
            at: Some(at(85)),
            request_id: Some(Uuid::from_u128(5)),
            connection_id: None,
            ended: "completed".to_owned(),
            status: Some(200),
            entry: serde_json::Value::Null,
        };
        tell(92, EventKind::Journal { phase: fault, record: journal });
        let hop = HopRecord {
            hop: Hop::ServiceToPod,
            tried: "nc -vz 10.244.0.9 8081".to_owned(),
            worked: false,
            seen: "ECONNREFUSED".to_owned(),
        };
        tell(93, EventKind::Hop { phase: fault, hop });
        tell(94, EventKind::FirstFailingHop { phase: fault, hop: Hop::ServiceToPod });
        let object = serde_json::json!({ "kind": "Service", "metadata": { "name": "shop", "namespace": "shop", "managedFields": [1] } });
        tell(95, EventKind::Object { phase: fault, object: object.into() });
        let met = *run == proven;
        tell(96, EventKind::Judged { phase: fault, items: vec![item("client.home.status", met, "502: 2, reset: 1, 200: 1")] });
        tell(100, EventKind::PhaseStarted { phase: fixed });
        tell(110, EventKind::Judged { phase: fixed, items: vec![item("client.home.status", true, "200: 1")] });
        let verdict = if met { Verdict::Proven } else { Verdict::Unexpected };
        tell(120, EventKind::RunFinished { verdict, took_ms: 110, phases_ms: BTreeMap::from([("healthy".to_owned(), 31)]) });
    }
    let reason = "control `healthy`: client.home.status: expected every one 200, observed 503: 10".to_owned();
    events.push((70, Some(void.clone()), EventKind::Warning { message: "the gateway restarted".to_owned() }));
    events.push((
        71,
        Some(void.clone()),
        EventKind::Error { message: "cannot exec".to_owned(), causes: vec!["broken pipe".to_owned()], help: Some("try again".to_owned()) },
    ));
    events.push((72, Some(void), EventKind::RunFinished { verdict: Verdict::Void { reason }, took_ms: 60, phases_ms: BTreeMap::new() }));
    let verdict = Verdict::Skipped { reason: "the cluster has no packet redirect".to_owned() };
    events.push((73, Some(skipped), EventKind::RunFinished { verdict, took_ms: 0, phases_ms: BTreeMap::new() }));
    events.push((130, None, EventKind::SessionFinished { took_ms: 130, interrupted: true }));
    // As they would stand in the file: by time, those of one moment in the order in which they were told.
    events.sort_by_key(|(millis, _, _)| *millis);
    events.into_iter().map(|(millis, run, event)| Event { at: at(millis), run, event }).collect()
}

fn all(path: &Path) -> Result<Vec<Event>, EventFileError> {
    EventReader::open(path)?.collect()
}

fn scratch(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("gatelab-report-test-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn report_json() {
    insta::assert_snapshot!(json::render(&build::report(events())).unwrap());
}

#[test]
fn junit_xml() {
    insta::assert_snapshot!(junit::render(&build::report(events())).unwrap());
}

#[test]
fn summary_text() {
    insta::assert_snapshot!(summary::render(&build::report(events())));
}

#[test]
fn html_page() {
    let page = html::render(&build::report(events())).unwrap();
    assert!(!page.contains("<h1>502"), "what a gateway sends is text, not markup");
    for outside in ["http://", "https://", "src=", "<link"] {
        assert!(!page.contains(outside), "one file, nothing fetched: {outside}");
    }
    insta::assert_snapshot!(page);
}

#[test]
fn the_json_report_is_read_back() {
    let report = build::report(events());
    let read: report::Report = serde_json::from_str(&json::render(&report).unwrap()).unwrap();
    assert_eq!(read, report);
}

/// Of nothing but size: what a proven repeat showed is what the first one showed.
#[test]
fn objects_of_proven_repeats_stay_in_the_events_alone() {
    let again = |events: Vec<Event>| {
        let mut again = events;
        again.iter_mut().filter_map(|event| event.run.as_mut()).for_each(|run| run.repeat = 2);
        again
    };
    let both = build::report(events().into_iter().chain(again(events())));
    let objects = |verdict: &str, repeat: u32| -> (usize, usize) {
        let run = both.runs.iter().find(|run| run.verdict_name() == verdict && run.repeat == repeat).unwrap();
        run.phases.iter().fold((0, 0), |sum, phase| (sum.0 + phase.objects.len(), sum.1 + phase.objects_left_out))
    };
    assert_eq!((objects("proven", 1), objects("proven", 2)), ((1, 0), (0, 1)));
    assert_eq!((objects("unexpected", 1), objects("unexpected", 2)), ((1, 0), (1, 0)));
    assert!(html::render(&both).unwrap().contains("1 objects at the end of this phase: events.jsonl has them"));
}

#[test]
fn events_are_read_back_and_render_the_same() {
    let folder = scratch("read-back");
    let mut writer = EventWriter::create(&folder.join("events.jsonl")).unwrap();
    for event in events() {
        writer.write(&event).unwrap();
    }
    let read = all(&folder).unwrap();
    assert_eq!(read, events());
    let written = report::write(&folder, &build::report(read)).unwrap();
    assert_eq!(std::fs::read_to_string(folder.join("report.json")).unwrap(), written);
    assert!(["junit.xml", "report.html"].iter().all(|name| folder.join(name).is_file()));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_file_that_was_cut_off_is_read_up_to_there() {
    let folder = scratch("cut-off");
    let path = folder.join("events.jsonl");
    let mut text: String = events().iter().map(|event| serde_json::to_string(event).unwrap() + "\n").collect();
    text.truncate(text.len() - 20);
    std::fs::write(&path, &text).unwrap();
    let read = all(&path).unwrap();
    assert_eq!(read.len(), events().len() - 1);
    assert!(build::report(read).incomplete);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_is_no_file_of_events_is_refused_with_the_reason() {
    let folder = scratch("refused");
    let path = folder.join("events.jsonl");
    let refused = |text: &str| {
        std::fs::write(&path, text).unwrap();
        all(&folder).unwrap_err()
    };
    assert!(matches!(refused(""), EventFileError::NoHeader { .. }));
    assert!(matches!(refused("hello\n"), EventFileError::Parse { line: 1, .. }));
    let lines: Vec<String> = events().iter().map(|event| serde_json::to_string(event).unwrap()).collect();
    assert!(matches!(refused(&lines[1..].join("\n")), EventFileError::NoHeader { .. }));
    assert!(matches!(refused(&lines[0].replace("\"schema\":1", "\"schema\":9")), EventFileError::Schema { found: 9, .. }));
    let broken_inside = format!("{}\n{{\n{}\n", lines[0], lines[1]);
    assert!(matches!(refused(&broken_inside), EventFileError::Parse { line: 2, .. }));
    assert!(matches!(EventReader::open(&folder.join("none")).unwrap_err(), EventFileError::Read { .. }));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_folder_that_cannot_be_written_is_told_and_nothing_half_is_left() {
    let folder = scratch("unwritable");
    // A folder in the place of the file fails for root as well.
    std::fs::create_dir_all(folder.join("junit.xml/x")).unwrap();
    let error = report::write(&folder, &build::report(events())).unwrap_err();
    assert!(error.to_string().contains("junit.xml"), "{error}");
    let parts =
        std::fs::read_dir(&folder).unwrap().filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".part"));
    assert_eq!(parts.count(), 0);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn the_table_of_a_run_tells_what_failed_who_made_it_and_what_the_log_said() {
    let matrix = harness::matrix::observed::matrix(&build::report(events()));
    let row = matrix.rows.iter().find(|row| row.scenario == "wrong-target-port").unwrap();
    let cell = row.cells.get("nginx").unwrap();
    let seen: Vec<(&str, Option<&str>)> = cell.seen.iter().map(|seen| (seen.what.as_str(), seen.made_by.as_deref())).collect();
    assert_eq!(seen, [("502 x 2 of 4, reset x 1 of 4", Some("gateway, nobody"))]);
    assert_eq!(cell.log, ["ECONNREFUSED while connecting to upstream"]);
    assert_eq!(cell.verdict.as_deref(), Some("proven"));
    insta::assert_snapshot!("matrix", harness::matrix::render::text(&matrix));
    insta::assert_snapshot!("matrix_markdown", harness::matrix::render::markdown(&matrix));
}

#[test]
fn a_run_differs_from_itself_in_nothing_and_from_another_in_what_is_otherwise() {
    use harness::matrix::{Side, difference::compare};
    let report = build::report(events());
    let side = Side::of("one", &report, Some("nginx"));
    let same = compare(&side, &Side::of("two", &report, Some("nginx")));
    assert_eq!((same.compared > 0, same.compared), (true, same.alike));
    let mut other = report.clone();
    for run in &mut other.runs {
        for probe in run.phases.iter_mut().flat_map(|phase| &mut phase.probes) {
            probe.latency_ms.median += 1000.0;
            if let Some(count) = probe.results.remove("502") {
                probe.results.insert("503".to_owned(), count);
                let makers = probe.made_by.remove("502").unwrap();
                probe.made_by.insert("503".to_owned(), makers);
            }
        }
    }
    let difference = compare(&side, &Side::of("other", &other, Some("nginx")));
    insta::assert_snapshot!("difference", harness::matrix::render::difference(&difference));
    let gone = compare(&side, &Side::of("nobody", &report, Some("traefik")));
    assert_eq!((gone.compared, gone.only_left.is_empty()), (0, false));

    // A part of a run: what the gateway said is held against the whole all the same.
    let mut part = report.clone();
    let proven = |run: &harness::report::model::RunReport| run.scenario == "wrong-target-port" && run.gateway == "nginx";
    part.runs.retain(proven);
    let lines = part.runs.iter_mut().flat_map(|run| &mut run.phases).flat_map(|phase| &mut phase.gateway_log);
    lines.for_each(|line| line.mark = line.mark.as_ref().map(|_| "EHOSTUNREACH".to_owned()));
    let mut whole = report.clone();
    let elsewhere = whole
        .runs
        .iter()
        .find(|run| proven(run))
        .cloned()
        .map(|run| harness::report::model::RunReport { gateway: "envoy".to_owned(), ..run });
    whole.runs.extend(elsewhere);
    let said = compare(&Side::of("whole", &whole, None), &Side::of("part", &part, None));
    let what: Vec<&str> = said.rows.iter().map(|row| row.what.as_str()).collect();
    assert_eq!((said.compared, what), (1, vec!["log"]));
}
