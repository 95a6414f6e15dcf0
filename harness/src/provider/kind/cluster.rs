//! Making and removing one cluster. Its name says whose it is: `gatelab-<process>-<random>`. Its kubeconfig is a file of its own:
//! kind would otherwise write to the user's.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gateways::NodePorts;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getpgid};

use super::cluster_file::cluster_file;
use super::error::KindError;
use super::tools::{Surroundings, Tools};
use crate::provider::interface::HostPorts;

/// Network of all labs' clusters, apart from `kind`, which is the user's own clusters'.
pub const NETWORK: &str = "gatelab-kind";
/// Names of all clusters of labs begin like this.
pub const PREFIX: &str = "gatelab-";
/// Bound of removing one cluster.
const DELETE_WITHIN: Duration = Duration::from_secs(120);
/// Each is lost to another cluster that is begun at the same time, which needs as many.
const NETWORK_TRIES: u32 = 3;
/// As in the files of `kind-config/`.
const NODE_PORTS: NodePorts = NodePorts { http: 30080, https: 30443 };
/// File in a cluster's folder: the folder of the running labs that it is one of.
const OWNER: &str = "runtime-folder";
/// kind's own label of node containers; docs: `kind get clusters` goes by it.
const ENGINE_LABEL: &str = "io.x-k8s.kind.cluster";

/// kind looks whether its network is there, and makes it if it is not: of two clusters that are begun at the same time the second fails,
/// before it has made anything. The words are Podman's and Docker's.
fn network_came_first(said: &str) -> bool {
    said.contains("network create") && ["already exists", "already used"].iter().any(|words| said.contains(words))
}

/// A cluster that exists, or that is being made.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub name: String,
    folder: PathBuf,
    tools: Tools,
    /// Of the maker, see [`Cluster::claim_new`].
    _lock: Option<Arc<File>>,
}

impl Cluster {
    /// Room for a cluster that is there already: its folder is there afterwards, and says whose it is.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn claim(tools: &Tools, around: &Surroundings, name: &str) -> Result<Self, KindError> {
        let folder = clusters(&around.cache).join(name);
        make_folder(&folder)?;
        // Whoever claimed it first keeps it: `--reuse` borrows.
        let owner = folder.join(OWNER);
        if !owner.exists() {
            let written = fs::write(&owner, around.runtime.as_os_str().as_bytes());
            written.map_err(|source| KindError::File { what: "whose the cluster is", path: owner, source })?;
        }
        Ok(Cluster { name: name.to_owned(), folder, tools: tools.clone(), _lock: None })
    }

    /// Room for a cluster that is to be made. Nobody else gets it until the last clone of this value, or the process, is gone: a lock
    /// (flock(2)) that lies on the file which says whose it is. Without it the second of two makers would fail in kind, and take away
    /// what the first one is making.
    ///
    /// # Errors
    /// When the name is somebody's already, or the folder cannot be made.
    pub async fn claim_new(tools: &Tools, around: &Surroundings, name: &str) -> Result<Self, KindError> {
        let folder = clusters(&around.cache).join(name);
        let begun = !folder.exists();
        let Some(mut lock) = locked(&folder)? else { return Err(KindError::BeingMade { name: name.to_owned() }) };
        // Asked with the lock in hand: another maker may just have ended.
        if running(tools).await?.iter().any(|running| running == name) {
            if begun {
                // Made with another cache folder. A folder here would make it this one's for `down --all`.
                let _ = fs::remove_dir_all(&folder);
            }
            return Err(KindError::ClusterExists { name: name.to_owned() });
        }
        let written = lock.set_len(0).and_then(|()| lock.write_all(around.runtime.as_os_str().as_bytes()));
        written.map_err(|source| KindError::File { what: "whose the cluster is", path: folder.join(OWNER), source })?;
        Ok(Cluster { name: name.to_owned(), folder, tools: tools.clone(), _lock: Some(Arc::new(lock)) })
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// Where this process puts the archive of images: others may be reusing the same cluster.
    pub fn archive(&self) -> PathBuf {
        self.folder.join(format!("images-{}.tar", std::process::id()))
    }

    /// Makes the containers and starts Kubernetes in them; does not wait for nodes to be ready. `tell`: kind's own steps.
    ///
    /// # Errors
    /// With what kind or the engine said, as far as it is understood.
    pub async fn create(
        &self,
        nodes: u32,
        image: Option<&str>,
        within: Duration,
        tell: &(dyn Fn(String) + Send + Sync),
    ) -> Result<(), KindError> {
        let file = self.folder.join("cluster.yaml");
        let text = cluster_file(&self.name, nodes).map_err(|detail| KindError::Failed {
            what: "writing the cluster's file".into(),
            status: "built in".into(),
            detail,
        })?;
        fs::write(&file, text).map_err(|source| KindError::File { what: "the cluster's file", path: file.clone(), source })?;
        let (file, kubeconfig) = (file.display().to_string(), self.kubeconfig().display().to_string());
        let mut arguments = vec!["create", "cluster", "--name", &self.name, "--config", &file, "--kubeconfig", &kubeconfig];
        if let Some(image) = image {
            arguments.extend(["--image", image]);
        }
        let step = |line: &str| {
            // ` • Preparing nodes  ...` begins a step, ` ✓ Preparing nodes` ends it.
            if let Some(step) = line.trim().strip_prefix('•') {
                let step: String = step.chars().filter(|character| character.is_ascii()).collect();
                tell(format!("kind: {}", step.trim().trim_end_matches('.').trim_end().to_lowercase()));
            }
        };
        let mut tries = 0;
        let (status, all) = loop {
            let said = self.tools.have_kind(&arguments, within, step).await?;
            if said.success {
                return Ok(());
            }
            let all = format!("{}\n{}", said.output, said.errors);
            tries += 1;
            if tries > NETWORK_TRIES || !network_came_first(&all) {
                break (said.status, all);
            }
        };
        Err(KindError::of_create(&self.tools.engine, image.unwrap_or("of kind's own choice"), &status, &all))
    }

    /// Writes the kubeconfig of a cluster that runs already.
    ///
    /// # Errors
    /// When kind does not know the cluster, or the file cannot be written.
    pub async fn adopt(&self) -> Result<(), KindError> {
        let text = self.tools.ask_kind(&["get", "kubeconfig", "--name", &self.name]).await?.checked("asking for the kubeconfig")?;
        let path = self.kubeconfig();
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|source| KindError::File { what: "the cluster's kubeconfig", path, source })
    }

    /// Where this machine reaches the node ports that `kind-config/` maps; `None` for a cluster made without them.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn host_ports(&self) -> Result<Option<HostPorts>, KindError> {
        let node = format!("{}-control-plane", self.name);
        let said = self.tools.ask_engine(&["port", &node]).await?;
        // Both engines fail for a container that publishes nothing.
        Ok(said.success.then(|| host_ports(&said.output)).flatten())
    }

    /// Puts the images of an archive into every node.
    ///
    /// # Errors
    /// When kind or a node refuses them.
    pub async fn load(&self, archive: &Path, within: Duration) -> Result<(), KindError> {
        load(&self.tools, &self.name, archive, within).await
    }

    /// The network of labs goes with the last of them. An engine refuses to remove one that is in use.
    async fn remove_network(&self) {
        let others = self.folder.parent().and_then(|folder| fs::read_dir(folder).ok()).is_some_and(|mut others| others.next().is_some());
        if !others {
            let _ = self.tools.ask_engine(&["network", "rm", NETWORK]).await;
        }
    }

    /// Takes it away, half made or whole; returns when no container of it is left.
    ///
    /// # Errors
    /// When the engine does not let go of a container.
    pub async fn delete(&self) -> Result<(), KindError> {
        let kubeconfig = self.kubeconfig().display().to_string();
        let mut left = String::new();
        end_creators(&self.name);
        // More than once: a container that was being made when its maker was killed may appear after the first look.
        for _ in 0..3 {
            let arguments = ["delete", "cluster", "--name", &self.name, "--kubeconfig", &kubeconfig];
            let said = self.tools.have_kind(&arguments, DELETE_WITHIN, |_| ()).await?;
            let filter = format!("label={ENGINE_LABEL}={}", self.name);
            left = self.tools.ask_engine(&["ps", "--all", "--quiet", "--filter", &filter]).await?.checked("listing containers")?;
            if left.trim().is_empty() {
                said.checked("deleting the cluster")?;
                let _ = fs::remove_dir_all(&self.folder);
                self.remove_network().await;
                return Ok(());
            }
        }
        let detail = format!("containers are left: {}", left.split_whitespace().collect::<Vec<_>>().join(" "));
        Err(KindError::Failed { what: format!("deleting cluster {}", self.name), status: "three attempts".into(), detail })
    }
}

/// Reads what `podman port` and `docker port` print: `30080/tcp -> 127.0.0.1:43121`.
fn host_ports(text: &str) -> Option<HostPorts> {
    let address = |port: u16| {
        text.lines().find_map(|line| {
            let (inside, outside) = line.split_once(" -> ")?;
            (inside.trim() == format!("{port}/tcp")).then(|| outside.trim().parse::<SocketAddr>().ok())?
        })
    };
    Some(HostPorts { node_ports: NODE_PORTS, http: address(NODE_PORTS.http)?, https: address(NODE_PORTS.https)? })
}

/// The cluster of a lab that `gatelab up` makes.
pub fn name_of_lab(lab: &str) -> String {
    format!("{PREFIX}lab-{lab}")
}

/// A name that no other lab has.
pub fn new_name() -> String {
    format!("{PREFIX}{}-{:04x}", std::process::id(), rand::random::<u16>())
}

/// Ends a kind that still makes this cluster: its parent was killed and could not do so.
fn end_creators(name: &str) {
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(process) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        let creates = words.windows(4).any(|four| four == [&b"create"[..], b"cluster", b"--name", name.as_bytes()]);
        // It leads a group of its own, which its podman or docker is in.
        if creates && getpgid(Some(Pid::from_raw(process))) == Ok(Pid::from_raw(process)) {
            let _ = killpg(Pid::from_raw(process), Signal::SIGKILL);
        }
    }
}

/// The clusters of labs that the engine knows, half-made ones among them.
///
/// # Errors
/// When kind cannot tell.
pub async fn running(tools: &Tools) -> Result<Vec<String>, KindError> {
    Ok(all(tools).await?.into_iter().filter(|name| name.starts_with(PREFIX)).collect())
}

/// All clusters of kind, labs or not.
///
/// # Errors
/// When kind cannot tell.
pub async fn all(tools: &Tools) -> Result<Vec<String>, KindError> {
    let list = tools.ask_kind(&["get", "clusters"]).await?.checked("listing clusters")?;
    Ok(list.lines().map(|line| line.trim().to_owned()).collect())
}

/// Puts the images of an archive into every node of a cluster.
///
/// # Errors
/// When kind or a node refuses them.
pub async fn load(tools: &Tools, name: &str, archive: &Path, within: Duration) -> Result<(), KindError> {
    let archive = archive.display().to_string();
    let said = tools.have_kind(&["load", "image-archive", &archive, "--name", name], within, |_| ()).await?;
    if said.success {
        return Ok(());
    }
    Err(KindError::of_load(&said.status, &format!("{}\n{}", said.output, said.errors)))
}

/// Takes one cluster away, half made or whole.
///
/// # Errors
/// When kind or the engine is missing, or a container stays.
pub async fn remove(around: &Surroundings, name: &str) -> Result<(), KindError> {
    let tools = Tools::find(around).await?;
    Cluster::claim(&tools, around, name)?.delete().await
}

/// Where the kubeconfig of a cluster is kept.
pub fn kubeconfig_of(cache: &Path, name: &str) -> PathBuf {
    clusters(cache).join(name).join("kubeconfig")
}

/// What [`sweep`] did, by names of clusters.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub gone: Vec<String>,
    /// Clusters of the same cache folder with the folder of running labs that they belong to, which is not this process's.
    pub left_alone: Vec<(String, PathBuf)>,
}

/// Takes away every cluster of a lab that was made with this cache folder and this folder of running labs, and what else ended
/// labs have left. Does nothing where kind or an engine is missing, as no cluster can be there then.
///
/// # Errors
/// When a cluster cannot be removed.
pub async fn sweep(around: &Surroundings) -> Result<Swept, KindError> {
    let tools = match Tools::find(around).await {
        Ok(tools) => tools,
        Err(KindError::NoKind { .. } | KindError::NoEngine | KindError::EngineDown { .. }) => return Ok(Swept::default()),
        Err(error) => return Err(error),
    };
    let mut names = running(&tools).await?;
    names.retain(|name| clusters(&around.cache).join(name).is_dir());
    // Killed before kind had made anything that it knows again.
    for name in claimed_by_the_dead(&around.cache) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut swept = Swept::default();
    for name in names {
        match owner_elsewhere(around, &name) {
            Some(owner) => swept.left_alone.push((name, owner)),
            None => {
                Cluster::claim(&tools, around, &name)?.delete().await?;
                swept.gone.push(name);
            }
        }
    }
    Ok(swept)
}

/// The folder of running labs whose the cluster is, unless it is this process's, or gone with the session that had it.
fn owner_elsewhere(around: &Surroundings, name: &str) -> Option<PathBuf> {
    let owner = PathBuf::from(OsString::from_vec(fs::read(clusters(&around.cache).join(name).join(OWNER)).ok()?));
    // Its parent: a run of kind leaves no record in the folder itself, which need not be there.
    (owner != around.runtime && owner.parent().is_some_and(Path::is_dir)).then_some(owner)
}

fn clusters(cache: &Path) -> PathBuf {
    cache.join("kind")
}

/// Its kubeconfig opens the cluster to whoever reads it.
fn make_folder(folder: &Path) -> Result<(), KindError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| KindError::File { what: "a folder for the cluster", path: folder.to_owned(), source })
}

/// The maker's lock on a folder, which is there afterwards; `None` while another one has it.
fn locked(folder: &Path) -> Result<Option<File>, KindError> {
    let path = folder.join(OWNER);
    let failed = |source: io::Error| KindError::File { what: "whose the cluster is", path: path.clone(), source };
    loop {
        make_folder(folder)?;
        let file = match OpenOptions::new().create(true).truncate(false).write(true).open(&path) {
            // Its last maker took the folder away just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file.map_err(failed)?,
        };
        match file.try_lock() {
            Ok(()) => (),
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let of = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        // Taken away between the two steps, a lock on it holds nobody off.
        if fs::metadata(&path).ok().map(of) == Some(of(file.metadata().map_err(failed)?)) {
            return Ok(Some(file));
        }
    }
}

/// Folders that no living process is making a cluster in.
fn claimed_by_the_dead(cache: &Path) -> Vec<String> {
    let entries = fs::read_dir(clusters(cache)).into_iter().flatten().flatten();
    let is_orphan = |folder: &Path| match File::open(folder.join(OWNER)) {
        Ok(file) => file.try_lock().is_ok(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(PREFIX) && is_orphan(&clusters(cache).join(name))).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_network_that_another_cluster_made_meanwhile_is_told_from_other_failures() {
        let podman = "ERROR: failed to create cluster: failed to ensure podman network: command \"podman network create -d=bridge --ipv6 --subnet \
            fc00:b5b0:1d86:bb47::/64 gatelab-kind\" failed with error: exit status 125\nCommand Output: Error: network name gatelab-kind \
            already used: network already exists";
        assert!(network_came_first(podman));
        assert!(!network_came_first("ERROR: failed to create cluster: node(s) already exist for a cluster with the name \"gatelab-a\""));
    }

    /// Programs that stand in for kind and podman: clusters are files in a folder.
    fn stand_ins(root: &Path, kind: &str) -> Surroundings {
        let bin = root.join("bin");
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir_all(root.join("clusters")).unwrap();
        let clusters = root.join("clusters").display().to_string();
        let podman = "#!/bin/sh\ncase $1 in ps) for c in CLUSTERS/*; do [ -e $c ] || continue; case \"$*\" in *label=io.x-k8s.kind.cluster=$(basename $c)*) echo id;; esac; done;; *) echo 4;; esac\n";
        for (name, script) in [("kind", kind), ("podman", podman)] {
            fs::write(bin.join(name), script.replace("CLUSTERS", &clusters)).unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        // The scripts need the system's tools, which must not be a real docker's neighbours: the engine is named.
        Surroundings { path: vec![bin], cache: root.join("cache"), engine: Some("podman".into()), ..Surroundings::default() }
    }

    const KIND: &str = "#!/bin/sh\ncase \"$1 $2\" in\n'get clusters') ls CLUSTERS;;\n'create cluster') touch CLUSTERS/$4; echo ' • Preparing nodes 📦   ...' >&2;;\n\
        'delete cluster') rm -f CLUSTERS/$4;;\nesac\n";

    #[test]
    fn ports_are_read_as_both_engines_print_them() {
        let podman = "30443/tcp -> 127.0.0.1:38475\n6443/tcp -> 127.0.0.1:41563\n30080/tcp -> 127.0.0.1:40243\n";
        let found = host_ports(podman).unwrap();
        assert_eq!((found.http.to_string(), found.https.to_string()), ("127.0.0.1:40243".into(), "127.0.0.1:38475".into()));
        assert_eq!(host_ports("6443/tcp -> 127.0.0.1:41563\n"), None, "a cluster that was made without them");
    }

    #[tokio::test]
    async fn the_sweep_takes_labs_and_leaves_other_clusters() {
        let root = tempfile::tempdir().unwrap();
        let around = stand_ins(root.path(), KIND);
        for name in ["gatelab-1-a", "mine", "gatelab-2-b"] {
            fs::write(root.path().join("clusters").join(name), "").unwrap();
        }
        for name in ["gatelab-1-a", "gatelab-2-b"] {
            fs::create_dir_all(root.path().join("cache/kind").join(name)).unwrap();
        }
        fs::write(root.path().join("clusters/gatelab-3-elsewhere"), "").unwrap();
        // Two of another runtime folder: one still there, one gone.
        for (name, runtime) in [("gatelab-5-other", root.path().join("clusters")), ("gatelab-6-past", root.path().join("no-such/gatelab"))]
        {
            fs::write(root.path().join("clusters").join(name), "").unwrap();
            let other = Surroundings { runtime, ..around.clone() };
            Cluster::claim(&Tools::find(&other).await.unwrap(), &other, name).unwrap();
        }
        let orphan = root.path().join("cache/kind/gatelab-lab-dead");
        fs::create_dir_all(&orphan).unwrap();
        let tools = Tools::find(&around).await.unwrap();
        let living = Cluster::claim_new(&tools, &around, "gatelab-lab-living").await.unwrap();
        let swept = sweep(&around).await.unwrap();
        assert_eq!(swept.gone, ["gatelab-1-a", "gatelab-2-b", "gatelab-6-past", "gatelab-lab-dead"], "half-made ones are told, too");
        assert!(living.folder.is_dir(), "somebody is about to make it");
        assert_eq!(swept.left_alone, [("gatelab-5-other".to_owned(), root.path().join("clusters"))]);
        let mut left: Vec<_> = fs::read_dir(root.path().join("clusters")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(
            left,
            ["gatelab-3-elsewhere", "gatelab-5-other", "mine"],
            "another cache's labs, another runtime folder's and the user's own clusters stay"
        );
        assert!(!orphan.exists(), "the folder of a process that is gone goes");
        assert_eq!(sweep(&Surroundings::default()).await.unwrap(), Swept::default(), "without kind there is nothing to take away");
    }

    #[tokio::test]
    async fn a_name_is_one_makers_until_its_cluster_is_gone() {
        let root = tempfile::tempdir().unwrap();
        let around = stand_ins(root.path(), KIND);
        let tools = Tools::find(&around).await.unwrap();
        // Another session of the same user.
        let elsewhere = Surroundings { runtime: root.path().join("elsewhere"), ..around.clone() };
        let again = || async { Cluster::claim_new(&tools, &elsewhere, "gatelab-lab-a").await };
        let first = Cluster::claim_new(&tools, &around, "gatelab-lab-a").await.unwrap();
        assert!(matches!(again().await, Err(KindError::BeingMade { .. })));
        first.create(1, None, Duration::from_secs(60), &|_| ()).await.unwrap();
        drop(first);
        assert!(matches!(again().await, Err(KindError::ClusterExists { .. })));
        let first = Cluster::claim(&tools, &around, "gatelab-lab-a").unwrap();
        assert!(first.folder.join("cluster.yaml").exists(), "what was refused has touched nothing");
        first.delete().await.unwrap();
        let second = again().await.unwrap();
        assert_eq!(fs::read(second.folder.join(OWNER)).unwrap(), elsewhere.runtime.as_os_str().as_bytes());
        drop(second);
        fs::write(root.path().join("clusters/gatelab-lab-b"), "").unwrap();
        let made_elsewhere = Cluster::claim_new(&tools, &around, "gatelab-lab-b").await;
        assert!(matches!(made_elsewhere, Err(KindError::ClusterExists { .. })));
        assert!(!clusters(&around.cache).join("gatelab-lab-b").exists(), "`down --all` would take it for this cache's");
    }

    #[tokio::test]
    async fn a_cluster_is_made_with_a_file_and_a_kubeconfig_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        let log = KIND.replace("#!/bin/sh\n", "#!/bin/sh\necho \"$*\" >> CLUSTERS/../log\n");
        let around = stand_ins(root.path(), &log);
        let tools = Tools::find(&around).await.unwrap();
        let cluster = Cluster::claim_new(&tools, &around, &new_name()).await.unwrap();
        let told = std::sync::Mutex::new(Vec::new());
        cluster.create(3, Some("image:1"), Duration::from_secs(60), &|step| told.lock().unwrap().push(step)).await.unwrap();
        assert_eq!(*told.lock().unwrap(), ["kind: preparing nodes"]);
        assert_eq!(running(&tools).await.unwrap(), std::slice::from_ref(&cluster.name));
        cluster.delete().await.unwrap();
        assert!(!cluster.folder.exists());
        let log = fs::read_to_string(root.path().join("log")).unwrap();
        for line in log.lines().filter(|line| line.contains(" cluster ")) {
            assert!(
                line.contains(&format!("--kubeconfig {}", cluster.kubeconfig().display())),
                "the user's kubeconfig is left alone: {line}"
            );
        }
        assert!(log.contains("--image image:1"), "{log}");
    }

    #[tokio::test]
    async fn containers_that_stay_are_an_error_and_so_is_a_creation_that_failed() {
        let root = tempfile::tempdir().unwrap();
        let stubborn =
            "#!/bin/sh\ncase \"$1\" in create) echo 'ERROR: failed to create cluster: failed to pull image \"x\"' >&2; exit 1;; esac\n";
        let around = stand_ins(root.path(), stubborn);
        let tools = Tools::find(&around).await.unwrap();
        let cluster = Cluster::claim_new(&tools, &around, "gatelab-1-a").await.unwrap();
        let error = cluster.create(1, None, Duration::from_secs(60), &|_| ()).await.unwrap_err();
        assert!(matches!(error, KindError::NodeImage { .. }), "{error}");
        fs::write(root.path().join("clusters/gatelab-1-a"), "").unwrap();
        let error = cluster.delete().await.unwrap_err();
        assert!(error.to_string().contains("containers are left: id"), "{error}");
    }
}
