//! `gatelab diff`.

use std::path::{Path, PathBuf};

use gateways::GatewayKind;

use super::arguments::DiffArgs;
use super::exit::Exit;
use super::failure::Failure;
use super::report;
use crate::matrix::{Side, difference, render};
use crate::terminal::Screen;

pub fn run(args: &DiffArgs, screen: &Screen) -> Result<Exit, Failure> {
    let difference = difference::compare(&side(&args.left)?, &side(&args.right)?);
    if difference.compared == 0 {
        let names: Vec<String> = GatewayKind::ALL.iter().take(2).map(|kind| format!("gatelab-out/A:{kind}")).collect();
        return Err(Failure::usage(format!("{} and {} have no scenario in common", args.left, args.right))
            .hint(format!("runs of two gateways are compared as DIR:GATEWAY, such as `gatelab diff {}`", names.join(" "))));
    }
    if args.json {
        screen.data(&serde_json::to_string_pretty(&difference).unwrap_or_default());
    } else {
        screen.data(&render::difference(&difference));
    }
    Ok(if difference.alike == difference.compared { Exit::Success } else { Exit::Unexpected })
}

/// `DIR`, or one gateway's runs in it: `DIR:GATEWAY`.
fn side(text: &str) -> Result<Side, Failure> {
    let (folder, gateway) = split(text);
    let report = report::report_of(&folder)?;
    let side = Side::of(text, &report, gateway);
    if side.is_empty() {
        let gateways: std::collections::BTreeSet<&str> = report.runs.iter().map(|run| run.gateway.as_str()).collect();
        let there = gateways.into_iter().collect::<Vec<_>>().join(", ");
        return Err(Failure::usage(format!("{text}: no finished run there")).hint(format!(
            "gateways in {}: {}",
            folder.display(),
            if there.is_empty() { "none" } else { &there }
        )));
    }
    Ok(side)
}

fn split(text: &str) -> (PathBuf, Option<&str>) {
    match text.rsplit_once(':') {
        // A folder whose own name has a colon.
        Some((folder, gateway)) if !Path::new(text).exists() => (PathBuf::from(folder), Some(gateway)),
        _ => (PathBuf::from(text), None),
    }
}
