//! Scenario files: the catalogue has no mistake, and every mistake of a bad file is told, with its place and what to write.

use std::path::{Path, PathBuf};

use harness::scenario::{Catalogue, Problem};
use miette::{GraphicalReportHandler, GraphicalTheme};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// As a terminal without colour shows it, with paths from the repository.
fn render(problems: &[Problem]) -> String {
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(110);
    let mut text = String::new();
    for problem in problems {
        handler.render_report(&mut text, problem).unwrap();
    }
    text.replace(&format!("{}/", env!("CARGO_MANIFEST_DIR")), "")
}

#[test]
fn the_catalogue_has_no_mistake() {
    let (catalogue, problems) = Catalogue::load(&folder("../scenarios")).unwrap();
    assert!(problems.is_empty(), "{}", render(&problems));
    assert!(catalogue.ids().count() >= 9);
}
