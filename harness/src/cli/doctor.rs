//! `gatelab doctor`.

use owo_colors::OwoColorize;

use super::arguments::DoctorArgs;
use super::exit::Exit;
use super::failure::Failure;
use crate::doctor::{Check, State, examine};
use crate::terminal::Screen;

pub fn run(args: &DoctorArgs, screen: &Screen) -> Result<Exit, Failure> {
    let checks = examine();
    if args.json {
        screen.data(&serde_json::to_string_pretty(&checks).unwrap_or_default());
    } else {
        for check in &checks {
            screen.data(&line(check));
            if let Some(advice) = &check.advice {
                screen.data(&format!("          {:<16} {advice}", "->"));
            }
        }
    }
    let missing = checks.iter().filter(|check| check.state == State::Missing).count();
    if missing == 0 {
        return Ok(Exit::Success);
    }
    Err(Failure::environment(format!("labs cannot run on this machine as it is: {missing} of {} checks failed", checks.len())))
}

fn line(check: &Check) -> String {
    let word = match check.state {
        State::Ok => format!("{:<9}", "ok").green().to_string(),
        State::Missing => format!("{:<9}", "missing").red().bold().to_string(),
        State::Optional => format!("{:<9}", "optional").yellow().to_string(),
    };
    format!("{word} {:<16} {}", check.name, check.found)
}
