//! `gatelab kubeconfig`.

use super::arguments::LabArgs;
use super::exit::Exit;
use super::failure::Failure;
use super::labs;
use crate::terminal::Screen;

pub fn run(args: &LabArgs, screen: &Screen) -> Result<Exit, Failure> {
    let lab = labs::find(args.name.as_deref())?;
    screen.data(&lab.kubeconfig().display().to_string());
    Ok(Exit::Success)
}
