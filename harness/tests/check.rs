//! Scenario files: the catalogue has no mistake, and every mistake of a bad file is told, with its place and what to write.

// In a test a panic is the failure.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use harness::scenario::time::format_duration;
use harness::scenario::{Catalogue, Problem, Scale};
use miette::{GraphicalReportHandler, GraphicalTheme};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// As a terminal without colour shows it, with paths from the package's folder.
fn render(problems: &[Problem]) -> String {
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(110);
    let mut text = String::new();
    for problem in problems {
        handler.render_report(&mut text, problem).unwrap();
    }
    text.replace(&format!("{}/", env!("CARGO_MANIFEST_DIR")), "")
}

fn subfolders(path: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.join("scenario.yaml").is_file());
    found.sort();
    found
}

#[test]
fn the_catalogue_has_no_mistake() {
    let (catalogue, problems) = Catalogue::load(&folder("../scenarios")).unwrap();
    assert!(problems.is_empty(), "{}", render(&problems));
    assert!(catalogue.ids().count() >= 9);
}

#[test]
fn every_bad_file_is_told_apart() {
    let folders = subfolders(&folder("tests/bad-scenarios"));
    assert!(folders.len() > 40);
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for path in folders {
        let (catalogue, problems) = Catalogue::load_path(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(!problems.is_empty(), "{name}: no mistake was found");
        assert_eq!(catalogue.ids().count(), 0, "{name}: a file with mistakes may not be run");
        settings.set_snapshot_path(&path);
        settings.bind(|| insta::assert_snapshot!("diagnostics", render(&problems)));
    }
}

#[test]
fn many_mistakes_are_told_at_once() {
    let (_, problems) = Catalogue::load_path(&folder("tests/bad-scenarios/many-mistakes")).unwrap();
    let lines: Vec<usize> = problems.iter().map(|problem| problem.position().0).collect();
    assert!(problems.len() >= 9, "{}", render(&problems));
    assert!(lines.is_sorted(), "in the order of the file: {lines:?}");
}

#[test]
fn scenarios_that_look_alike_have_to_say_so() {
    let (_, problems) = Catalogue::load(&folder("tests/bad-scenarios/_twins")).unwrap();
    insta::assert_snapshot!(render(&problems));
}

#[test]
fn every_plan_is_complete_on_both_scales() {
    let (catalogue, _) = Catalogue::load(&folder("../scenarios")).unwrap();
    for entry in catalogue.entries() {
        for gateway in entry.scenario.gateways() {
            for scale in [Scale::Lab, Scale::Production] {
                let plan = entry.plan(gateway, scale);
                let text = format!("{plan:?}");
                let place = format!("{} on {gateway}", plan.scenario);
                assert!(!text.contains("${"), "{place}: a time is not filled in");
                for object in plan.app.iter().chain(&plan.fault.apply).chain(&plan.fault.patch) {
                    let named = object["metadata"]["namespace"].is_string() || object["kind"] == "Namespace" || object["kind"] == "Node";
                    assert!(named, "{place}: {object} has no namespace");
                }
                assert!(!plan.probes.is_empty() && !plan.fault.is_empty() && !plan.fix.is_empty(), "{place}");
                let settings: Result<gateways::Settings, _> = serde_json::from_value(plan.settings.clone().into());
                assert!(settings.is_ok(), "{place}: {settings:?}");
            }
        }
    }
}

#[test]
fn real_time_uses_the_production_values() {
    let (catalogue, _) = Catalogue::load(&folder("../scenarios")).unwrap();
    let entry = catalogue.get("slow-backend").unwrap();
    let settings = |scale| entry.plan("nginx", scale).settings["read-timeout"].clone();
    assert_eq!((settings(Scale::Lab), settings(Scale::Production)), ("1s".into(), "60s".into()));
    for scale in [Scale::Lab, Scale::Production] {
        let takes = format_duration(entry.scenario.times(scale).0["report-takes"]);
        let config = entry.plan("nginx", scale).fault.patch[0]["data"]["config.yaml"].as_str().unwrap().to_owned();
        assert!(config.contains(&format!("latency: \"{takes}\"")), "{config}");
    }
}

#[test]
fn what_one_gateway_needs_the_others_do_without() {
    use harness::scenario::model::Need;
    let (catalogue, _) = Catalogue::load(&folder("../scenarios")).unwrap();
    let entry = catalogue.get("networkpolicy-blocks-dns").unwrap();
    let needs = |gateway: &str| entry.plan(gateway, Scale::Lab).needs;
    assert_eq!(needs("envoy"), [Need::NetworkPolicy, Need::PolicyFromStart]);
    assert_eq!(needs("nginx"), [Need::NetworkPolicy]);
}

#[test]
fn an_unknown_scenario_gets_the_nearest_name() {
    let (catalogue, _) = Catalogue::load(&folder("../scenarios")).unwrap();
    let error = catalogue.get("wrong-targetport").unwrap_err();
    assert_eq!(error.to_string(), "there is no scenario `wrong-targetport`; did you mean `wrong-target-port`?");
}

/// Set GATELAB_UPDATE_GENERATED=1 to write the generated files instead of comparing them.
fn generated(path: &str, text: &str) {
    let path = folder(path);
    if std::env::var_os("GATELAB_UPDATE_GENERATED").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "{} is out of date: run this test with GATELAB_UPDATE_GENERATED=1", path.display());
}

#[test]
fn the_schema_of_scenarios_is_up_to_date() {
    generated("../scenarios/scenario.schema.json", &harness::scenario::schema::render().unwrap());
}

#[test]
fn the_table_of_the_catalogue_is_up_to_date() {
    let (catalogue, _) = Catalogue::load(&folder("../scenarios")).unwrap();
    generated("../scenarios/MATRIX.md", &harness::matrix::render::markdown(&harness::matrix::expected::matrix(&catalogue)));
}

#[test]
fn the_schema_of_reports_is_up_to_date() {
    let schema = serde_json::to_string_pretty(&harness::report::json::schema()).unwrap() + "\n";
    generated("../docs/report.schema.json", &schema);
}

/// Schema and parser come from the same declarations, but the schema's view of what may be left out is its own.
#[test]
fn the_schema_requires_what_the_parser_requires() {
    let schema: serde_json::Value = serde_json::from_str(&harness::scenario::schema::render().unwrap()).unwrap();
    let source = harness::scenario::problem::source("scenario.yaml", "schema: 1\n");
    let mut problems = harness::scenario::problem::Problems::of(source.clone());
    assert!(harness::scenario::catalogue::read(&source, &mut problems).is_none());
    let mut missing: Vec<String> = problems
        .into_sorted()
        .into_iter()
        .filter_map(|problem| match problem.mistake {
            harness::scenario::Mistake::MissingKey { key, .. } => Some(key),
            _ => None,
        })
        // `schema` is there; without probes or controls a file is read, and then refused as one that shows nothing.
        .chain(["schema", "probes", "healthy"].map(ToOwned::to_owned))
        .collect();
    let mut required: Vec<String> = serde_json::from_value(schema["required"].clone()).unwrap();
    missing.sort();
    required.sort();
    assert_eq!(missing, required);
}

/// The reference names every key and every word that a file may hold.
#[test]
fn the_reference_names_every_key() {
    let text = std::fs::read_to_string(folder("../docs/scenario-format.md")).unwrap();
    let schema: serde_json::Value = serde_json::from_str(&harness::scenario::schema::render().unwrap()).unwrap();
    let mut keys = Vec::new();
    let mut open = vec![&schema];
    while let Some(value) = open.pop() {
        if let Some(properties) = value["properties"].as_object() {
            keys.extend(properties.keys().cloned());
        }
        match value {
            serde_json::Value::Object(entries) => open.extend(entries.values()),
            serde_json::Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    keys.extend(harness::signature::TimelineKind::ALL.iter().map(|kind| kind.name()));
    keys.sort();
    keys.dedup();
    let missing: Vec<String> = keys.into_iter().filter(|key| !text.contains(key.as_str())).collect();
    assert!(missing.is_empty(), "docs/scenario-format.md does not name {missing:?}");
}

mod damaged {
    use std::collections::BTreeMap;
    use std::path::Path;

    use harness::scenario::catalogue::read;
    use harness::scenario::check;
    use harness::scenario::problem::{Problems, source};
    use proptest::prelude::*;

    use super::{folder, render};

    /// What a slip of the hand does to a file.
    #[derive(Clone, Debug)]
    enum Slip {
        Remove(usize),
        Double(usize),
        Indent(usize),
        Outdent(usize),
        Replace(usize, String),
    }

    fn slip() -> impl Strategy<Value = Slip> {
        let words = prop::sample::select(vec![
            "{}",
            "[]",
            "- x",
            "a: b: c",
            "\"",
            "&a *a",
            "!!int x",
            "status: -1",
            "ü: ß",
            "\t",
            "---",
            "? x",
            "9e999s",
        ]);
        prop_oneof![
            (0..200usize).prop_map(Slip::Remove),
            (0..200usize).prop_map(Slip::Double),
            (0..200usize).prop_map(Slip::Indent),
            (0..200usize).prop_map(Slip::Outdent),
            ((0..200usize), words).prop_map(|(line, word)| Slip::Replace(line, word.to_owned())),
        ]
    }

    fn damage(text: &str, slips: &[Slip]) -> String {
        let mut lines: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
        for slip in slips {
            let at = |line: &usize| line % lines.len().max(1);
            match slip {
                _ if lines.is_empty() => {}
                Slip::Remove(line) => drop(lines.remove(at(line))),
                Slip::Double(line) => lines.insert(at(line), lines[at(line)].clone()),
                Slip::Indent(line) => {
                    let line = at(line);
                    lines[line].insert_str(0, "  ");
                }
                Slip::Outdent(line) => {
                    let line = at(line);
                    lines[line] = lines[line].trim_start().to_owned();
                }
                Slip::Replace(line, word) => {
                    let line = at(line);
                    let key = lines[line].split(':').next().unwrap_or_default().to_owned();
                    lines[line] = format!("{key}: {word}");
                }
            }
        }
        lines.join("\n")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Every damaged file is read or refused with at least one mistake that can be shown; nothing panics.
        #[test]
        fn files_are_read_or_refused(
            id in prop::sample::select(vec!["wrong-target-port", "premature-keepalive-close", "terminating-pods", "sidecar-race"]),
            slips in prop::collection::vec(slip(), 1..4),
        ) {
            let text = std::fs::read_to_string(folder("../scenarios").join(id).join("scenario.yaml")).unwrap();
            let source = source("scenario.yaml", damage(&text, &slips));
            let mut problems = Problems::of(source.clone());
            let scenario = read(&source, &mut problems);
            if let Some(scenario) = &scenario {
                check::scenario(scenario, Path::new("damaged/scenario.yaml"), None, &BTreeMap::new(), &mut problems);
            }
            let found = problems.into_sorted();
            prop_assert!(scenario.is_some() || !found.is_empty());
            let shown = render(&found);
            prop_assert!(found.is_empty() || shown.contains("help:"));
        }
    }
}
