//! Labs that stay up: which one is meant, and what it was made for. The latter is kept on this machine, not in the cluster,
//! where nothing may say which fault is in.

use std::path::PathBuf;

use embedded_cluster::cluster::{LabRecord, default_state_dir, list_labs};
use serde::{Deserialize, Serialize};

use super::arguments::LabPhase;
use super::failure::{Failure, nearest};

/// What `up` was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabNote {
    pub scenario: String,
    pub gateway: String,
    pub phase: LabPhase,
    pub real_time: bool,
}

/// The running lab of that name; without a name the only one.
pub fn find(name: Option<&str>) -> Result<LabRecord, Failure> {
    let labs = list_labs();
    let names: Vec<&str> = labs.iter().map(|lab| lab.name.as_str()).collect();
    let all = names.join(", ");
    match name {
        Some(name) => labs.iter().find(|lab| lab.name == name).cloned().ok_or_else(|| {
            let failure = Failure::usage(format!("no lab named `{name}` runs"));
            match (nearest(name, names.iter().copied()), names.is_empty()) {
                (Some(near), _) => failure.hint(format!("did you mean `{near}`?")),
                (None, false) => failure.hint(format!("these run: {all}")),
                (None, true) => failure.hint("`gatelab up` starts one"),
            }
        }),
        None => match labs.as_slice() {
            [] => Err(Failure::environment("no lab runs").hint("`gatelab up` starts one")),
            [only] => Ok(only.clone()),
            _ => Err(Failure::usage(format!("several labs run: {all}")).hint("name the one that you mean")),
        },
    }
}

/// Beside the lab's own folder, which is the cluster's.
fn note_path(name: &str) -> PathBuf {
    default_state_dir(name).with_extension("note.json")
}

pub fn write_note(name: &str, note: &LabNote) -> std::io::Result<()> {
    std::fs::write(note_path(name), serde_json::to_vec(note)?)
}

pub fn read_note(name: &str) -> Option<LabNote> {
    serde_json::from_slice(&std::fs::read(note_path(name)).ok()?).ok()
}

pub fn remove_note(name: &str) {
    let _ = std::fs::remove_file(note_path(name));
}
