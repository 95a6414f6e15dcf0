//! `gatelab down`.

use embedded_cluster::cluster::{Cluster, LabRecord};

use super::arguments::DownArgs;
use super::exit::Exit;
use super::failure::Failure;
use super::labs::{self, Lab, OuterLab, OuterPlace};
use crate::provider::context;
use crate::provider::kind::{self, KindError};
use crate::terminal::Screen;

pub async fn run(args: &DownArgs, screen: &Screen) -> Result<Exit, Failure> {
    let doomed = match args.all {
        true => labs::all(),
        false => vec![labs::find(args.name.as_deref())?],
    };
    let mut nothing = doomed.is_empty();
    for lab in &doomed {
        match lab {
            Lab::Embedded(lab) => end_embedded(lab, screen).await?,
            Lab::Outer(lab) => end_outer(lab).await?,
        }
        screen.note(&format!("lab `{}` is down", lab.name()));
    }
    if args.all {
        let around = kind::provider::surroundings().map_err(|error| unswept(&error))?;
        let swept = kind::sweep(&around).await.map_err(|error| unswept(&error))?;
        for name in swept.gone {
            nothing = false;
            screen.note(&format!("kind cluster `{name}` is down"));
        }
        for (name, owner) in swept.left_alone {
            screen.note(&format!("kind cluster `{name}` stays: it is one of the labs in {}", owner.display()));
        }
        for (mark, error) in context::sweep(&around.cache).await {
            nothing = false;
            match error {
                None => screen.note(&format!("what {mark} had left in a cluster is gone")),
                Some(error) => screen.warning(&format!("the cluster of {mark} cannot be asked any more: {error}")),
            }
        }
    }
    if nothing {
        screen.note("no lab runs");
    }
    Ok(Exit::Success)
}

async fn end_embedded(lab: &LabRecord, screen: &Screen) -> Result<(), Failure> {
    match Cluster::attach(&lab.state_dir) {
        Ok(cluster) => cluster.stop().await.map_err(|error| Failure::from_error(Exit::Environment, &error))?,
        // It ended by itself meanwhile: what was wanted.
        Err(_) => screen.note(&format!("lab `{}` had ended already", lab.name)),
    }
    labs::remove_note(&lab.name);
    Ok(())
}

/// The record goes last: what could not be taken away is found again.
async fn end_outer(lab: &OuterLab) -> Result<(), Failure> {
    match &lab.place {
        OuterPlace::Kind { cluster } => {
            let around = kind::provider::surroundings().map_err(|error| unswept(&error))?;
            kind::remove(&around, cluster).await.map_err(|error| unswept(&error))?;
        }
        OuterPlace::Context { mark } => {
            let around = kind::provider::surroundings().map_err(|error| unswept(&error))?;
            let left = context::tenancy::leave(&around.cache, mark).await;
            left.map_err(|error| Failure::from_error(Exit::Environment, &error))?;
        }
    }
    labs::remove_outer(&lab.name);
    Ok(())
}

fn unswept(error: &KindError) -> Failure {
    let failure = Failure::from_error(Exit::Environment, error);
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
