//! The command line: one file a command. Every command returns how it ended, or a [`Failure`](failure::Failure) that is rendered once.

pub mod arguments;
pub mod catalogue;
pub mod check;
pub mod clusters;
pub mod completions;
pub mod container;
pub mod diff;
mod dispatch;
pub mod doctor;
pub mod down;
pub mod exit;
pub mod failure;
pub mod gateways;
pub mod interrupt;
pub mod kubeconfig;
pub mod labs;
pub mod list;
pub mod matrix;
mod report;
pub mod run;
pub mod show;
pub mod status;
pub mod up;

pub use arguments::Cli;
pub use dispatch::main;
pub use exit::Exit;
