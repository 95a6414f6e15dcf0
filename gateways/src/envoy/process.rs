//! Running Envoy: start, configuration by files with proof of acceptance, drain.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    admin::Admin,
    resources::{self, BOOTSTRAP, CDS, EDS_FOLDER, LDS, Layout, RouteTable, version_of},
};
use crate::{
    agent::{ApplyError, Binary, Files, Gateway, GatewayError, Process, log, write_atomically},
    model::Model,
};

const SETTLE: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(5);

/// A running Envoy (or one about to be started).
#[derive(Debug)]
pub(crate) struct EnvoyGateway {
    binary: Binary,
    layout: Layout,
    workers: u32,
    admin: Admin,
    process: Process,
    /// What Envoy has accepted.
    running: Files,
}

/// One subscription of Envoy's: the file it reads, and the prefix of its statistics.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Subscription {
    file: PathBuf,
    statistics: String,
}

impl Subscription {
    fn of(file: &Path, content: &str) -> Option<Self> {
        let statistics = if file == Path::new(CDS) {
            "cluster_manager.cds".to_owned()
        } else if file == Path::new(LDS) {
            "listener_manager.lds".to_owned()
        } else if let Some(table) = RouteTable::ALL.into_iter().find(|table| table.file() == file) {
            format!("http.{0}.rds.{0}", table.name())
        } else if file.starts_with(EDS_FOLDER) {
            let resources = resources::resources_of(content);
            // Envoy writes `_` for `:` in names of statistics
            format!("cluster.{}", resources.first()?["cluster_name"].as_str()?.replace(':', "_"))
        } else {
            return None;
        };
        Some(Self { file: file.to_owned(), statistics })
    }
}

impl EnvoyGateway {
    pub fn new(binary: Binary, layout: Layout, workers: u32) -> Self {
        let admin = Admin::new(layout.state.join("admin-address"));
        Self { binary, layout, workers, admin, process: Process::none("Envoy"), running: Files::new() }
    }

    fn write(&self, file: &Path, content: &str) -> Result<(), ApplyError> {
        write_atomically(&self.layout.state.join(file), content).map_err(ApplyError::Internal)
    }

    async fn start(&mut self, files: &Files) -> Result<(), ApplyError> {
        for (file, content) in files {
            self.write(file, content)?;
        }
        // Left by an earlier Envoy in the same container it would be read as this one's
        let _ = std::fs::remove_file(self.admin.address_file());
        let mut command = self.binary.command();
        command.arg("-c").arg(self.layout.state.join(BOOTSTRAP)).args(arguments(self.workers));
        command.arg("--admin-address-path").arg(self.admin.address_file());
        self.process.started(self.binary.spawn(&mut command)?);
        self.wait_until_live().await?;
        self.wait_for(files.keys(), files, &BTreeMap::new()).await
    }

    /// Until the workers run, which they do when everything in the first configuration has arrived.
    async fn wait_until_live(&mut self) -> Result<(), ApplyError> {
        let deadline = Instant::now() + SETTLE;
        loop {
            if let Ok(stats) = self.admin.stats("listener_manager.workers_started").await
                && stats.values().any(|value| value == "1")
            {
                return Ok(());
            }
            self.process.check_alive()?;
            if Instant::now() > deadline {
                return Err(ApplyError::Internal(format!("Envoy did not become ready within {SETTLE:?}")));
            }
            sleep(POLL).await;
        }
    }

    async fn rejections(&self) -> BTreeMap<String, String> {
        self.admin.stats("update_rejected").await.unwrap_or_default()
    }

    /// Until Envoy has accepted these files' versions. `before` are the counts of rejections from before they were written.
    async fn wait_for(
        &mut self,
        files: impl Iterator<Item = &PathBuf>,
        all: &Files,
        before: &BTreeMap<String, String>,
    ) -> Result<(), ApplyError> {
        let mut missing: BTreeMap<String, String> = files
            .filter_map(|file| {
                let content = all.get(file)?;
                Some((Subscription::of(file, content)?.statistics, version_of(content)?))
            })
            // Nothing subscribes to the routes for TLS while no host has a certificate
            .filter(|(statistics, _)| https_is_served(all) || *statistics != format!("http.{0}.rds.{0}", RouteTable::Https.name()))
            .collect();
        let deadline = Instant::now() + SETTLE;
        loop {
            let stats = self.admin.stats("version_text%7Cupdate_rejected").await.unwrap_or_default();
            missing.retain(|statistics, version| stats.get(&format!("{statistics}.version_text")) != Some(version));
            if missing.is_empty() {
                return Ok(());
            }
            for statistics in missing.keys() {
                let name = format!("{statistics}.update_rejected");
                let (was, is) = (before.get(&name).map_or("0", String::as_str), stats.get(&name).map_or("0", String::as_str));
                if is != was {
                    return Err(ApplyError::Rejected(self.explain_rejection(statistics, all).await));
                }
            }
            self.process.check_alive()?;
            if Instant::now() > deadline {
                let names: Vec<&str> = missing.keys().map(String::as_str).collect();
                return Err(ApplyError::Internal(format!("Envoy did not take up {} within {SETTLE:?}", names.join(", "))));
            }
            sleep(POLL).await;
        }
    }

    /// Envoy keeps the reason of a refused resource in its configuration dump (admin/v3/config_dump_shared.proto, `error_state`), but not
    /// when the resource could not even be read. Then a second Envoy is asked what it thinks of the same resources as static ones.
    async fn explain_rejection(&self, statistics: &str, files: &Files) -> String {
        let dump = self.admin.get("/config_dump").await.unwrap_or_default();
        let mut reasons = BTreeSet::new();
        collect_error_states(&serde_json::from_str(&dump).unwrap_or_default(), &mut reasons);
        if reasons.is_empty() {
            reasons.extend(self.validate(files).await);
        }
        match reasons.is_empty() {
            true => format!("{statistics} was rejected; Envoy's own log line above says why"),
            false => reasons.into_iter().collect::<Vec<_>>().join("; "),
        }
    }

    /// What `envoy --mode validate` finds wrong.
    async fn validate(&self, files: &Files) -> Option<String> {
        let path = self.layout.state.join("validate.json");
        write_atomically(&path, &resources::as_static(files)).ok()?;
        let mut command = self.binary.command();
        command.arg("-c").arg(&path).args(["--mode", "validate", "--log-level", "error", "--disable-hot-restart"]);
        let output = command.stdin(std::process::Stdio::null()).output().await.ok()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let reason = text.lines().find_map(|line| Some(line.split_once("error initializing configuration")?.1.to_owned()))?;
        Some(reason.split_once(": ").map_or(reason.clone(), |(_, reason)| reason.to_owned()))
    }

    /// Writes files and waits for them, as one step.
    async fn step(&mut self, step: &Files, files: &Files) -> Result<(), ApplyError> {
        let changed: Vec<PathBuf> =
            step.iter().filter(|(file, content)| self.running.get(*file) != Some(content)).map(|(file, _)| file.clone()).collect();
        if changed.is_empty() {
            return Ok(());
        }
        let before = self.rejections().await;
        for file in &changed {
            self.write(file, &step[file])?;
        }
        let outcome = self.wait_for(changed.iter(), files, &before).await;
        match &outcome {
            Ok(()) => self.running.extend(changed.into_iter().map(|file| (file.clone(), step[&file].clone()))),
            // What is on disk is what Envoy would read after a restart: the last good files
            Err(_) => {
                for file in &changed {
                    if let Some(content) = self.running.get(file) {
                        self.write(file, content)?;
                    }
                }
            }
        }
        outcome
    }
}

/// Arguments of every Envoy in the lab. Many run on one machine, so none may use shared memory of hot restarts; the access log is
/// written at once instead of every ten seconds. A field that Envoy does not know is a mistake to be told, not one to be passed over.
pub(crate) fn arguments(workers: u32) -> Vec<String> {
    let mut arguments: Vec<String> =
        ["--disable-hot-restart", "--reject-unknown-dynamic-fields", "--log-level", "warning", "--file-flush-interval-msec", "10"]
            .map(str::to_owned)
            .to_vec();
    if workers > 0 {
        arguments.extend(["--concurrency".to_owned(), workers.to_string()]);
    }
    arguments
}

fn https_is_served(files: &Files) -> bool {
    files.get(Path::new(LDS)).is_some_and(|listeners| listeners.contains("\"ingress_https\""))
}

fn collect_error_states(value: &Value, reasons: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                if key == "error_state" {
                    reasons.extend(value["details"].as_str().map(str::to_owned));
                } else {
                    collect_error_states(value, reasons);
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect_error_states(value, reasons)),
        _ => {}
    }
}

/// Clusters of both files: routes must find their cluster at any moment, so new ones come before the routes change and old ones go
/// afterwards (xDS protocol, "Eventual consistency considerations").
fn union(old: &str, new: &str) -> String {
    let mut clusters: BTreeMap<String, Value> = BTreeMap::new();
    for resource in resources::resources_of(old).into_iter().chain(resources::resources_of(new)) {
        clusters.insert(resource["name"].as_str().unwrap_or_default().to_owned(), resource);
    }
    resources::response("cluster.v3.Cluster", clusters.into_values())
}

#[async_trait]
impl Gateway for EnvoyGateway {
    fn render(&self, model: &Model) -> Files {
        resources::render(model, &self.layout)
    }

    async fn apply(&mut self, _model: &Model, files: &Files) -> Result<(), ApplyError> {
        if !self.process.is_started() {
            self.start(files).await?;
            self.running = files.clone();
            return Ok(());
        }
        let pick = |wanted: &dyn Fn(&Path) -> bool| -> Files {
            files.iter().filter(|(file, _)| wanted(file)).map(|(file, content)| (file.clone(), content.clone())).collect()
        };
        // Endpoints of clusters that are not there yet are read when these come.
        let endpoints = pick(&|file| file.starts_with(EDS_FOLDER));
        let (known, fresh): (Files, Files) = endpoints.into_iter().partition(|(file, _)| self.running.contains_key(file));
        for (file, content) in &fresh {
            self.write(file, content)?;
        }
        self.step(&known, files).await?;
        let clusters_file = PathBuf::from(CDS);
        let both = union(&self.running[&clusters_file], &files[&clusters_file]);
        let mut grown = files.clone();
        grown.insert(clusters_file.clone(), both.clone());
        self.step(&Files::from([(clusters_file.clone(), both)]), &grown).await?;
        self.wait_for(fresh.keys(), files, &BTreeMap::new()).await?;
        self.running.extend(fresh);
        self.step(&pick(&|file| file == Path::new(LDS) || RouteTable::ALL.iter().any(|table| table.file() == file)), files).await?;
        self.step(&pick(&|file| file == Path::new(CDS)), files).await?;
        self.running.retain(|file, _| files.contains_key(file));
        Ok(())
    }

    async fn ended(&mut self) -> GatewayError {
        self.process.ended().await
    }

    /// As Contour's shutdown manager: failing the health check makes Envoy close client connections with their next response; when none
    /// is left, Envoy ends. The pod's grace period bounds it all.
    async fn quit(&mut self) {
        if let Err(error) = self.admin.post("/healthcheck/fail").await {
            log(&error);
        } else {
            while let Ok(stats) = self.admin.stats("http.ingress_https?.downstream_cx_active").await {
                if stats.values().all(|value| value == "0") || self.process.check_alive().is_err() {
                    break;
                }
                sleep(Duration::from_millis(100)).await;
            }
        }
        self.process.quit(Signal::SIGTERM).await;
    }
}
