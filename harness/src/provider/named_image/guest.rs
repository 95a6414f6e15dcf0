//! This program as a guest in somebody else's image, which may have no C library or another one: what it needs is carried along.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use gateways::GatewayKind;
use gateways::fetch::{Search, find};
use serde::{Deserialize, Serialize};

use super::elf;

/// Folder that holds what the program needs; `harness/build.rs` has the program look for libraries there. Short enough for the place
/// of the loader's name in the program.
pub const FOLDER: &str = "/gatelab.d";
/// Name of the copy in [`FOLDER`].
pub const COPY: &str = "gatelab";
const LOADER: &str = "ld.so";

/// Arguments of `gatelab guest`.
#[derive(Clone, Debug, clap::Args)]
pub struct GuestArgs {
    #[command(subcommand)]
    pub command: GuestCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
pub enum GuestCommand {
    /// Copy this program into a folder, with all that it needs to be started from /gatelab.d in any image
    MoveIn { folder: PathBuf },
    /// Say which build of a gateway this container has
    Look { gateway: GatewayKind },
}

/// What `gatelab guest look` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub version: String,
    pub binary: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    #[error("copying {}: {source}", .path.display())]
    Copy { path: PathBuf, source: io::Error },
    #[error("this image has no {0} that runs on its PATH or in the usual folders")]
    NoGateway(GatewayKind),
    #[error(transparent)]
    Search(#[from] gateways::FetchError),
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}

/// Does what is asked for.
///
/// # Errors
/// When a file cannot be copied, or no gateway is there.
pub fn run(args: &GuestArgs) -> Result<(), GuestError> {
    match &args.command {
        GuestCommand::MoveIn { folder } => move_in(folder),
        GuestCommand::Look { gateway } => {
            let seen = look(*gateway)?;
            let text = serde_json::to_string(&seen).map_err(|error| GuestError::Output(error.into()))?;
            writeln!(io::stdout().lock(), "{text}").map_err(GuestError::Output)
        }
    }
}

fn look(kind: GatewayKind) -> Result<Seen, GuestError> {
    // No cache is there; PATH and the usual folders are what counts.
    let search = Search { given: None, path: true, version: None, cache: "/nonexistent".into() };
    let build = find(kind, &search)?.ok_or(GuestError::NoGateway(kind))?;
    Ok(Seen { version: build.version, binary: build.binary })
}

fn move_in(folder: &Path) -> Result<(), GuestError> {
    let executable = Path::new("/proc/self/exe");
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| GuestError::Copy { path, source }
    };
    let copy = folder.join(COPY);
    place(executable, &copy)?;
    let file = File::options().read(true).write(true).open(&copy).map_err(failed(&copy))?;
    let Some(loader) = elf::loader(&file).map_err(failed(executable))? else { return Ok(()) };
    elf::set_loader(&file, &format!("{FOLDER}/{LOADER}")).map_err(failed(&copy))?;
    place(Path::new(&loader), &folder.join(LOADER))?;
    let maps = fs::read_to_string("/proc/self/maps").map_err(failed(Path::new("/proc/self/maps")))?;
    for library in libraries(&maps) {
        if let Some(name) = library.file_name() {
            place(&library, &folder.join(name))?;
        }
    }
    Ok(())
}

/// For whatever user the gateway's container runs as.
fn place(from: &Path, to: &Path) -> Result<(), GuestError> {
    let failed = |source| GuestError::Copy { path: from.to_owned(), source };
    fs::copy(from, to).map_err(failed)?;
    fs::set_permissions(to, Permissions::from_mode(0o755)).map_err(failed)
}

/// The shared objects that this process runs with, from the lines of proc(5)'s `maps`: `range mode offset device inode path`. The lab's
/// image has each under the very name that the loader looks for.
fn libraries(maps: &str) -> Vec<PathBuf> {
    let path = |line: &str| line.splitn(6, ' ').nth(5).map(|path| PathBuf::from(path.trim_start()));
    let is_library = |path: &PathBuf| path.is_absolute() && path.file_name().is_some_and(|name| name.to_string_lossy().contains(".so"));
    let mut libraries: Vec<PathBuf> = maps.lines().filter_map(path).filter(is_library).collect();
    libraries.sort();
    libraries.dedup();
    libraries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_what_is_mapped_once_each() {
        let maps = "55d0-55d1 r--p 00000000 08:01 123                        /gatelab\n\
                    7f00-7f01 r--p 00000000 08:01 124                        /lib/x86_64-linux-gnu/libc.so.6\n\
                    7f01-7f02 r-xp 00001000 08:01 124                        /lib/x86_64-linux-gnu/libc.so.6\n\
                    7f03-7f04 r--p 00000000 08:01 125                        /lib64/ld-linux-x86-64.so.2\n\
                    7f05-7f06 rw-p 00000000 00:00 0 \n\
                    7ffc-7ffd rw-p 00000000 00:00 0                          [stack]\n";
        assert_eq!(libraries(maps), ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from));
    }

    #[test]
    fn all_that_this_program_needs_moves_with_it() {
        let folder = tempfile::tempdir().unwrap();
        move_in(folder.path()).unwrap();
        let copy = File::open(folder.path().join(COPY)).unwrap();
        if elf::loader(&copy).unwrap().is_none() {
            return;
        }
        assert_eq!(elf::loader(&copy).unwrap().as_deref(), Some("/gatelab.d/ld.so"));
        // By hand, since /gatelab.d is not there: the carried loader, the carried libraries and nothing of this machine's.
        let mut command = std::process::Command::new(folder.path().join(LOADER));
        command.args(["--inhibit-cache", "--library-path"]).arg(folder.path()).arg(folder.path().join(COPY)).arg("--list");
        let output = command.env("LD_DEBUG", "libs").env_remove("LD_LIBRARY_PATH").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let begun: Vec<&str> = said.lines().filter_map(|line| line.split("calling init: ").nth(1)).collect();
        assert!(!begun.is_empty() && begun.iter().all(|library| Path::new(library).starts_with(folder.path())), "{begun:?}");
    }

    #[test]
    fn a_gateway_that_is_not_there_is_told() {
        // Of this machine's: either it has a traefik of its own, or the error names it.
        match look("traefik".parse().unwrap()) {
            Ok(seen) => assert!(seen.binary.is_file()),
            Err(error) => assert!(error.to_string().contains("no traefik that runs"), "{error}"),
        }
    }
}
