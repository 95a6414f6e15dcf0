//! `gatelab down`.

use embedded_cluster::cluster::{Cluster, LabRecord, list_labs};

use super::arguments::DownArgs;
use super::exit::Exit;
use super::failure::Failure;
use super::labs;
use crate::terminal::Screen;

pub async fn run(args: &DownArgs, screen: &Screen) -> Result<Exit, Failure> {
    let doomed: Vec<LabRecord> = match args.all {
        true => list_labs(),
        false => vec![labs::find(args.name.as_deref())?],
    };
    if doomed.is_empty() {
        screen.note("no lab runs");
    }
    for lab in doomed {
        match Cluster::attach(&lab.state_dir) {
            Ok(cluster) => cluster.stop().await.map_err(|error| Failure::from_error(Exit::Environment, &error))?,
            // It ended by itself meanwhile: what was wanted.
            Err(_) => screen.note(&format!("lab `{}` had ended already", lab.name)),
        }
        labs::remove_note(&lab.name);
        screen.note(&format!("lab `{}` is down", lab.name));
    }
    Ok(Exit::Success)
}
