//! What the doctor looks at.

use std::path::Path;
use std::process::{Command, Stdio};

use gateways::GatewayKind;
use gateways::fetch::{Search, find, find_tools};
use nix::sys::inotify::{InitFlags, Inotify};
use nix::sys::statvfs::statvfs;

use super::check::Check;
use super::namespaces::{self, Feature};
use crate::provider::kind;
use crate::run::session::default_jobs;

/// A fetched gateway takes up to about this much in the cache.
const CACHE_NEED: u64 = 500 << 20;

/// Everything, in the order in which it matters. Blocks; starts a few short child processes.
pub fn examine() -> Vec<Check> {
    let mut checks = kernel();
    checks.push(inotify());
    checks.extend(space());
    checks.extend(gateways_found());
    checks.extend(tools());
    checks
}

fn kernel() -> Vec<Check> {
    let attempts = match namespaces::attempts() {
        Ok(attempts) => attempts,
        Err(error) => {
            return vec![Check::missing(
                "user namespaces",
                format!("the trial could not be started: {error}"),
                "run gatelab from a file that can be executed",
            )];
        }
    };
    attempts
        .into_iter()
        .map(|attempt| {
            let (name, works, advice) = describe(attempt.what);
            match attempt.error {
                None => Check::ok(name, works),
                Some(error) => Check::missing(name, error, advice()),
            }
        })
        .collect()
}

type Description = (&'static str, &'static str, fn() -> String);

fn describe(feature: Feature) -> Description {
    match feature {
        Feature::UserNamespace => ("user namespaces", "a throw-away one was made", user_namespace_advice),
        Feature::Mount => ("mounts in them", "tmpfs was mounted", || {
            "most likely a container whose profile forbids mount: start it with `--security-opt seccomp=unconfined --security-opt apparmor=unconfined`".into()
        }),
        Feature::Veth => ("veth", "a pair was made", || "load the kernel module: `sudo modprobe veth`".into()),
        Feature::PacketSocket => ("AF_PACKET", "a socket was opened", || "load the kernel module: `sudo modprobe af_packet`".into()),
        Feature::Nftables => ("nftables", "the kernel answered", || {
            "load the kernel modules: `sudo modprobe nf_tables nft_nat nft_masq nft_reject_inet`".into()
        }),
    }
}

/// What forbids user namespaces, from the switches that Debian, Ubuntu and the kernel have for it.
fn user_namespace_advice() -> String {
    let read = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).ok();
    if read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        return "AppArmor restricts them (Ubuntu 24.04): `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`, or run as root"
            .into();
    }
    if read("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        return "`sudo sysctl kernel.unprivileged_userns_clone=1`, or run as root".into();
    }
    if read("/proc/sys/user/max_user_namespaces").as_deref() == Some("0") {
        return "`sudo sysctl user.max_user_namespaces=15000`".into();
    }
    "most likely a container whose seccomp profile forbids unshare: start it with `--security-opt seccomp=unconfined`, or run on the machine itself".into()
}

/// A lab with Envoy in it takes up to this many: one for its own configuration, one for a sidecar's in each pod.
const INOTIFY_PER_LAB: usize = 4;

/// inotify instances are limited for all processes of a user together (inotify(7), `max_user_instances`, 128 by default); container
/// engines, editors and kind take many, and Envoy, which watches its configuration's files, aborts without one. Tried by opening some.
fn inotify() -> Check {
    const NAME: &str = "inotify instances";
    let wanted = default_jobs() * INOTIFY_PER_LAB;
    let opened: Vec<_> = (0..wanted).map_while(|_| Inotify::init(InitFlags::IN_CLOEXEC).ok()).collect();
    if opened.len() == wanted {
        return Check::ok(NAME, format!("{wanted} could be opened"));
    }
    Check::optional(
        NAME,
        format!("{} of {wanted} could be opened", opened.len()),
        "a gateway that watches files aborts where there is none left: `sudo sysctl fs.inotify.max_user_instances=1024`, or fewer `--jobs`",
    )
}

fn space() -> Vec<Check> {
    match Search::from_environment() {
        Err(error) => vec![Check::missing("cache folder", error.to_string(), "set GATELAB_CACHE to a folder that you may write to")],
        Ok(search) => vec![writable("cache folder", &search.cache, CACHE_NEED)],
    }
}

/// Tried by making the folder and a file in it; the file goes again, and so does the folder when it was not there.
fn writable(name: &str, folder: &Path, need: u64) -> Check {
    let existed = folder.exists();
    let trial = std::fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder).map(drop));
    let free = statvfs(folder).map(|stat| stat.blocks_available() * stat.fragment_size());
    if !existed {
        let _ = std::fs::remove_dir(folder);
    }
    match (trial, free) {
        (Err(error), _) => {
            Check::missing(name, format!("{}: {error}", folder.display()), "set GATELAB_CACHE to a folder that you may write to")
        }
        (Ok(()), Ok(free)) if free < need => Check::missing(
            name,
            format!("{}: {} MB free", folder.display(), free >> 20),
            format!("make room for {} MB, or set GATELAB_CACHE to a folder with more", need >> 20),
        ),
        (Ok(()), Ok(free)) => Check::ok(name, format!("{}, {} MB free", folder.display(), free >> 20)),
        (Ok(()), Err(_)) => Check::ok(name, folder.display().to_string()),
    }
}

fn gateways_found() -> Vec<Check> {
    let Ok(search) = Search::from_environment() else { return Vec::new() };
    let tools = match find_tools(&search) {
        Some(folder) => Check::ok("pod tools", format!("busybox and nc at {}", folder.display())),
        None => Check::optional(
            "pod tools",
            "not here yet",
            "`gatelab gateways install` fetches them; without, pods have this machine's own tools alone (nslookup, nc, wget)",
        ),
    };
    let gateways = GatewayKind::ALL.iter().filter(|kind| kind.image().is_none()).map(|kind| match find(*kind, &search) {
        Ok(Some(build)) => Check::ok(kind.name(), format!("{} at {}", build.version, build.binary.display())),
        Ok(None) => {
            Check::optional(kind.name(), "not here yet", "it is fetched when it is first needed; `gatelab gateways install` does it now")
        }
        Err(error) => Check::missing(kind.name(), error.to_string(), "remove the broken one, or name another"),
    });
    gateways.chain([tools]).collect()
}

fn tools() -> Vec<Check> {
    let version = |name: &str, program: &str, arguments: &[&str], advice: &str| match first_line(program, arguments) {
        Some(line) => Check::ok(name, line),
        None => Check::optional(name, "not found", advice),
    };
    let without = |client: &str| {
        let theirs = GatewayKind::ALL.iter().filter(|kind| kind.package_client() == client).map(|kind| kind.name());
        format!("without {client}, {} has to be on PATH", theirs.collect::<Vec<_>>().join(" or "))
    };
    let pip = ["pip3", "pip"].iter().find_map(|program| first_line(program, &["--version"])).or_else(|| {
        let line = first_line("python3", &["-m", "pip", "--version"])?;
        Some(line)
    });
    vec![
        version("apt", "apt-get", &["--version"], &without("apt")),
        match pip {
            Some(line) => Check::ok("pip", line.split(" from ").next().unwrap_or_default().to_owned()),
            None => Check::optional("pip", "not found", without("pip")),
        },
        version("kubectl", "kubectl", &["version", "--client"], "only needed to look at a lab by hand"),
        version("docker", "docker", &["--version"], "only needed for `--cluster kind`, where Podman does as well"),
        version("podman", "podman", &["--version"], "only needed for `--cluster kind` without Docker"),
        kind(),
        node_image(),
    ]
}

/// What nodes of kind are made of, where an engine answers.
fn node_image() -> Check {
    const NAME: &str = "kind node image";
    const ADVICE: &str = "only needed for `--cluster kind`; where no registry can be reached, kind-config/node-image/build.sh builds one";
    if let Ok(named) = std::env::var("GATELAB_NODE_IMAGE") {
        return Check::ok(NAME, format!("{named} (GATELAB_NODE_IMAGE)"));
    }
    let mut silent = Vec::new();
    for engine in ["docker", "podman"] {
        let output = Command::new(engine).args(["images", "--format", "{{.Repository}}:{{.Tag}}"]).stdin(Stdio::null()).output();
        match output {
            Ok(output) if output.status.success() => {
                let list = String::from_utf8_lossy(&output.stdout).into_owned();
                if let Some(image) = list.lines().find(|line| line.contains("gatelab/kind-node:")) {
                    return Check::ok(NAME, format!("{image} in {engine}"));
                }
            }
            Ok(output) => {
                silent.push(format!("{engine}: {}", String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or("no answer")))
            }
            Err(_) => {}
        }
    }
    match silent.first() {
        Some(said) => Check::optional(NAME, format!("an engine does not answer: {said}"), "start it, and be in the group `docker` or root"),
        None => Check::optional(NAME, "none built here, kind pulls its own", ADVICE),
    }
}

/// Where `--cluster kind` looks for it, too.
fn kind() -> Check {
    let path = kind::provider::surroundings().and_then(|around| kind::tools::find_kind(&around)).ok();
    match path.and_then(|path| Some((first_line(path.to_str()?, &["--version"])?, path))) {
        Some((line, path)) => Check::ok("kind", format!("{line} at {}", path.display())),
        None => Check::optional("kind", "not found", "only needed for `--cluster kind`; kind-config/node-image/build.sh builds it, too"),
    }
}

fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_made_is_missing_and_nothing_is_left_of_a_trial() {
        let root = tempfile::tempdir().unwrap();
        let blocked = root.path().join("file");
        std::fs::write(&blocked, "").unwrap();
        assert_eq!(writable("cache folder", &blocked.join("inside"), 0).state, State::Missing);
        let check = writable("cache folder", root.path(), u64::MAX);
        assert_eq!(check.state, State::Missing, "{check:?}");
        assert!(check.advice.unwrap().contains("make room"));
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
