//! Every scenario on every gateway that it claims, three times over: as it is (must be proven), with its fault left out
//! and with its fix left out (must never be proven). The second and third are what makes the first worth something: an
//! expectation that holds without the fault, or a control that cannot fail, shows here.

#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking, and says on standard error why it is skipped")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, ExitCode};

use gatelab_tests::Home;
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;

/// How a run is bent, and what may come of it.
#[derive(Clone, Copy)]
struct Variant {
    name: &'static str,
    flag: Option<&'static str>,
    allowed: &'static [&'static str],
}

const VARIANTS: [Variant; 3] = [
    Variant { name: "proven", flag: None, allowed: &["proven"] },
    Variant { name: "without-fault", flag: Some("--without-fault"), allowed: &["unexpected", "void"] },
    // Where the fault outlives its own control, the control after the missing fix fails: nothing was learnt.
    Variant { name: "without-fix", flag: Some("--without-fix"), allowed: &["void"] },
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Most of a run is waiting for time-outs and probe periods, so more runs than cores go side by side.
    if arguments.test_threads.is_none() {
        arguments.test_threads = Some(std::thread::available_parallelism().map_or(2, usize::from) * 5);
    }
    let home = Home::new();
    let unfit = unfit_machine(&home);
    let cases = cases(&home);
    let missing = if unfit.is_none() { missing_gateways(&home, &cases) } else { BTreeMap::new() };
    // By variant, gateway, scenario: in this order the few scenarios with much load are far apart.
    let trials = VARIANTS.into_iter().flat_map(|variant| cases.iter().map(move |case| (variant, case))).map(|(variant, case)| {
        let (gateway, scenario) = case.clone();
        let without = unfit.is_some() || missing.contains_key(&gateway);
        Trial::test(format!("{}::{scenario}::{gateway}", variant.name), move || run(&scenario, &gateway, variant))
            .with_ignored_flag(without)
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    for (gateway, reason) in missing {
        eprintln!("skipped: {gateway} cannot be had on this machine: {reason}");
    }
    if let Some(reason) = unfit {
        eprintln!("skipped: this machine cannot run labs: {reason}");
    }
    conclusion.exit_code()
}

/// What `gatelab doctor` finds missing, where that keeps labs from running at all.
fn unfit_machine(home: &Home) -> Option<String> {
    let doctor = home.gatelab().arg("doctor").output().expect("gatelab starts");
    (!doctor.status.success()).then(|| String::from_utf8_lossy(&doctor.stdout).into_owned())
}

/// Gateways that cannot be had here, and why: no build for this processor, or neither a cache nor a network.
fn missing_gateways(home: &Home, cases: &BTreeSet<(String, String)>) -> BTreeMap<String, String> {
    let names: BTreeSet<&String> = cases.iter().map(|(gateway, _)| gateway).collect();
    let reason = |name: &String| {
        let output = home.gatelab().args(["gateways", "install", name]).output().expect("gatelab starts");
        (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).trim().to_owned())
    };
    names.into_iter().filter_map(|name| Some((name.clone(), reason(name)?))).collect()
}

/// Gateway and scenario, in this order.
fn cases(home: &Home) -> BTreeSet<(String, String)> {
    let output = home.gatelab().args(["list", "--json"]).output().expect("gatelab starts");
    assert!(output.status.success(), "gatelab list: {}", String::from_utf8_lossy(&output.stderr));
    let list: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let cases: BTreeSet<(String, String)> = list
        .as_array()
        .expect("a list of scenarios")
        .iter()
        .flat_map(|scenario| {
            let id = scenario["id"].as_str().expect("an id").to_owned();
            let gateways = scenario["gateways"].as_array().expect("gateways").clone();
            gateways.into_iter().map(move |gateway| (gateway.as_str().expect("a name").to_owned(), id.clone()))
        })
        .collect();
    assert!(!cases.is_empty(), "the catalogue is not found");
    cases
}

fn run(scenario: &str, gateway: &str, variant: Variant) -> Result<(), Failed> {
    let home = Home::new();
    let out = home.path().join("out");
    let mut command: Command = home.gatelab();
    command.args(["run", scenario, "--gateway", gateway, "--json", "--out"]).arg(&out).args(variant.flag);
    let output = command.output()?;
    let told = format!("{}\n{}", String::from_utf8_lossy(&output.stderr), output.status);
    let report: Value = serde_json::from_slice(&output.stdout).map_err(|error| format!("no report: {error}\n{told}"))?;
    let runs = report["runs"].as_array().ok_or("a report without runs")?;
    let [run] = runs.as_slice() else { return Err(format!("{} runs instead of one\n{told}", runs.len()).into()) };
    if (run["scenario"].as_str(), run["gateway"].as_str()) != (Some(scenario), Some(gateway)) {
        return Err(format!("a report about another run: {} on {}", run["scenario"], run["gateway"]).into());
    }
    let verdict = run["verdict"]["is"].as_str().unwrap_or("no verdict");
    let told = format!("{told}\n{}", unmet(run));
    if !variant.allowed.contains(&verdict) {
        return Err(format!("the verdict is {verdict}, not one of {:?}\n{told}", variant.allowed).into());
    }
    // What a trainee can see while the fault is in: objects (events among them), log lines and journals.
    let events = std::fs::read_to_string(out.join("events.jsonl"))?;
    let seen: Vec<String> = events.lines().filter_map(visible).collect();
    if variant.flag.is_none() && seen.is_empty() {
        return Err("the run kept no evidence of its broken phase".into());
    }
    // The first phase brings the application's pods, long before its first request.
    let changes = run["phases"][0]["timeline"].as_array().into_iter().flatten();
    if variant.flag.is_none() && !changes.clone().any(|change| change["kind"] == "pod-created") {
        return Err(format!("the timeline begins after the pods came: {:?}", changes.collect::<Vec<_>>()).into());
    }
    match seen.iter().find(|text| text.contains(scenario)) {
        Some(text) => Err(format!("the cluster gives the answer away: {text}").into()),
        None => Ok(()),
    }
}

/// Text of a piece of evidence from the broken phase.
fn visible(line: &str) -> Option<String> {
    let event = serde_json::from_str::<Value>(line).ok()?["event"].take();
    let evidence = match event["type"].as_str()? {
        "object" => &event["object"],
        "gateway-log" => &event["line"]["text"],
        "journal" => &event["record"]["entry"],
        _ => return None,
    };
    (event["phase"] == "fault").then(|| evidence.to_string())
}

/// What was expected and not seen, phase by phase.
fn unmet(run: &Value) -> String {
    let mut lines = vec![run["verdict"].to_string()];
    for phase in run["phases"].as_array().into_iter().flatten() {
        for item in phase["items"].as_array().into_iter().flatten().filter(|item| item["met"] == false) {
            lines.push(format!("{} {}: expected {}, observed {}", phase["phase"], item["name"], item["expected"], item["observed"]));
        }
    }
    lines.join("\n")
}
