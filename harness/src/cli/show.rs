//! `gatelab show`: what a trainee may know, and on request all the rest.

use super::arguments::{Global, ShowArgs};
use super::catalogue;
use super::exit::Exit;
use super::failure::Failure;
use crate::scenario::Scenario;
use crate::terminal::Screen;

pub fn run(args: &ShowArgs, global: &Global, screen: &Screen) -> Result<Exit, Failure> {
    let found = catalogue::find(global)?;
    let entry = catalogue::pick(&found, std::slice::from_ref(&args.id))?.remove(0);
    let scenario = &entry.scenario;
    if args.json {
        screen.data(&serde_json::to_string_pretty(scenario).unwrap_or_default());
    } else {
        screen.data(text(scenario, args.solution).trim_end());
        if !args.solution {
            screen.hint(&format!("`gatelab up {} --phase fault` gives you the broken cluster; --solution tells what is wrong", args.id));
        }
    }
    Ok(Exit::Success)
}

fn text(scenario: &Scenario, solution: bool) -> String {
    let mut text = String::new();
    // The title says what is wrong: it belongs to the solution.
    match solution {
        true => text.push_str(&format!("{}: {}\n\n", scenario.id.value, scenario.title.value)),
        false => text.push_str(&format!("{}\n\n", scenario.id.value)),
    }
    text.push_str(&format!("{}\n\n", scenario.story.value.trim_end()));
    text.push_str("What is sent:\n");
    for (name, probe) in &scenario.probes {
        text.push_str(&format!("  {name}: {}\n", probe.value.send.value));
    }
    if solution {
        for (number, hint) in scenario.hints.iter().enumerate() {
            text.push_str(&format!("\nHint {}: {}", number + 1, hint.value.trim_end()));
        }
        let field = scenario.cause.field.as_ref().map_or_else(String::new, |field| format!(", {}", field.value));
        text.push_str(&format!("\n\nCause: {}{field}\n\n{}\n", scenario.cause.object.value, scenario.explain.value.trim_end()));
        text.push_str(&format!("\nFix: {}\n", scenario.fix.value.say.value.trim_end()));
        for (other, difference) in &scenario.confusable_with {
            text.push_str(&format!("\nNot to be confused with {other}: {}\n", difference.value.trim_end()));
        }
    }
    text
}
