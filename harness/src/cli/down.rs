//! `gatelab down`.

use embedded_cluster::cluster::{Cluster, LabRecord, list_labs};

use super::arguments::DownArgs;
use super::exit::Exit;
use super::failure::Failure;
use super::labs;
use crate::provider::kind::{self, KindError};
use crate::terminal::Screen;

pub async fn run(args: &DownArgs, screen: &Screen) -> Result<Exit, Failure> {
    let doomed: Vec<LabRecord> = match args.all {
        true => list_labs(),
        false => vec![labs::find(args.name.as_deref())?],
    };
    let mut swept = Vec::new();
    if args.all {
        let around = kind::provider::surroundings().map_err(|error| unswept(&error))?;
        swept = kind::sweep(&around).await.map_err(|error| unswept(&error))?;
    }
    for name in &swept {
        screen.note(&format!("kind cluster `{name}` is down"));
    }
    if doomed.is_empty() && swept.is_empty() {
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

fn unswept(error: &KindError) -> Failure {
    let failure = Failure::from_error(Exit::Environment, error);
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
