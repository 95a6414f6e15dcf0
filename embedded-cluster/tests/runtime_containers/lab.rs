//! What the tests stand on: one node, one pod a test, short ways to start containers and read what they wrote.

use std::future::Future;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use embedded_cluster::network::{DataPlane, DataPlaneConfig};
use embedded_cluster::runtime::{
    ContainerId, ContainerRuntime as _, ContainerSpec, ExitStatus, Image, Images, NamespaceRuntime, Reaper, RuntimeConfig, RuntimeError,
    SandboxSpec,
};
use libtest_mimic::{Failed, Trial};
use tokio::sync::OnceCell;

/// Nothing here takes seconds; a test that hangs is to fail.
const BOUND: Duration = Duration::from_secs(30);

/// Where everything is put; set before the first test.
pub static FOLDER: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();

/// Set where the kernel refuses a fresh /proc.
pub static OUTER_PROC: std::sync::OnceLock<()> = std::sync::OnceLock::new();

pub struct Lab {
    pub runtime: NamespaceRuntime,
    pub folder: PathBuf,
    pods: AtomicU32,
}

pub struct Pod {
    pub lab: Arc<Lab>,
    pub uid: String,
}

impl Lab {
    async fn new() -> Arc<Self> {
        let folder = FOLDER.get().unwrap().clone();
        std::fs::create_dir(folder.join("root")).unwrap();
        let network = DataPlane::new(DataPlaneConfig::default()).await.unwrap();
        network.add_node("node-0", Ipv4Addr::new(172, 18, 0, 2), "10.244.0.0/24".parse().unwrap()).await.unwrap();
        let data = folder.join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("fact"), "from the image").unwrap();
        let image =
            Image { entrypoint: vec!["/bin/echo".to_owned(), "entry".to_owned()], args: vec!["default".to_owned()], ..Image::default() };
        let images = Images::with_defaults([("with-data".to_owned(), image.with_mount(data, "/opt/data"))].into());
        let config = RuntimeConfig { images, executable: std::env::current_exe().unwrap(), root_mount: folder.join("root") };
        let runtime = NamespaceRuntime::new(config, network, Reaper::start().unwrap());
        Arc::new(Self { runtime, folder, pods: AtomicU32::new(0) })
    }

    pub async fn pod(self: &Arc<Self>) -> Pod {
        self.pod_with(|_| {}).await.unwrap()
    }

    pub async fn pod_with(self: &Arc<Self>, change: impl FnOnce(&mut SandboxSpec)) -> Result<Pod, RuntimeError> {
        let uid = format!("pod-{}", self.pods.fetch_add(1, Ordering::Relaxed));
        let mut spec = SandboxSpec {
            pod_uid: uid.clone(),
            namespace: "default".to_owned(),
            pod_name: uid.clone(),
            hostname: format!("{uid}-host"),
            node: "node-0".to_owned(),
            resolv_conf: "nameserver 10.96.0.10\n".to_owned(),
            host_aliases: vec![(Ipv4Addr::new(10, 1, 2, 3), vec!["alias.test".to_owned()])],
            sysctls: Vec::new(),
            host_network: None,
        };
        change(&mut spec);
        self.runtime.create_sandbox(spec).await?;
        Ok(Pod { lab: Arc::clone(self), uid })
    }
}

impl Pod {
    pub fn spec(&self, command: &[&str]) -> ContainerSpec {
        ContainerSpec {
            name: "main".to_owned(),
            image: "busybox".to_owned(),
            command: command.iter().map(|part| (*part).to_owned()).collect(),
            args: Vec::new(),
            env: Vec::new(),
            working_dir: None,
            mounts: Vec::new(),
            log_path: self.lab.folder.join(format!("{}-{:08x}.log", self.uid, rand::random::<u32>())),
            attempt: 0,
            tty: false,
            stdin: false,
            stdin_once: false,
            pid_namespace_of: None,
            added_capabilities: Vec::new(),
            memory_limit: None,
        }
    }

    pub async fn start(&self, spec: ContainerSpec) -> Result<ContainerId, RuntimeError> {
        self.lab.runtime.start_container(&self.uid, spec).await
    }

    /// Runs a container to its end: its status and its log file.
    pub async fn run(&self, spec: ContainerSpec) -> (ExitStatus, String) {
        let log = spec.log_path.clone();
        let id = self.start(spec).await.unwrap();
        let status = self.lab.runtime.wait_container(&id).await.unwrap();
        (status, std::fs::read_to_string(log).unwrap())
    }

    /// What a shell script writes to stdout.
    pub async fn shell(&self, script: &str) -> String {
        let (_, log) = self.run(self.spec(&["sh", "-c", script])).await;
        text(&log, "stdout")
    }

    /// Runs for ever, and only a signal it cannot ignore ends it.
    pub async fn sleeper(&self) -> ContainerId {
        self.start(self.spec(&["sleep", "infinity"])).await.unwrap()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let (lab, uid) = (Arc::clone(&self.lab), self.uid.clone());
        tokio::spawn(async move { lab.runtime.remove_sandbox(&uid).await });
    }
}

/// The text of one stream of a log file, partial lines joined.
pub fn text(log: &str, stream: &str) -> String {
    let mut text = String::new();
    // Not lines(): a carriage return of a terminal belongs to the text.
    for line in log.split_terminator('\n') {
        let mut fields = line.splitn(4, ' ').skip(1);
        if fields.next() == Some(stream) {
            let tag = fields.next();
            text.push_str(fields.next().unwrap_or_default());
            if tag == Some("F") {
                text.push('\n');
            }
        }
    }
    text
}

pub async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let waiting = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(BOUND, waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

/// All tests share one executor and one lab: a process has one reaper of its children.
pub fn test<F>(name: &'static str, body: fn(Pod) -> F) -> Trial
where
    F: Future<Output = ()> + Send + 'static,
{
    static EXECUTOR: std::sync::OnceLock<tokio::runtime::Runtime> = std::sync::OnceLock::new();
    static LAB: OnceCell<Arc<Lab>> = OnceCell::const_new();
    Trial::test(name, move || {
        let executor = EXECUTOR.get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());
        let running = executor.spawn(async move {
            let lab = LAB.get_or_init(Lab::new).await;
            let pod = lab.pod().await;
            tokio::time::timeout(BOUND, body(pod)).await.expect("the test takes too long");
        });
        executor.block_on(running).map_err(|error| {
            let panic = error.into_panic();
            let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Failed::from(text.unwrap_or_else(|| "panicked".to_owned()))
        })
    })
}

/// Commands that this binary has for its containers, where it is `/gatelab`: tools the machine may lack.
pub fn is_container_command() -> bool {
    std::env::args().nth(1).as_deref() == Some("answer")
}

/// `answer PORT TEXT`: sends the text on every connection to the loopback.
pub fn container_command() -> ExitCode {
    use std::io::Write as _;
    let (port, text) = (std::env::args().nth(2).unwrap().parse().unwrap(), std::env::args().nth(3).unwrap());
    let listener = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
    for mut connection in listener.incoming().flatten() {
        let _ = connection.write_all(text.as_bytes());
    }
    ExitCode::SUCCESS
}
