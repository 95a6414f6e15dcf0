//! `gatelab matrix`.

use super::arguments::{Global, MatrixArgs, TableFormat};
use super::exit::Exit;
use super::failure::{Failure, nearest};
use super::{catalogue, report};
use crate::matrix::{expected, observed, render};
use crate::terminal::Screen;

pub fn run(args: &MatrixArgs, global: &Global, screen: &Screen) -> Result<Exit, Failure> {
    let mut matrix = match &args.from {
        Some(folder) => observed::matrix(&report::report_of(folder)?),
        None => expected::matrix(&catalogue::sound(global)?.catalogue),
    };
    if !args.gateway.is_empty() {
        for wanted in &args.gateway {
            if !matrix.gateways.contains(wanted) {
                let known = matrix.gateways.join(", ");
                let failure = Failure::usage(format!("the table has no gateway `{wanted}`: there is {known}"));
                let near = nearest(wanted, matrix.gateways.iter().map(String::as_str));
                return Err(match near {
                    Some(near) => failure.hint(format!("did you mean `{near}`?")),
                    None => failure,
                });
            }
        }
        matrix.gateways.retain(|gateway| args.gateway.contains(gateway));
        for row in &mut matrix.rows {
            row.cells.retain(|gateway, _| args.gateway.contains(gateway));
        }
    }
    match args.format {
        TableFormat::Text => screen.data(&render::text(&matrix)),
        TableFormat::Markdown => screen.data_raw(&render::markdown(&matrix)),
        TableFormat::Json => screen.data(&serde_json::to_string_pretty(&matrix).unwrap_or_default()),
    }
    Ok(Exit::Success)
}
