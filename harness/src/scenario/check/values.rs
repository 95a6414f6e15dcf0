//! Values that contradict each other, or say nothing.

use std::path::Path;

use gateways::{GatewayKind, log_keys};

use crate::scenario::decode::Spanned;
use crate::scenario::expect::{ClientExpectation, GatewayExpectation, StatusExpectation};
use crate::scenario::log::LogExpectation;
use crate::scenario::model::{Change, Scenario};
use crate::scenario::planning::gateway_names;
use crate::scenario::probe::{ProbeSpec, SendKind};
use crate::scenario::problem::{Mistake, Problems, Span};
use crate::scenario::time::Scale;
use crate::scenario::{Bound, app};

pub fn check(scenario: &Scenario, path: &Path, problems: &mut Problems) {
    identity(scenario, path, problems);
    for probe in scenario.probes.values() {
        check_probe(probe, problems);
    }
    if scenario.probes.is_empty() {
        problems.contradiction(scenario.expect.span, "there is no probe", "nothing is sent, so nothing can be expected", "add a probe");
    }
    scaled(scenario, problems);
    changes(scenario, problems);
    expectations(scenario, problems);
    settings(scenario, problems);
}

fn identity(scenario: &Scenario, path: &Path, problems: &mut Problems) {
    if scenario.schema.value != 1 {
        problems.contradiction(
            scenario.schema.span,
            format!("schema {} is not known", scenario.schema.value),
            "version of the format",
            "this gatelab reads schema 1",
        );
    }
    let id = &scenario.id.value;
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    if id.is_empty() || !id.chars().all(plain) || id.starts_with('-') || id.ends_with('-') {
        let mistake = Mistake::BadValue {
            value: id.clone(),
            what: "an id".to_owned(),
            reason: "it holds something other than a-z, 0-9 and single `-` between them".to_owned(),
            example: "wrong-target-port".to_owned(),
        };
        problems.add(scenario.id.span, mistake);
    }
    let folder = path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    if let Some(folder) = folder.filter(|folder| folder != id) {
        problems.contradiction(
            scenario.id.span,
            format!("the id `{id}` is not the name of the folder `{folder}`"),
            "has to be the folder's name",
            format!("write `id: {folder}`, or rename the folder"),
        );
    }
    for text in [&scenario.title, &scenario.story, &scenario.explain, &scenario.fix.say].into_iter().chain(&scenario.hints) {
        if text.value.trim().is_empty() {
            problems.contradiction(text.span, "this text is empty", "says nothing", "write it, or leave the key out where that is allowed");
        }
    }
}

fn check_probe(probe: &Spanned<ProbeSpec>, problems: &mut Problems) {
    let exclusive = [
        ("times", probe.times.as_ref().map(|times| times.span)),
        ("gap", probe.gap.as_ref().map(|gap| gap.span)),
        ("sweep", probe.sweep.as_ref().map(|sweep| sweep.span)),
    ];
    if probe.rate.is_some() {
        for (name, span) in exclusive {
            if let Some(span) = span {
                problems.contradiction(
                    span,
                    format!("`{name}` and `rate` exclude each other"),
                    "a rate sends when requests are due, not one after the other",
                    format!("remove `{name}`, or `rate`"),
                );
            }
        }
    } else if let Some(lasting) = &probe.lasting {
        problems.contradiction(lasting.span, "`lasting` goes with `rate`", "there is no rate", "add `rate`, or use `times` instead");
    }
    if let (Some(_), Some(gap)) = (&probe.sweep, &probe.gap) {
        problems.contradiction(gap.span, "`gap` and `sweep` exclude each other", "the sweep sets the gaps", "remove one of them");
    }
    for count in [&probe.times, &probe.rate, &probe.concurrency].into_iter().flatten() {
        if count.value == 0 {
            problems.contradiction(count.span, "a probe that sends nothing shows nothing", "is 0", "write at least 1");
        }
    }
    if let Some(hold) = &probe.hold
        && probe.send.kind != SendKind::WebSocket
    {
        problems.contradiction(hold.span, "`hold` goes with a WebSocket", "an answered request is over", "send `WS ws://…`, or remove it");
    }
    if let (Some(during), None) = (&probe.during, &probe.rate) {
        problems.contradiction(
            during.span,
            "`during` needs a constant load",
            "there is no rate",
            "add `rate: 100`, so that requests are sent the whole time that the change takes",
        );
    }
}

fn scaled(scenario: &Scenario, problems: &mut Problems) {
    for (name, time) in scenario.scaled_times() {
        if time.lab.0 > time.production.0 {
            problems.contradiction(
                time.span,
                format!("the lab's `{name}` is longer than production's"),
                "a scaled time is shortened",
                "exchange the two, or write the duration alone",
            );
        }
    }
    for probe in scenario.probes.values() {
        if let Some(sweep) = &probe.sweep {
            for scale in [Scale::Lab, Scale::Production] {
                let times = scenario.times(scale);
                let (from, to, step) = (sweep.from.resolve(&times), sweep.to.resolve(&times), sweep.step.resolve(&times));
                if step.is_zero() || from > to {
                    problems.contradiction(
                        sweep.span,
                        "the sweep has no gaps",
                        "from has to be less than to, and step more than nothing",
                        "for example: { from: 100ms, to: 300ms, step: 20ms }",
                    );
                    break;
                }
            }
        }
    }
}

fn changes(scenario: &Scenario, problems: &mut Problems) {
    if scenario.fault.value.is_empty() {
        problems.contradiction(scenario.fault.span, "the fault changes nothing", "empty", "add patch, apply, delete, links or restart");
    }
    if scenario.fix.change().is_empty() {
        problems.contradiction(scenario.fix.span, "the fix changes nothing", "empty", "add patch, apply, delete, links or restart");
    }
    let setup = scenario.setup.as_ref().map(|setup| &setup.value);
    for change in setup.into_iter().chain([&scenario.fault.value, &scenario.fix.change()]) {
        objects(change, problems);
    }
    for during in scenario.probes.values().filter_map(|probe| probe.during.as_ref()) {
        objects(during, problems);
    }
}

fn objects(change: &Change, problems: &mut Problems) {
    for object in change.apply.iter().chain(&change.patch) {
        app::check_identity(object, object.span, problems);
    }
    for name in change.delete.iter().chain(&change.force_delete).chain(&change.restart) {
        if name.name.is_none() {
            problems.contradiction(name.span, format!("`{}` names no object", name.value), "a kind alone", "write Kind/name");
        }
    }
    for name in &change.restart {
        if !["Deployment", "StatefulSet", "DaemonSet"].contains(&name.kind.as_str()) {
            problems.contradiction(
                name.span,
                format!("a {} cannot be restarted", name.kind),
                "not a workload",
                "restart the Deployment that makes its pods",
            );
        }
    }
    for link in &change.links {
        if link.latency.is_none() && link.loss.is_none() && link.pod_network.is_none() {
            problems.contradiction(
                link.span,
                "the link change changes nothing",
                "neither latency nor loss nor pod-network",
                "add one of them",
            );
        }
        percentage(link.loss, link.span, problems);
    }
}

fn percentage(value: Option<f64>, span: Span, problems: &mut Problems) {
    if value.is_some_and(|value| !(0.0..=100.0).contains(&value)) {
        problems.contradiction(span, "loss is a percentage", "out of range", "write a number from 0 to 100");
    }
}

fn expectations(scenario: &Scenario, problems: &mut Problems) {
    if scenario.healthy.is_empty() {
        problems.contradiction(
            scenario.expect.span,
            "no control: `healthy` expects nothing",
            "what is seen here proves nothing without a control",
            "say what each probe meets before the fault, for example `home: { status: 200 }`",
        );
    }
    let expect = &scenario.expect;
    if scenario.gateways().is_empty() {
        problems.contradiction(
            expect.span,
            "no gateway is named",
            format!("names none of {}", GatewayKind::names().join(", ")),
            "say what at least one gateway does",
        );
    }
    for gateway in scenario.gateways() {
        let Some(own) = expect.of(gateway) else { continue };
        if own.skip.is_some() {
            if (GatewayExpectation { skip: None, ..own.value.clone() }) != GatewayExpectation::empty() {
                problems.contradiction(own.span, "skipped, and yet something is expected", "holds `skip` and more", "remove one of them");
            }
            continue;
        }
        for line in own.log.iter() {
            own_vocabulary(gateway, line, problems);
        }
        let merged = expect.merged(gateway);
        let only_client = merged.log.is_empty()
            && merged.backend.is_empty()
            && merged.first_failing_hop.is_none()
            && merged.kubernetes.is_empty()
            && merged.order.is_empty();
        let as_healthy = merged.client.iter().all(|(probe, expected)| scenario.healthy.get(probe) == Some(expected));
        if only_client && as_healthy {
            problems.add(own.span, Mistake::Vacuous { item: format!("all that is said of {gateway}") });
        }
    }
    let shared = expect.client.values();
    let own = gateway_names().into_iter().filter_map(|gateway| expect.of(gateway)).flat_map(|own| own.client.values());
    for expected in scenario.healthy.values().chain(shared).chain(own) {
        client(expected, problems);
    }
    let listed = gateway_names().into_iter().filter_map(|gateway| expect.of(gateway)).flat_map(|own| &own.kubernetes);
    for object in listed.chain(&expect.kubernetes) {
        if object.path.is_none() && (object.equals.is_some() || object.not_equals.is_some() || object.text.is_some()) {
            problems.contradiction(object.span, "a value is expected and no path leads to it", "`path` is missing", "add `path: spec.…`");
        }
    }
}

fn client(expected: &Spanned<ClientExpectation>, problems: &mut Problems) {
    if let Some(status) = &expected.status
        && let StatusExpectation::Mix(mix) = &status.value
        && mix.values().all(|bound| *bound == Bound::Rest)
    {
        problems.contradiction(
            status.span,
            "this mix of statuses allows anything",
            "says nothing",
            "bound at least one: { 502: \">0\", 200: rest }",
        );
    }
    if serde_json::to_value(&expected.value).is_ok_and(|value| says_nothing(&value)) {
        problems.contradiction(expected.span, "nothing is expected of this probe", "empty", "add a status, or remove it");
    }
    for name in expected.outcome.keys() {
        let known = OUTCOMES.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        if !known.contains(name) {
            let span = expected.outcome.get(name).map_or(expected.span, |bound| bound.span);
            let mistake = Mistake::UnknownChoice { value: name.clone(), what: "an outcome of a request".to_owned(), choices: known };
            problems.add(span, mistake);
        }
    }
}

fn says_nothing(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Null => true,
        serde_json::Value::Object(entries) => entries.values().all(says_nothing),
        serde_json::Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// As [`crate::probe::Outcome::name`] gives them.
const OUTCOMES: [&str; 12] = [
    "answered",
    "refused",
    "reset",
    "unreachable",
    "closed",
    "truncated",
    "timeout",
    "tls-failed",
    "name-not-found",
    "name-failed",
    "malformed",
    "probe-error",
];

/// A gateway's log is described in that gateway's words.
fn own_vocabulary(gateway: &str, line: &Spanned<LogExpectation>, problems: &mut Problems) {
    if line.wanted.is_empty() {
        problems.contradiction(line.span, "any line meets this", "says nothing about the line", "add errno, response-flags, status…");
    }
    for key in log_keys().into_iter().filter(|key| line.wanted.contains_key(key.name)) {
        let knows = |kind: &&GatewayKind| kind.log_keys().any(|own| own.name == key.name);
        let owners: Vec<&str> = GatewayKind::ALL.iter().filter(knows).map(|kind| kind.name()).collect();
        if !owners.contains(&gateway) {
            let name = key.name;
            problems.contradiction(
                line.span,
                format!("`{name}` is {}'s, not {gateway}'s", owners.join("'s and ")),
                format!("a line of {gateway}'s log has no {name}"),
                format!("describe the line in {gateway}'s own words; docs/scenario-format.md lists them"),
            );
        }
    }
}

fn settings(scenario: &Scenario, problems: &mut Problems) {
    let Some(settings) = &scenario.gateway else { return };
    // One by one, so that every wrong one is told.
    for (name, setting) in &settings.value.0 {
        let resolved = scenario.settings(&scenario.times(Scale::Lab)).unwrap_or_default();
        let Some(value) = resolved.get(name) else { continue };
        let one = serde_json::Map::from_iter([(name.clone(), value.clone())]);
        if let Err(error) = serde_json::from_value::<gateways::Settings>(one.into()) {
            problems.contradiction(
                setting.span,
                format!("the gateways have no such setting: {error}"),
                format!("`{name}` is not understood"),
                "docs/scenario-format.md lists the settings",
            );
        }
    }
}
