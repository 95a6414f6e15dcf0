//! `gatelab check`.

use super::arguments::{CheckArgs, Global};
use super::catalogue::{self, count};
use super::exit::Exit;
use super::failure::Failure;
use crate::scenario::catalogue::Catalogue;
use crate::scenario::problem::Problem;
use crate::terminal::Screen;

pub fn run(args: &CheckArgs, global: &Global, screen: &Screen) -> Result<Exit, Failure> {
    let mut problems: Vec<Problem> = Vec::new();
    let mut sound = 0;
    if args.paths.is_empty() {
        let found = catalogue::find(global)?;
        sound += found.catalogue.entries().count();
        problems.extend(found.problems);
    }
    for path in &args.paths {
        let (catalogue, found) = Catalogue::load_path(path).map_err(|error| catalogue::unloadable(&error))?;
        sound += catalogue.entries().count();
        problems.extend(found);
    }
    for problem in &problems {
        screen.data_raw(&render(problem));
    }
    if problems.is_empty() {
        screen.note(&format!("{} without a mistake", count(sound, "scenario")));
        return Ok(Exit::Success);
    }
    Err(Failure::usage(format!("{} found, {} without a mistake", count(problems.len(), "mistake"), count(sound, "scenario"))))
}

/// With the place in its file; colours only where they are wanted.
fn render(problem: &Problem) -> String {
    use std::io::IsTerminal;
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let theme = if colours { miette::GraphicalTheme::unicode() } else { miette::GraphicalTheme::unicode_nocolor() };
    let mut text = String::new();
    match miette::GraphicalReportHandler::new_themed(theme).with_width(100).render_report(&mut text, problem) {
        Ok(()) => text,
        Err(_) => format!("{}\n", problem.mistake),
    }
}
