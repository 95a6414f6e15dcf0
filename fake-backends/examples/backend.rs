//! A backend as a process of its own: the tests of signals and exit codes run it.

use clap::Parser;
use fake_backends::{BackendArgs, Error, run};

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    backend: BackendArgs,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    run(Command::parse().backend).await
}
