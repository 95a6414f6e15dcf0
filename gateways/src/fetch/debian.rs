//! Packages of the machine's own apt configuration, unpacked without installing them.
//!
//! apt works as an ordinary user when its state and cache lie in folders of that user. The machine's configuration (sources, keys,
//! proxies, preferences) is used as it is, less the hooks that administer the real system.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    Fetch, FetchError, GatewayBuild, Progress,
    cache::{Record, Staging},
    command::{self, Finished},
    version,
};
use crate::GatewayKind;

const STEPS: u32 = 3;
const HINT: &str = "/etc/apt";

/// apt with folders of its own.
struct Apt {
    folder: PathBuf,
    configuration: PathBuf,
}

impl Apt {
    fn prepare(folder: &Path) -> Result<Self, FetchError> {
        if command::locate("apt-get").is_none() || command::locate("dpkg-deb").is_none() {
            return Err(FetchError::ToolMissing {
                tool: "apt-get",
                purpose: "fetching gateways from its packages",
                remedy: "install the gateway with this system's own package manager, then the lab finds it on PATH",
            });
        }
        let parts = folder.join("parts");
        for path in [&parts, &folder.join("state/lists/partial"), &folder.join("cache/archives/partial")] {
            fs::create_dir_all(path).map_err(FetchError::file("create", path))?;
        }
        // The machine's parts are copied so that a last one can take hooks out again: options given with -o only ever add to lists.
        if let Ok(entries) = fs::read_dir("/etc/apt/apt.conf.d") {
            for entry in entries.flatten() {
                // A part that this user may not read is passed over, as apt itself does.
                let _ = fs::copy(entry.path(), parts.join(entry.file_name()));
            }
        }
        let path = folder.display();
        let mut last = format!(
            "#clear APT::Update::Pre-Invoke;\n#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n\
             #clear DPkg::Post-Invoke;\n#clear DPkg::Pre-Install-Pkgs;\n\
             Dir::State \"{path}/state\";\nDir::State::status \"/var/lib/dpkg/status\";\nDir::Cache \"{path}/cache\";\n\
             Dir::Log \"{path}/log\";\nAcquire::Languages \"none\";\nAPT::Update::Error-Mode \"any\";\nAPT::Get::List-Cleanup \"false\";\n\
             Acquire::Retries \"2\";\n"
        );
        for target in
            ["deb::DEP-11", "deb::DEP-11-icons-small", "deb::DEP-11-icons", "deb::DEP-11-icons-hidpi", "deb::CNF", "deb::Contents-deb"]
        {
            last.push_str(&format!("Acquire::IndexTargets::{target}::DefaultEnabled \"false\";\n"));
        }
        // As root, apt would drop to user _apt for downloads, who may not enter this user's cache; anybody else cannot drop anyway.
        last.push_str("APT::Sandbox::User \"\";\n");
        let last_path = parts.join("zz-private");
        fs::write(&last_path, last).map_err(FetchError::file("write", &last_path))?;
        // apt reads the file in APT_CONFIG before everything else, so this moves the folder of parts.
        let configuration = folder.join("apt.conf");
        let mut first = std::env::var_os("APT_CONFIG").and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        first.push_str(&format!("\nDir::Etc::parts \"{}\";\n", parts.display()));
        fs::write(&configuration, first).map_err(FetchError::file("write", &configuration))?;
        Ok(Self { folder: folder.to_owned(), configuration })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(command::locate(program).unwrap_or_else(|| program.into()));
        command.env("APT_CONFIG", &self.configuration).env("DEBIAN_FRONTEND", "noninteractive").current_dir(&self.folder);
        command
    }

    fn update(&self, progress: &dyn Fn(Progress)) -> Result<(), FetchError> {
        let lists = self.folder.join("state/lists");
        let finished = command::run(self.command("apt-get").args(["-q", "update"]), &self.folder, &|| {
            progress(Progress::Bytes { done: command::size_of(&lists), total: None });
        })?;
        if finished.status.success() { Ok(()) } else { Err(explain(&finished, "the package lists")) }
    }

    /// Downloads a package (and unpacks it), with its version.
    fn unpack(&self, package: &str, tree: &Path, progress: &dyn Fn(Progress)) -> Result<String, FetchError> {
        let folder = self.folder.join(format!("deb-{package}"));
        fs::create_dir_all(&folder).map_err(FetchError::file("create", &folder))?;
        let finished = command::run(self.command("apt-get").args(["-q", "download", package]).current_dir(&folder), &self.folder, &|| {
            progress(Progress::Bytes { done: command::size_of(&folder), total: None });
        })?;
        if !finished.status.success() {
            return Err(explain(&finished, package));
        }
        let file = fs::read_dir(&folder)
            .map_err(FetchError::file("read", &folder))?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .ok_or_else(|| explain(&finished, package))?;
        command::run_checked(self.command("dpkg-deb").arg("-x").arg(&file).arg(tree), &self.folder, &|| ())?;
        let version = command::run_checked(self.command("dpkg-deb").arg("-f").arg(&file).arg("Version"), &self.folder, &|| ())?;
        Ok(version.output.trim().to_owned())
    }

    /// `nginx=1.22.1-9`: the first of the versions which apt knows that is the wanted one.
    fn exact(&self, kind: GatewayKind, package: &str, wanted: &str) -> Result<String, FetchError> {
        let known = command::run_checked(self.command("apt-cache").args(["madison", package]), &self.folder, &|| ())?;
        let mut versions: Vec<&str> = known.output.lines().filter_map(|line| line.split('|').nth(1)).map(str::trim).collect();
        versions.dedup();
        match versions.iter().find(|version| version::fits(version, wanted)) {
            Some(version) => Ok(format!("{package}={version}")),
            None => Err(FetchError::NoSuchVersion {
                tool: "apt",
                kind,
                wanted: wanted.to_owned(),
                available: if versions.is_empty() { "none".to_owned() } else { versions.join(", ") },
            }),
        }
    }

    /// Names of the packages that a package depends on, to any depth, that the machine has not installed and that hold libraries.
    fn missing_libraries(&self, package: &str) -> Result<Vec<String>, FetchError> {
        let finished = command::run_checked(
            self.command("apt-cache").args([
                "depends",
                "--recurse",
                "--no-recommends",
                "--no-suggests",
                "--no-conflicts",
                "--no-breaks",
                "--no-replaces",
                "--no-enhances",
                package,
            ]),
            &self.folder,
            &|| (),
        )?;
        let mut names: Vec<String> = finished
            .output
            .lines()
            .filter(|line| line.starts_with(|c: char| c.is_ascii_alphanumeric()))
            .map(|line| line.trim().to_owned())
            .filter(|name| name.starts_with("lib") || name.starts_with("zlib"))
            .collect();
        names.dedup();
        names.retain(|name| !self.is_installed(name));
        Ok(names)
    }

    fn is_installed(&self, package: &str) -> bool {
        let query = self.command("dpkg-query").args(["-W", "-f", "${db:Status-Status}\n", package]).output();
        query.is_ok_and(|output| output.status.success() && String::from_utf8_lossy(&output.stdout).lines().any(|line| line == "installed"))
    }
}

fn explain(finished: &Finished, package: &str) -> FetchError {
    if finished.says(&["Hash Sum mismatch", "Clearsigned file isn't valid", "NO_PUBKEY", "EXPKEYSIG", "is not signed"]) {
        return FetchError::HashMismatch {
            package: package.to_owned(),
            expected: "of the signed index".to_owned(),
            output: finished.tail(),
        };
    }
    if finished.says(&[
        "Unable to locate package",
        "has no installation candidate",
        "Can't select candidate",
        "Unable to find a source package",
    ]) {
        return FetchError::PackageMissing { tool: "apt-get", package: package.to_owned(), output: finished.tail() };
    }
    if finished.says(&[
        "Failed to fetch",
        "Could not resolve",
        "Could not connect",
        "Connection failed",
        "Temporary failure resolving",
        "Unable to connect",
        "The list of sources could not be read",
    ]) {
        return FetchError::IndexUnreachable { tool: "apt-get", hint: HINT, output: finished.tail() };
    }
    FetchError::CommandFailed { command: format!("apt-get for {package}"), status: finished.status.to_string(), output: finished.tail() }
}

/// Unpacks packages into a staging folder's tree, without what they depend on.
pub(super) fn unpack_packages(packages: &[&str], staging: &Staging, progress: &dyn Fn(Progress)) -> Result<(), FetchError> {
    progress(Progress::Step { step: 1, of: 2, what: "reading the package lists of this machine's apt".to_owned() });
    let apt = Apt::prepare(&staging.path().join("apt"))?;
    apt.update(progress)?;
    progress(Progress::Step { step: 2, of: 2, what: format!("downloading {}", packages.join(", ")) });
    packages.iter().try_for_each(|package| apt.unpack(package, &staging.tree(), progress).map(drop))
}

/// A gateway in Debian's packages.
pub(crate) struct Package {
    /// The binary within the unpacked packages.
    pub binary: &'static str,
    /// Tried one after the other until the binary is there.
    pub names: &'static [&'static str],
}

impl Fetch<'_> {
    /// Fetches a gateway out of a Debian package, and the libraries that this machine lacks.
    pub fn debian(&self, package: &Package) -> Result<GatewayBuild, FetchError> {
        let Self { kind, staging, progress, .. } = *self;
        let tree = staging.tree();
        progress(Progress::Step { step: 1, of: STEPS, what: "reading the package lists of this machine's apt".to_owned() });
        let apt = Apt::prepare(&staging.path().join("apt"))?;
        apt.update(progress)?;
        progress(Progress::Step { step: 2, of: STEPS, what: format!("downloading {kind}") });
        let binary = tree.join(package.binary);
        let mut found = None;
        for name in package.names {
            let exact = match self.wanted {
                Some(version) => apt.exact(kind, name, version)?,
                None => (*name).to_owned(),
            };
            let package_version = apt.unpack(&exact, &tree, progress)?;
            if binary.is_file() {
                found = Some((*name, package_version));
                break;
            }
        }
        let Some((name, package_version)) = found else {
            let package = format!("{kind} with {}", package.binary);
            return Err(FetchError::PackageMissing { tool: "apt-get", package, output: String::new() });
        };
        progress(Progress::Step { step: 3, of: STEPS, what: "completing its libraries".to_owned() });
        let library_path = complete_libraries(&apt, name, &tree, &binary, progress)?;
        version::ask(kind, &binary, &library_path.iter().map(|folder| tree.join(folder)).collect::<Vec<_>>())?;
        // An epoch's colon would break LD_LIBRARY_PATH, which lies in the same folder.
        let package_version = package_version.replace(':', "-");
        let asked_for = self.wanted.is_some();
        self.locked.keep(staging, &Record { kind, package: package_version, binary: package.binary.into(), library_path, asked_for })
    }
}

/// Unpacks the libraries that the dynamic linker does not find here, and says in which folders of the tree they are.
fn complete_libraries(
    apt: &Apt,
    package: &str,
    tree: &Path,
    binary: &Path,
    progress: &dyn Fn(Progress),
) -> Result<Vec<PathBuf>, FetchError> {
    if unresolved(binary, &[]).is_empty() {
        return Ok(Vec::new());
    }
    for library in apt.missing_libraries(package)? {
        // A virtual or already unpacked name is no harm: what counts is what the linker finds in the end.
        let _ = apt.unpack(&library, tree, progress);
        let folders = library_folders(tree);
        if unresolved(binary, &folders.iter().map(|folder| tree.join(folder)).collect::<Vec<_>>()).is_empty() {
            return Ok(folders);
        }
    }
    let folders: Vec<PathBuf> = library_folders(tree).iter().map(|folder| tree.join(folder)).collect();
    Err(FetchError::LibrariesMissing { path: binary.to_owned(), libraries: unresolved(binary, &folders).join(", ") })
}

/// Names of the shared libraries that are not found. The dynamic linker lists what it would load when LD_TRACE_LOADED_OBJECTS is set
/// (ld.so(8)); `ldd` is a script around that.
fn unresolved(binary: &Path, library_path: &[PathBuf]) -> Vec<String> {
    let mut command = Command::new(binary);
    command.env("LD_TRACE_LOADED_OBJECTS", "1");
    if let Some(value) = version::library_path_value(library_path) {
        command.env("LD_LIBRARY_PATH", value);
    }
    let Ok(output) = command.output() else { return vec!["(its dynamic linker)".to_owned()] };
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|line| line.contains("not found"))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect()
}

/// Folders in an unpacked tree that hold shared libraries, relative to it.
pub(super) fn library_folders(tree: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for base in ["usr/lib", "lib"] {
        let Ok(entries) = fs::read_dir(tree.join(base)) else { continue };
        for entry in entries.flatten() {
            // Multiarch folders: usr/lib/x86_64-linux-gnu
            if entry.file_name().to_string_lossy().contains("-linux-") {
                folders.push(Path::new(base).join(entry.file_name()));
            }
        }
    }
    folders
}
