//! `gatelab list`.

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::json;

use super::arguments::{Global, ListArgs};
use super::catalogue;
use super::exit::Exit;
use super::failure::Failure;
use crate::scenario::Scenario;
use crate::terminal::Screen;

pub fn run(args: &ListArgs, global: &Global, screen: &Screen) -> Result<Exit, Failure> {
    let found = catalogue::find(global)?;
    if args.json {
        let scenarios: Vec<_> = found
            .catalogue
            .entries()
            .map(|entry| {
                let scenario = &entry.scenario;
                json!({ "id": scenario.id.value, "title": scenario.title.value, "level": scenario.level,
                    "tags": scenario.tags.iter().map(|tag| &tag.value).collect::<Vec<_>>(), "gateways": claimed(scenario) })
            })
            .collect();
        screen.data(&serde_json::to_string_pretty(&scenarios).unwrap_or_default());
    } else {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(["scenario", "level", "gateways", "title"]);
        for entry in found.catalogue.entries() {
            let scenario = &entry.scenario;
            let level = serde_json::to_value(scenario.level).ok().and_then(|level| level.as_str().map(str::to_owned)).unwrap_or_default();
            table.add_row([scenario.id.value.clone(), level, claimed(scenario).join(", "), scenario.title.value.clone()]);
        }
        screen.data(&table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n"));
    }
    if !found.problems.is_empty() {
        let files = catalogue::count(found.problems.len(), "mistake");
        screen.warning(&format!("{files} in the scenarios ({}); files with mistakes are not listed: see `gatelab check`", found.origin));
    }
    Ok(Exit::Success)
}

/// Gateways that the scenario claims to show something on; those that it skips, with a reason, aside.
fn claimed(scenario: &Scenario) -> Vec<&'static str> {
    let skipped = |gateway: &str| scenario.expect.of(gateway).is_some_and(|expected| expected.skip.is_some());
    scenario.gateways().into_iter().filter(|gateway| !skipped(gateway)).collect()
}
