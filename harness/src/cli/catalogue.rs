//! Finding the scenarios: a folder that was named, `./scenarios`, or the catalogue that is built into this program.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::arguments::Global;
use super::exit::Exit;
use super::failure::Failure;
use crate::scenario::catalogue::{Catalogue, Entry, LoadError};
use crate::scenario::problem::Problem;
use crate::terminal::Screen;

/// Path and content of every file under `scenarios/`, put in by the build script.
mod built_in {
    include!(concat!(env!("OUT_DIR"), "/scenarios.rs"));
}

/// Scenarios, and the folder that they were read from for as long as it is needed.
pub struct Found {
    pub catalogue: Catalogue,
    pub problems: Vec<Problem>,
    /// Where they come from, for people.
    pub origin: String,
    /// Nobody named the folder, and its files are others than those built in.
    stands_in: bool,
    _unpacked: Option<tempfile::TempDir>,
}

impl Found {
    /// Says so when a folder that happened to be there is used in the place of the built-in catalogue, and is another.
    pub fn tell(&self, screen: &Screen) {
        if self.stands_in {
            screen.note(&format!("scenarios of the folder ./{}, which differ from the built-in ones", self.origin));
        }
    }
}

/// Reads the catalogue in use; mistakes in files are returned beside what could be read.
pub fn find(global: &Global) -> Result<Found, Failure> {
    if let Some(folder) = &global.scenarios {
        return read(folder, None);
    }
    let here = PathBuf::from("scenarios");
    if here.is_dir() {
        let mut found = read(&here, None)?;
        found.stands_in = differs(&here);
        return Ok(found);
    }
    let unpacked = unpack().map_err(|error| {
        Failure::environment(format!("cannot unpack the built-in scenarios into {}: {error}", std::env::temp_dir().display()))
            .hint("set TMPDIR to a folder with space, or name a folder of scenarios with --scenarios")
    })?;
    let folder = unpacked.path().join("scenarios");
    let mut found = read(&folder, Some(unpacked))?;
    found.origin = "built in".to_owned();
    Ok(found)
}

/// The catalogue in use, where any mistake is an error: for commands that run scenarios.
pub fn sound(global: &Global) -> Result<Found, Failure> {
    let found = find(global)?;
    if found.problems.is_empty() {
        return Ok(found);
    }
    Err(mistakes(&found.problems, &found.origin))
}

/// Scenarios by id, or all of them. Mistakes in files that were not asked for do not matter.
pub fn pick(found: &Found, ids: &[String]) -> Result<Vec<Arc<Entry>>, Failure> {
    if ids.is_empty() {
        return if found.problems.is_empty() {
            Ok(found.catalogue.entries().cloned().collect())
        } else {
            Err(mistakes(&found.problems, &found.origin))
        };
    }
    let mut picked: Vec<Arc<Entry>> = Vec::new();
    for id in ids {
        let entry = found.catalogue.get(id).map_err(|error| {
            // A file with mistakes is not in the catalogue: its mistakes say more than "unknown".
            if found.problems.is_empty() { unloadable(&error) } else { unknown_among_mistakes(&error, found) }
        })?;
        if !picked.iter().any(|known| Arc::ptr_eq(known, &entry)) {
            picked.push(entry);
        }
    }
    Ok(picked)
}

/// An error of the loader with its own advice.
pub fn unloadable(error: &LoadError) -> Failure {
    let mut failure = Failure::from_error(Exit::Usage, error);
    if let Some(help) = miette::Diagnostic::help(error) {
        failure = failure.hint(help.to_string());
    }
    failure
}

fn read(folder: &Path, unpacked: Option<tempfile::TempDir>) -> Result<Found, Failure> {
    let (catalogue, problems) = Catalogue::load(folder).map_err(|error| unloadable(&error))?;
    Ok(Found { catalogue, problems, origin: folder.display().to_string(), stands_in: false, _unpacked: unpacked })
}

fn mistakes(problems: &[Problem], origin: &str) -> Failure {
    let shown = problems.iter().map(|problem| problem.mistake.to_string());
    Failure {
        exit: Exit::Usage,
        message: format!("{} in the scenarios ({origin})", count(problems.len(), "mistake")),
        causes: shown.collect(),
        hints: vec!["`gatelab check` shows where each one is and what to write instead".to_owned()],
    }
}

fn unknown_among_mistakes(error: &LoadError, found: &Found) -> Failure {
    let mut failure = unloadable(error);
    failure.hints.push(format!("{} could not be read: see `gatelab check`", count(found.problems.len(), "scenario file")));
    failure
}

/// Whether one of the built-in files is missing there or reads otherwise.
fn differs(folder: &Path) -> bool {
    built_in::FILES.iter().any(|(path, content)| std::fs::read(folder.join(path)).ok().as_deref() != Some(*content))
}

/// `1 mistake`, `2 mistakes`.
pub fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn unpack() -> std::io::Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix("gatelab-scenarios-").tempdir()?;
    for (path, content) in built_in::FILES {
        let target = folder.path().join("scenarios").join(path);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(target, content)?;
    }
    std::fs::create_dir_all(folder.path().join("scenarios"))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_other_files_is_told_apart_from_the_built_in_ones() {
        let unpacked = unpack().unwrap();
        let folder = unpacked.path().join("scenarios");
        assert!(!differs(&folder));
        std::fs::write(folder.join("wrong-target-port/scenario.yaml"), "schema: 1\n").unwrap();
        assert!(differs(&folder));
        assert!(differs(unpacked.path()));
    }
}
