//! `gatelab report`.

use std::path::Path;

use super::arguments::ReportArgs;
use super::exit::Exit;
use super::failure::Failure;
use crate::events::{Event, EventKind, EventReader};
use crate::report::{self, Report};
use crate::terminal::{Screen, table};

pub fn run(args: &ReportArgs, screen: &Screen) -> Result<Exit, Failure> {
    let mut fold = report::build::Fold::default();
    let mut told: Vec<Event> = Vec::new();
    read(&args.folder, |event| {
        if !event.event.is_evidence() || matches!(event.event, EventKind::Step { .. }) {
            told.push(event.clone());
        }
        fold.take(event);
    })?;
    let folder = if args.folder.is_dir() { args.folder.clone() } else { args.folder.parent().map(ToOwned::to_owned).unwrap_or_default() };
    let json = write(&folder, &fold.finish())?;
    if args.timing {
        let timing = report::timing::timing(&told);
        match args.json {
            true => screen.data(&serde_json::to_string_pretty(&timing).unwrap_or_default()),
            false => screen.data(&report::timing::text(&timing)),
        }
    } else if args.json {
        screen.data_raw(&json);
    } else {
        screen.data(&table::summary(&told));
        table::details(&told).iter().for_each(|line| screen.data(line));
    }
    screen.note(&format!("{}; reports in {}", table::totals(&told), folder.display()));
    Ok(Exit::Success)
}

/// The report of a finished or interrupted session.
pub fn report_of(path: &Path) -> Result<Report, Failure> {
    let mut fold = report::build::Fold::default();
    read(path, |event| fold.take(event))?;
    Ok(fold.finish())
}

/// Each event of a session, as the file has them.
fn read(path: &Path, mut take: impl FnMut(Event)) -> Result<(), Failure> {
    let told = EventReader::open(path).and_then(|mut events| events.try_for_each(|event| event.map(&mut take)));
    told.map_err(|error| {
        let failure = Failure::from_error(Exit::Usage, &error);
        match miette::Diagnostic::help(&error) {
            Some(help) => failure.hint(help.to_string()),
            None => failure,
        }
    })
}

/// Writes every report into the folder; returns the JSON one.
pub fn write(folder: &Path, report: &Report) -> Result<String, Failure> {
    report::write(folder, report)
        .map_err(|error| Failure::from_error(Exit::Output, &error).hint("make room on the disk, or choose another folder with --out"))
}
