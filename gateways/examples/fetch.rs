//! Fetches the gateways and prints what was found: `cargo run -p gateways --example fetch`.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use gateways::{GatewayKind, fetch};

fn main() -> Result<(), fetch::FetchError> {
    let search = fetch::Search::from_environment()?;
    for &kind in GatewayKind::ALL.iter().filter(|kind| kind.image().is_none()) {
        let build = fetch::install(kind, &search, &|progress| eprintln!("{progress:?}"))?;
        println!("{build:#?}\n{} {:?} {:?}", build.image(), build.image_mounts(), build.agent_arguments());
    }
    Ok(())
}
