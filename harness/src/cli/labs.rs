//! Labs that stay up: which one is meant, and what it was made for. The latter is kept on this machine, not in the cluster,
//! where nothing may say which fault is in.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use embedded_cluster::cluster::{LabRecord, default_state_dir, list_labs};
use serde::{Deserialize, Serialize};

use super::arguments::LabPhase;
use super::failure::{Failure, nearest};

/// Extension of the records of labs that are no processes of this machine.
const OUTER: &str = "lab.json";

/// What `up` was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabNote {
    pub scenario: String,
    pub gateway: String,
    pub phase: LabPhase,
    pub real_time: bool,
}

/// A lab in a cluster that is no process of this machine. Written before the cluster is begun, so that whatever is there of it
/// is found again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OuterLab {
    pub name: String,
    pub place: OuterPlace,
    /// A file of the lab's own.
    pub kubeconfig: PathBuf,
    pub note: LabNote,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OuterPlace {
    /// Name of kind's cluster.
    Kind { cluster: String },
    /// Mark of what is the lab's in a cluster that was there before.
    Context { mark: String },
}

#[derive(Clone, Debug)]
pub enum Lab {
    Embedded(LabRecord),
    Outer(OuterLab),
}

impl Lab {
    pub fn name(&self) -> &str {
        match self {
            Lab::Embedded(lab) => &lab.name,
            Lab::Outer(lab) => &lab.name,
        }
    }

    pub fn kubeconfig(&self) -> &std::path::Path {
        match self {
            Lab::Embedded(lab) => &lab.kubeconfig,
            Lab::Outer(lab) => &lab.kubeconfig,
        }
    }

    pub fn note(&self) -> Option<LabNote> {
        match self {
            Lab::Embedded(lab) => read_note(&lab.name),
            Lab::Outer(lab) => Some(lab.note.clone()),
        }
    }
}

/// All labs of this user.
pub fn all() -> Vec<Lab> {
    let outer = outer_labs().into_iter().map(Lab::Outer);
    list_labs().into_iter().map(Lab::Embedded).chain(outer).collect()
}

/// The running lab of that name; without a name the only one.
pub fn find(name: Option<&str>) -> Result<Lab, Failure> {
    let labs = all();
    let names: Vec<&str> = labs.iter().map(Lab::name).collect();
    let all = names.join(", ");
    match name {
        Some(name) => labs.iter().find(|lab| lab.name() == name).cloned().ok_or_else(|| {
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

/// # Errors
/// When a lab of that name is there, or none could be.
pub fn must_be_free(name: &str) -> Result<(), Failure> {
    let sound = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-';
    if name.is_empty() || name.len() > 40 || !name.chars().all(sound) || name.starts_with('-') || name.ends_with('-') {
        return Err(Failure::usage(format!("`{name}` is no name for a lab: lower-case letters, digits and `-`, at most 40")));
    }
    if all().iter().any(|lab| lab.name() == name) {
        return Err(Failure::environment(format!("a lab named `{name}` is there already"))
            .hint(format!("`gatelab down {name}` takes it away; --name gives the new one another name")));
    }
    Ok(())
}

/// Beside the lab's own folder, which is the cluster's.
fn note_path(name: &str) -> PathBuf {
    default_state_dir(name).with_extension("note.json")
}

pub fn write_note(name: &str, note: &LabNote) -> std::io::Result<()> {
    fs::write(note_path(name), serde_json::to_vec(note)?)
}

fn read_note(name: &str) -> Option<LabNote> {
    serde_json::from_slice(&fs::read(note_path(name)).ok()?).ok()
}

pub fn remove_note(name: &str) {
    let _ = fs::remove_file(note_path(name));
}

/// Beside the folders of embedded labs, so that names are unique among all.
fn outer_path(name: &str) -> PathBuf {
    default_state_dir(name).with_extension(OUTER)
}

fn outer_labs() -> Vec<OuterLab> {
    let files = outer_path("any").parent().and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    let paths = files.map(|file| file.path()).filter(|path| path.to_string_lossy().ends_with(OUTER));
    let mut labs: Vec<OuterLab> = paths.filter_map(|path| serde_json::from_slice(&fs::read(path).ok()?).ok()).collect();
    labs.sort_by(|a, b| a.name.cmp(&b.name));
    labs
}

pub fn write_outer(lab: &OuterLab) -> std::io::Result<()> {
    let path = outer_path(&lab.name);
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(&serde_json::to_vec(lab)?)
}

pub fn remove_outer(name: &str) {
    let _ = fs::remove_file(outer_path(name));
}
