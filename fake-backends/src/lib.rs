//! A server that behaves exactly as it is told, well or badly, on every layer between the TCP socket and the process.
//!
//! `config` is the vocabulary, `misbehaviour` holds one mechanism a file, `connection` drives hyper on one socket,
//! `journal` remembers every connection and request, `admin` reads and switches a running backend.

mod admin;
mod args;
mod backend;
pub mod config;
mod connection;
mod error;
pub mod journal;
mod listener;
mod metrics;
mod misbehaviour;
mod process;
mod units;
mod upstream;

pub use args::{BackendArgs, BackendCommand, journal_since, run};
pub use backend::Backend;
pub use config::Config;
pub use error::Error;
pub use misbehaviour::certificate::Authority;
pub use process::Exit;
pub use units::ByteSize;
