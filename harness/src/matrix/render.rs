//! Both tables as text and Markdown; JSON is their serialization.

use comfy_table::{ContentArrangement, Table, presets};

use super::difference::Difference;
use super::table::{Cell, Matrix};

/// For terminals: two lines a cell, what clients meet and the log's mark.
pub fn text(matrix: &Matrix) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(std::iter::once("scenario".to_owned()).chain(matrix.gateways.iter().cloned()));
    for row in &matrix.rows {
        let cells = matrix.gateways.iter().map(|gateway| row.cells.get(gateway).map_or_else(String::new, |cell| lines(cell).join("\n")));
        table.add_row(std::iter::once(row.scenario.clone()).chain(cells));
    }
    trimmed(&table)
}

/// What the committed table holds.
pub fn markdown(matrix: &Matrix) -> String {
    let mut text = String::from("| scenario |");
    for gateway in &matrix.gateways {
        text.push_str(&format!(" {gateway} |"));
    }
    text.push_str(&format!("\n|---|{}\n", "---|".repeat(matrix.gateways.len())));
    for row in &matrix.rows {
        text.push_str(&format!("| [`{0}`]({0}/scenario.yaml)<br>{1} |", row.scenario, escaped(&row.title)));
        for gateway in &matrix.gateways {
            let cell = row.cells.get(gateway).map_or_else(String::new, |cell| {
                let mut parts: Vec<String> = cell.statements().iter().map(|part| escaped(part)).collect();
                parts.extend(cell.log.iter().map(|mark| format!("`{}`", mark.replace('|', "\\|").replace('`', "'"))));
                parts.extend(remarks(cell).iter().map(|remark| escaped(remark)));
                parts.join("<br>")
            });
            text.push_str(&format!(" {cell} |"));
        }
        text.push('\n');
    }
    text
}

fn lines(cell: &Cell) -> Vec<String> {
    let mut lines = cell.statements();
    lines.extend(cell.log.iter().map(|mark| format!("  {}", shortened(mark))));
    lines.extend(remarks(cell));
    lines
}

fn remarks(cell: &Cell) -> Vec<String> {
    let skipped = cell.skipped.as_ref().map(|reason| format!("skipped: {}", shortened(reason)));
    let verdict = cell.verdict.as_ref().filter(|verdict| !["proven", "skipped"].contains(&verdict.as_str())).cloned();
    skipped.into_iter().chain(verdict).collect()
}

/// A terminal has no room for whole sentences.
fn shortened(text: &str) -> String {
    const WIDEST: usize = 60;
    if text.chars().count() <= WIDEST { text.to_owned() } else { text.chars().take(WIDEST - 1).chain(['…']).collect() }
}

fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;").replace('*', "\\*")
}

pub fn difference(difference: &Difference) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["scenario", "", &difference.left, &difference.right]);
    let mut last = None;
    for row in &difference.rows {
        // A scenario's name stands once.
        let name = if last == Some(&row.scenario) { "" } else { &row.scenario };
        last = Some(&row.scenario);
        table.add_row([name, &row.what, &shortened(&row.left), &shortened(&row.right)]);
    }
    let mut text = if difference.rows.is_empty() { String::new() } else { trimmed(&table) + "\n" };
    for (side, only) in [(&difference.left, &difference.only_left), (&difference.right, &difference.only_right)] {
        if !only.is_empty() {
            text.push_str(&format!("only in {side}: {}\n", only.join(", ")));
        }
    }
    text.push_str(&format!(
        "{} compared, {} alike, {} different",
        difference.compared,
        difference.alike,
        difference.compared - difference.alike
    ));
    text
}

fn trimmed(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}
