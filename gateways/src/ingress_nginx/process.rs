//! Running the controller: its ConfigMap, start, wait until what it put in force is what the objects say, graceful end.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::{
    arguments::{self, Layout, STATUS_PORT},
    config_map, in_force,
};
use crate::{
    agent::{ApplyError, Binary, Files, Gateway, GatewayError, Process},
    manifests::GATEWAY_NAMESPACE,
    model::Model,
};

/// What the controller writes and its nginx reads (`cfgPath` in internal/ingress/controller/util.go).
const CONF: &str = "/etc/nginx/nginx.conf";
/// `PID` in internal/nginx/main.go.
const PID: &str = "/tmp/nginx/nginx.pid";
/// Each worker takes the balancer's list over by a timer of its own (`BACKENDS_SYNC_INTERVAL` in balancer.lua), and tells nobody.
const WORKERS_LOOK: Duration = Duration::from_millis(1200);
/// How long it is waited for at a time: objects that change meanwhile make this wait pointless, and the reconciler then comes again.
const SETTLE: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(50);
/// How much longer than its own delay it may send requests to old ports before it is made to look again.
const OVERDUE: Duration = Duration::from_secs(1);

/// A running controller (or one about to be started).
pub(super) struct IngressNginxGateway {
    binary: Binary,
    layout: Layout,
    process: Process,
    arguments: Vec<String>,
    client: Option<Client>,
    /// What the agent last wrote into the controller's ConfigMap.
    data: Option<BTreeMap<&'static str, String>>,
    /// Since when what is in force is what the model says, and the configuration that this was seen of.
    held: Option<(Instant, Seen)>,
    /// Since when it has sent requests to the right addresses and old ports.
    old_ports: Option<Instant>,
}

/// One look at what is in force.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    backends: Value,
    conf: String,
    written: SystemTime,
}

impl IngressNginxGateway {
    pub fn new(binary: Binary, layout: Layout) -> Self {
        let process = Process::none("ingress-nginx");
        Self { binary, layout, process, arguments: Vec::new(), client: None, data: None, held: None, old_ports: None }
    }

    async fn write_config_map(&mut self, model: &Model) -> Result<(), ApplyError> {
        let data = config_map::data(model.kind, &model.global);
        if self.data.as_ref() == Some(&data) {
            return Ok(());
        }
        self.patch_config_map(config_map::patch(model.kind, &model.global)).await?;
        self.data = Some(data);
        Ok(())
    }

    async fn patch_config_map(&mut self, patch: Value) -> Result<(), ApplyError> {
        let failed = |error: kube::Error| ApplyError::Internal(format!("cannot write ConfigMap {}: {error}", config_map::NAME));
        let client = match self.client.take() {
            Some(client) => client,
            None => Client::try_default().await.map_err(failed)?,
        };
        let maps = Api::<ConfigMap>::namespaced(client.clone(), GATEWAY_NAMESPACE);
        self.client = Some(client);
        maps.patch(config_map::NAME, &PatchParams::default(), &Patch::Merge(patch)).await.map_err(failed)?;
        Ok(())
    }

    /// Makes the controller look at the objects again when it has missed that only ports of an EndpointSlice changed. It syncs when the
    /// Service changes, which is before the slice does, and takes a slice whose `endpoints` are the same for unchanged (`epsEventHandler`
    /// in internal/ingress/controller/store/store.go; kubernetes/ingress-nginx issues 11863 and 12209). In a cluster in which something
    /// happens the next event of anything ends that; in a lab nothing happens.
    async fn end_old_ports(&mut self, model: &Model) -> Result<bool, ApplyError> {
        let only_ports = match backends().await {
            Ok(backends) => in_force::only_ports_differ(model, &backends),
            Err(_) => false,
        };
        if !only_ports {
            self.old_ports = None;
            return Ok(false);
        }
        let since = *self.old_ports.get_or_insert_with(Instant::now);
        if since.elapsed() < arguments::sync_delay(&model.global) + OVERDUE {
            return Ok(false);
        }
        self.patch_config_map(config_map::touch(SystemTime::now())).await?;
        self.old_ports = None;
        Ok(true)
    }

    /// What the balancer has, what nginx.conf says, and that nginx' workers were all started from it.
    async fn look(&self, model: &Model) -> Result<Seen, String> {
        let backends = backends().await.map_err(|error| format!("its status port does not answer: {error}"))?;
        let unreadable = |error: std::io::Error| format!("cannot read {CONF}: {error}");
        let written = std::fs::metadata(CONF).and_then(|data| data.modified()).map_err(unreadable)?;
        let conf = std::fs::read_to_string(CONF).map_err(unreadable)?;
        match in_force::difference(model, &backends, &conf) {
            Some(difference) => Err(difference),
            None if workers_are_newer(written)? => Ok(Seen { backends, conf, written }),
            None => Err("nginx has workers that were started before nginx.conf was written".to_owned()),
        }
    }

    async fn settled(&mut self, model: &Model) -> Result<(), ApplyError> {
        // What this cannot see (annotations beyond the lab's settings) the controller has taken up by then: it syncs once a delay.
        let long_enough = WORKERS_LOOK + arguments::sync_delay(&model.global);
        let mut last = String::new();
        let settled = timeout(SETTLE, async {
            loop {
                match self.look(model).await {
                    Err(difference) => {
                        self.held = None;
                        last = difference;
                    }
                    Ok(seen) => match &self.held {
                        Some((since, before)) if *before == seen => {
                            if since.elapsed() >= long_enough {
                                return Ok(());
                            }
                            last = "its workers may not have taken it over".to_owned();
                        }
                        _ => self.held = Some((Instant::now(), seen)),
                    },
                }
                self.process.check_alive()?;
                sleep(POLL).await;
            }
        })
        .await;
        match settled {
            Ok(settled) => {
                self.old_ports = None;
                settled
            }
            Err(_) if self.end_old_ports(model).await? => {
                Err(ApplyError::Behind(format!("{last}; it misses changes of ports alone, so its ConfigMap was touched")))
            }
            Err(_) => Err(ApplyError::Behind(last)),
        }
    }
}

async fn backends() -> std::io::Result<Value> {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", STATUS_PORT)).await?;
        // HTTP/1.0: the answer comes in one piece and ends with the connection
        stream.write_all(b"GET /configuration/backends HTTP/1.0\r\nhost: localhost\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok(serde_json::from_str(body)?)
    };
    timeout(Duration::from_secs(2), ask).await?
}

/// Whether every worker that accepts connections was started after the configuration was written. One that has been told to end says so
/// in its title, right before it closes its listening sockets.
fn workers_are_newer(written: SystemTime) -> Result<bool, String> {
    let master = std::fs::read_to_string(PID).map_err(|error| format!("nginx has no {PID}: {error}"))?;
    let master = master.trim();
    let children = std::fs::read_to_string(format!("/proc/{master}/task/{master}/children"))
        .map_err(|error| format!("nginx is not there: {error}"))?;
    let workers = children.split_whitespace().filter(|pid| {
        let title = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        title.contains("worker process") && !title.contains("is shutting down")
    });
    let mut any = false;
    for pid in workers {
        any = true;
        // A folder of /proc is as old as its first look-up, which is never before its process: an old worker seen late would pass for
        // a new one. The start time in ticks since boot is the kernel's own (proc_pid_stat(5), field 22).
        if started(Path::new("/proc").join(pid)).is_none_or(|started| started < written) {
            return Ok(false);
        }
    }
    Ok(any)
}

/// When a process was started, rounded up to the next tick of a hundredth of a second.
fn started(process: std::path::PathBuf) -> Option<SystemTime> {
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime = Duration::try_from_secs_f64(uptime.split_whitespace().next()?.parse().ok()?).ok()?;
    let age = uptime.checked_sub(Duration::from_millis(ticks * 10)).unwrap_or_default();
    // `uptime` is cut off at a hundredth as well
    Some(SystemTime::now() - age + Duration::from_millis(20))
}

#[async_trait]
impl Gateway for IngressNginxGateway {
    /// Not files of the controller's: its arguments, its ConfigMap, and what it is to have found by itself.
    fn render(&self, model: &Model) -> Files {
        let data = config_map::data(model.kind, &model.global);
        Files::from([
            ("arguments".into(), arguments::arguments(model.kind, arguments::sync_delay(&model.global), &self.layout).join("\n")),
            ("config-map".into(), format!("{data:#?}")),
            ("routes".into(), format!("{:#?}\n{:#?}", model.hosts, model.backends)),
        ])
    }

    async fn apply(&mut self, model: &Model, _files: &Files) -> Result<(), ApplyError> {
        self.write_config_map(model).await?;
        let arguments = arguments::arguments(model.kind, arguments::sync_delay(&model.global), &self.layout);
        if arguments != self.arguments {
            self.quit().await;
            self.process.started(self.binary.spawn(self.binary.command().args(&arguments))?);
            self.arguments = arguments;
            self.held = None;
            self.old_ports = None;
        }
        self.settled(model).await
    }

    async fn ended(&mut self) -> GatewayError {
        self.process.ended().await
    }

    /// SIGTERM: the controller sends nginx `quit` and waits for it.
    async fn quit(&mut self) {
        self.process.quit(Signal::SIGTERM).await;
    }
}
