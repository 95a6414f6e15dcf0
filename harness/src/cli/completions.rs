//! `gatelab completions`.

use clap::CommandFactory;

use super::arguments::{Cli, CompletionsArgs};
use super::exit::Exit;
use super::failure::Failure;
use crate::terminal::Screen;

pub fn run(args: &CompletionsArgs, screen: &Screen) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "gatelab", &mut script);
    screen.data_raw(&String::from_utf8_lossy(&script));
    Ok(Exit::Success)
}
