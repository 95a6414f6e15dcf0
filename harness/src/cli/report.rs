//! `gatelab report`.

use std::path::Path;

use super::arguments::ReportArgs;
use super::exit::Exit;
use super::failure::Failure;
use crate::events::{Event, EventReader};
use crate::report;
use crate::terminal::{Screen, table};

pub fn run(args: &ReportArgs, screen: &Screen) -> Result<Exit, Failure> {
    let events = read(&args.folder)?;
    let folder = if args.folder.is_dir() { args.folder.clone() } else { args.folder.parent().map(ToOwned::to_owned).unwrap_or_default() };
    let json = write(&folder, &events)?;
    if args.timing {
        let timing = report::timing::timing(&events);
        match args.json {
            true => screen.data(&serde_json::to_string_pretty(&timing).unwrap_or_default()),
            false => screen.data(&report::timing::text(&timing)),
        }
    } else if args.json {
        screen.data_raw(&json);
    } else {
        screen.data(&table::summary(&events));
        table::details(&events).iter().for_each(|line| screen.data(line));
    }
    screen.note(&format!("{}; reports in {}", table::totals(&events), folder.display()));
    Ok(Exit::Success)
}

/// The events of a finished or interrupted session.
pub fn read(path: &Path) -> Result<Vec<Event>, Failure> {
    EventReader::open(path).and_then(EventReader::read_all).map_err(|error| {
        let failure = Failure::from_error(Exit::Usage, &error);
        match miette::Diagnostic::help(&error) {
            Some(help) => failure.hint(help.to_string()),
            None => failure,
        }
    })
}

/// Writes every report into the folder; returns the JSON one.
pub fn write(folder: &Path, events: &[Event]) -> Result<String, Failure> {
    let report = report::build::report(events);
    report::write(folder, &report).map_err(|error| unwritable(&error))?;
    report::json::render(&report).map_err(|error| unwritable(&error))
}

fn unwritable(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::from_error(Exit::Output, error).hint("make room on the disk, or choose another folder with --out")
}
