//! `gatelab gateways`, and the fetching of gateways that `run` and `up` need.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gateways::fetch::{Search, find, install, install_tools};
use gateways::{FetchError, GatewayBuild, GatewayKind, Progress};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::arguments::{GatewaysArgs, GatewaysCommand};
use super::exit::Exit;
use super::failure::{Failure, nearest};
use crate::events::{Event, EventKind};
use crate::terminal::{LiveView, Screen};

pub async fn run(args: &GatewaysArgs, screen: &Arc<Screen>) -> Result<Exit, Failure> {
    let builds = match &args.command {
        Some(GatewaysCommand::Install { names }) => {
            let choices = choices(names, &[])?;
            let cancel = super::interrupt::token(screen, "fetching ends")?;
            let mut view = LiveView::new(Arc::clone(screen));
            let fetched = fetch(&choices, &cancel, |event| view.handle(event)).await;
            let tools = fetch_tools(&cancel, |event| view.handle(event)).await;
            view.clear();
            tools?.map_err(|error| unfetchable(&error))?;
            fetched?.all()?.into_iter().map(Some).collect()
        }
        None => found()?,
    };
    if args.json {
        let gateways: Vec<_> = GatewayKind::ALL
            .iter()
            .map(|kind| match builds.iter().flatten().find(|build| build.kind == *kind) {
                Some(build) => json!({ "gateway": kind, "version": build.version, "binary": build.binary, "origin": build.origin }),
                None => json!({ "gateway": kind, "version": null, "image": kind.image() }),
            })
            .collect();
        screen.data(&serde_json::to_string_pretty(&gateways).unwrap_or_default());
        return Ok(Exit::Success);
    }
    for (kind, build) in GatewayKind::ALL.iter().map(|kind| (kind, builds.iter().flatten().find(|build| build.kind == *kind))) {
        match build {
            Some(build) => screen.data(&format!("{kind:<13} {:<12} {}", build.version, build.binary.display())),
            None if args.command.is_some() => {}
            None => match kind.image() {
                Some(image) => screen.data(&format!("{kind:<13} as an image alone, for --cluster kind: {image}")),
                None => screen.data(&format!("{kind:<13} not here yet")),
            },
        }
    }
    let of_machines = GatewayKind::ALL.iter().filter(|kind| kind.image().is_none()).count();
    if builds.iter().flatten().count() < of_machines && args.command.is_none() {
        screen.hint("`gatelab gateways install` fetches what is missing; `gatelab run` does so by itself");
    }
    Ok(Exit::Success)
}

/// Which build of a gateway is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Build {
    /// The one that is found, or else the one that the lab is made for.
    Any,
    /// `nginx@/opt/nginx/sbin/nginx`
    Binary(PathBuf),
    /// `envoy@1.37`: this version, or one that begins with it.
    Version(String),
}

/// A gateway as `--gateway` names it: `nginx`, `nginx@/path/to/nginx`, `envoy@1.37`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub kind: GatewayKind,
    pub build: Build,
}

impl Choice {
    pub fn any(kind: GatewayKind) -> Self {
        Self { kind, build: Build::Any }
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        let (name, build) = text.split_once('@').map_or((text, None), |(name, build)| (name, Some(build)));
        let kind = kind(name)?;
        if kind.image().is_some() && build.is_some() {
            return Err(Failure::usage(format!("{kind} comes as an image alone"))
                .hint(format!("`--gateway {kind} --gateway-image {kind}=IMAGE` takes another one")));
        }
        let is_version = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(|c| c.is_ascii_alphanumeric() || ".+-~".contains(c))
        };
        let build = match build {
            None => Build::Any,
            Some(path) if path.contains('/') => {
                if !Path::new(path).is_file() {
                    return Err(Failure::usage(format!("there is no file {path} that could be run as {kind}")));
                }
                Build::Binary(path.into())
            }
            Some(version) if is_version(version) => Build::Version(version.to_owned()),
            Some(other) => {
                return Err(Failure::usage(format!("`{other}` is neither a version nor a path"))
                    .hint(format!("for example `{kind}@/path/to/{kind}` (with a slash in it), or `{kind}@1.37`")));
            }
        };
        Ok(Self { kind, build })
    }

    fn search(&self) -> Result<Search, FetchError> {
        let mut search = Search::from_environment()?;
        match &self.build {
            Build::Any => {}
            Build::Binary(path) => search.given = Some(path.clone()),
            Build::Version(version) => search.version = Some(version.clone()),
        }
        Ok(search)
    }
}

/// Gateways as `--gateway` names them. Without any: all but those that come as an image alone, unless `images` (`--gateway-image`) names
/// one for them; most machines and clusters do not have these, and nobody is to wait for a registry unasked.
pub fn choices(texts: &[String], images: &[String]) -> Result<Vec<Choice>, Failure> {
    if texts.is_empty() {
        let named = |kind: GatewayKind| images.iter().any(|text| text.split_once('=').is_some_and(|(name, _)| name == kind.name()));
        let taken = GatewayKind::ALL.iter().copied().filter(|kind| kind.image().is_none() || named(*kind));
        return Ok(taken.map(Choice::any).collect());
    }
    let mut choices: Vec<Choice> = Vec::new();
    for text in texts {
        let choice = Choice::parse(text)?;
        match choices.iter().find(|other| other.kind == choice.kind) {
            None => choices.push(choice),
            Some(other) if *other == choice => {}
            Some(_) => {
                return Err(Failure::usage(format!("one run takes one build of {}", choice.kind))
                    .hint("run them one after the other, with `--out A` and `--out B`; `gatelab diff A B` shows what differs"));
            }
        }
    }
    Ok(choices)
}

/// A gateway by its bare name.
pub fn kind(name: &str) -> Result<GatewayKind, Failure> {
    name.parse().map_err(|error: gateways::UnknownGateway| {
        let failure = Failure::usage(error.to_string());
        match nearest(name, GatewayKind::names()) {
            Some(near) => failure.hint(format!("did you mean `{near}`?")),
            None => failure,
        }
    })
}

fn found() -> Result<Vec<Option<GatewayBuild>>, Failure> {
    let search = Search::from_environment().map_err(|error| unfetchable(&error))?;
    GatewayKind::ALL.iter().map(|kind| find(*kind, &search).map_err(|error| unfetchable(&error))).collect()
}

/// What came of fetching.
pub struct Fetched {
    /// In the order of the choices.
    pub builds: Vec<GatewayBuild>,
    /// Those that cannot be had on this machine.
    pub missing: BTreeMap<GatewayKind, Failure>,
}

impl Fetched {
    /// All of them, or why one is missing.
    pub fn all(self) -> Result<Vec<GatewayBuild>, Failure> {
        match self.missing.into_values().next() {
            Some(failure) => Err(failure),
            None => Ok(self.builds),
        }
    }
}

/// Finds gateways, or fetches them, all at the same time; what happens is told as events.
pub async fn fetch(choices: &[Choice], cancel: &CancellationToken, mut tell: impl FnMut(&Event)) -> Result<Fetched, Failure> {
    let is_missing = |choice: &Choice| choice.search().is_ok_and(|search| !matches!(find(choice.kind, &search), Ok(Some(_))));
    let any_missing = choices.iter().any(is_missing);
    let (sender, mut progress) = mpsc::unbounded_channel();
    let mut work = JoinSet::new();
    for (place, choice) in choices.iter().enumerate() {
        let (choice, sender) = (choice.clone(), sender.clone());
        let search = choice.search().map_err(|error| unfetchable(&error))?;
        // On a thread of its own: it waits for child processes. Interrupted, the thread is left behind and ends with the process;
        // whatever it had fetched in part is thrown away by the next fetch.
        work.spawn_blocking(move || {
            let kind = choice.kind;
            let built = install(kind, &search, &move |step| {
                let _ = sender.send((kind, step));
            });
            // A path that leads to no such gateway is the caller's mistake, not the machine's.
            let given = matches!(choice.build, Build::Binary(_));
            let built = built.map_err(|error| if given { Failure::from_error(Exit::Usage, &error) } else { unfetchable(&error) });
            (place, kind, built)
        });
    }
    drop(sender);
    let mut current: BTreeMap<GatewayKind, String> = BTreeMap::new();
    let (mut builds, mut missing) = (BTreeMap::new(), BTreeMap::new());
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => {
                return Err(Failure::new(Exit::Interrupted, "fetching gateways was interrupted"));
            }
            Some((kind, step)) = progress.recv() => {
                let what = current.entry(kind).or_default();
                let (done, total) = match step {
                    Progress::Step { what: step, .. } => { *what = format!("{kind}: {step}"); (0, None) }
                    Progress::Bytes { done, total } => (done, total),
                };
                tell(&Event::of_session(EventKind::Preparing { what: what.clone(), done, total }));
            }
            ended = work.join_next() => match ended {
                None => break,
                Some(Ok((place, _, Ok(build)))) => { builds.insert(place, build); }
                Some(Ok((_, kind, Err(failure)))) => { missing.insert(kind, failure); }
                Some(Err(error)) => return Err(Failure::environment(format!("fetching gateways: {error}"))),
            }
        }
    }
    // Nothing that is proven needs them: a lab without has pods without nslookup and nc, and `gatelab doctor` says so. Tried only
    // together with a gateway, so that a machine without network does not wait for them at every run.
    if any_missing {
        let _ = fetch_tools(cancel, tell).await?;
    }
    Ok(Fetched { builds: builds.into_values().collect(), missing })
}

async fn fetch_tools(cancel: &CancellationToken, mut tell: impl FnMut(&Event)) -> Result<Result<PathBuf, FetchError>, Failure> {
    work("tools for pods", cancel, &mut tell, install_tools).await
}

/// Runs a fetch on a thread of its own, because it waits for child processes. Interrupted, the thread is left behind and ends with the
/// process; whatever it had fetched in part is thrown away by the next fetch.
async fn work<T: Send + 'static>(
    name: &str,
    cancel: &CancellationToken,
    tell: &mut impl FnMut(&Event),
    fetch: impl FnOnce(&Search, &(dyn Fn(Progress) + Sync)) -> Result<T, FetchError> + Send + 'static,
) -> Result<Result<T, FetchError>, Failure> {
    let search = Search::from_environment().map_err(|error| unfetchable(&error))?;
    let (sender, mut progress) = mpsc::unbounded_channel();
    let work = tokio::task::spawn_blocking(move || {
        fetch(&search, &move |step| {
            let _ = sender.send(step);
        })
    });
    let mut work = std::pin::pin!(work);
    let mut current = String::new();
    loop {
        tokio::select! {
            Some(step) = progress.recv() => {
                let (done, total) = match step {
                    Progress::Step { what, .. } => { current = format!("{name}: {what}"); (0, None) }
                    Progress::Bytes { done, total } => (done, total),
                };
                tell(&Event::of_session(EventKind::Preparing { what: current.clone(), done, total }));
            }
            ended = &mut work => return ended.map_err(|error| Failure::environment(format!("fetching {name}: {error}"))),
            () = cancel.cancelled() => return Err(Failure::new(Exit::Interrupted, format!("fetching {name} was interrupted"))),
        }
    }
}

fn unfetchable(error: &FetchError) -> Failure {
    Failure::from_error(Exit::Environment, error).hint("`gatelab doctor` shows what this machine has")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(texts: &[&str]) -> Result<Vec<Choice>, Failure> {
        choices(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(), &[])
    }

    #[test]
    fn a_gateway_that_comes_as_an_image_is_taken_when_it_is_asked_for() {
        let image_only = kind("ingress-nginx").unwrap();
        let takes = |choices: Vec<Choice>| choices.iter().any(|choice| choice.kind == image_only);
        assert!(!takes(parse(&[]).unwrap()) && takes(parse(&["ingress-nginx"]).unwrap()));
        assert!(takes(choices(&[], &["ingress-nginx=registry.example/controller:1".to_owned()]).unwrap()));
        let failure = parse(&["ingress-nginx@1.11"]).unwrap_err();
        assert!(failure.message.contains("as an image alone") && failure.hints[0].contains("--gateway-image"), "{}", failure.message);
    }

    #[test]
    fn a_gateway_is_a_name_a_version_or_a_path() {
        assert_eq!(parse(&[]).unwrap().len(), GatewayKind::ALL.iter().filter(|kind| kind.image().is_none()).count());
        let path = std::env::current_exe().unwrap();
        let text = format!("nginx@{}", path.display());
        let parsed = parse(&[&text, "envoy@1.37", "haproxy", "haproxy"]).unwrap();
        assert_eq!(
            parsed,
            [
                Choice { kind: kind("nginx").unwrap(), build: Build::Binary(path) },
                Choice { kind: kind("envoy").unwrap(), build: Build::Version("1.37".into()) },
                Choice::any(kind("haproxy").unwrap()),
            ]
        );
        for (text, part) in [
            ("ngins", "no gateway `ngins`"),
            ("nginx@", "neither a version nor a path"),
            ("nginx@latest", "neither a version nor a path"),
            ("envoy@1.37 --index-url=x", "neither a version nor a path"),
            ("nginx@/nowhere/nginx", "no file /nowhere/nginx"),
        ] {
            let failure = parse(&[text]).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.message.contains(part), "{text}: {}", failure.message);
        }
        let failure = parse(&["envoy@1.37", "envoy"]).unwrap_err();
        assert!(failure.message.contains("one build of envoy") && failure.hints[0].contains("gatelab diff"), "{}", failure.message);
    }

    #[tokio::test]
    async fn a_binary_that_is_another_program_is_the_callers_mistake() {
        let choice = Choice { kind: kind("nginx").unwrap(), build: Build::Binary("/bin/true".into()) };
        let fetched = fetch(&[choice], &CancellationToken::new(), |_| ()).await.unwrap();
        assert!(fetched.builds.is_empty());
        let failure = fetched.all().unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains("/bin/true cannot be run as nginx"), "{}", failure.message);
    }
}
