//! `gatelab gateways`, and the fetching of gateways that `run` and `up` need.

use std::sync::Arc;

use gateways::fetch::{Search, find, install};
use gateways::{FetchError, GatewayBuild, GatewayKind, Progress};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::arguments::{GatewaysArgs, GatewaysCommand};
use super::exit::Exit;
use super::failure::{Failure, nearest};
use crate::events::{Event, EventKind};
use crate::terminal::{LiveView, Screen};

pub async fn run(args: &GatewaysArgs, screen: &Arc<Screen>) -> Result<Exit, Failure> {
    let builds = match &args.command {
        Some(GatewaysCommand::Install { names }) => {
            let kinds = kinds(names)?;
            let cancel = super::interrupt::token(screen, "fetching ends")?;
            let mut view = LiveView::new(Arc::clone(screen));
            let builds = fetch(&kinds, &cancel, |event| view.handle(event)).await;
            view.clear();
            builds?.into_iter().map(Some).collect()
        }
        None => found()?,
    };
    if args.json {
        let gateways: Vec<_> = GatewayKind::ALL
            .into_iter()
            .map(|kind| match builds.iter().flatten().find(|build| build.kind == kind) {
                Some(build) => json!({ "gateway": kind, "version": build.version, "binary": build.binary, "origin": build.origin }),
                None => json!({ "gateway": kind, "version": null }),
            })
            .collect();
        screen.data(&serde_json::to_string_pretty(&gateways).unwrap_or_default());
        return Ok(Exit::Success);
    }
    for (kind, build) in GatewayKind::ALL.into_iter().map(|kind| (kind, builds.iter().flatten().find(|build| build.kind == kind))) {
        match build {
            Some(build) => screen.data(&format!("{kind:<8} {:<12} {}", build.version, build.binary.display())),
            None if args.command.is_none() => screen.data(&format!("{kind:<8} not here yet")),
            None => {}
        }
    }
    if builds.iter().flatten().count() < GatewayKind::ALL.len() && args.command.is_none() {
        screen.hint("`gatelab gateways install` fetches what is missing; `gatelab run` does so by itself");
    }
    Ok(Exit::Success)
}

/// Gateways by their names; the usual ones without any.
pub fn kinds(names: &[String]) -> Result<Vec<GatewayKind>, Failure> {
    if names.is_empty() {
        return Ok(GatewayKind::USUAL.to_vec());
    }
    let mut kinds = Vec::new();
    for name in names {
        let kind: GatewayKind = name.parse().map_err(|error: gateways::UnknownGateway| {
            let failure = Failure::usage(error.to_string());
            match nearest(name, GatewayKind::ALL.map(GatewayKind::name)) {
                Some(near) => failure.hint(format!("did you mean `{near}`?")),
                None => failure,
            }
        })?;
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    Ok(kinds)
}

fn found() -> Result<Vec<Option<GatewayBuild>>, Failure> {
    let search = Search::from_environment().map_err(|error| unfetchable(&error))?;
    GatewayKind::ALL.into_iter().map(|kind| find(kind, &search).map_err(|error| unfetchable(&error))).collect()
}

/// Finds gateways, or fetches them; what happens is told as events.
pub async fn fetch(kinds: &[GatewayKind], cancel: &CancellationToken, mut tell: impl FnMut(&Event)) -> Result<Vec<GatewayBuild>, Failure> {
    let mut builds = Vec::new();
    for kind in kinds.iter().copied() {
        let search = Search::from_environment().map_err(|error| unfetchable(&error))?;
        let (sender, mut progress) = mpsc::unbounded_channel();
        // On a thread of its own: it waits for child processes. Interrupted, the thread is left behind and ends with the process;
        // whatever it had fetched in part is thrown away by the next fetch.
        let work = tokio::task::spawn_blocking(move || {
            install(kind, &search, &move |step| {
                let _ = sender.send(step);
            })
        });
        let mut work = std::pin::pin!(work);
        let mut current = String::new();
        let build = loop {
            tokio::select! {
                Some(step) = progress.recv() => {
                    let (done, total) = match step {
                        Progress::Step { what, .. } => { current = format!("{kind}: {what}"); (0, None) }
                        Progress::Bytes { done, total } => (done, total),
                    };
                    tell(&Event::of_session(EventKind::Preparing { what: current.clone(), done, total }));
                }
                ended = &mut work => break ended,
                () = cancel.cancelled() => {
                    return Err(Failure::new(Exit::Interrupted, format!("fetching {kind} was interrupted")));
                }
            }
        };
        let build = build.map_err(|error| Failure::environment(format!("fetching {kind}: {error}")))?;
        builds.push(build.map_err(|error| unfetchable(&error))?);
    }
    Ok(builds)
}

fn unfetchable(error: &FetchError) -> Failure {
    Failure::from_error(Exit::Environment, error).hint("`gatelab doctor` shows what this machine has")
}
