//! `gatelab run`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use gateways::fetch::Origin;
use gateways::{GatewayBuild, GatewayKind};
use jiff::Zoned;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::arguments::{Global, RunArgs};
use super::exit::Exit;
use super::failure::Failure;
use super::gateways::{self as gateway_command, Choice, Fetched};
use super::{catalogue, clusters, interrupt};
use crate::events::{Control, Event, EventFileError, EventKind, Verdict};
use crate::provider::{Provider, ProviderError};
use crate::run::session::{self, Session, SessionOutcome};
use crate::scenario::{Plan, Scale};
use crate::terminal::{LiveView, Screen, table};

pub async fn run(args: &RunArgs, global: &Global, screen: &Arc<Screen>) -> Result<Exit, Failure> {
    let choices = gateway_command::choices(&args.gateway, &args.cluster.gateway_image)?;
    let found = catalogue::find(global)?;
    found.tell(screen);
    let entries = catalogue::pick(&found, &args.ids)?;
    let scale = if args.real_time { Scale::Production } else { Scale::Lab };
    let mut plans: Vec<Plan> =
        entries.iter().flat_map(|entry| choices.iter().map(|choice| entry.plan(choice.kind.name(), scale)).collect::<Vec<_>>()).collect();
    drop(found);
    for choice in &choices {
        if let Some(reason) = clusters::unfit(&args.cluster, choice.kind)? {
            skip(&mut plans, choice.kind, &reason);
        }
    }
    let (images, choices) = clusters::named_images(&args.cluster, &choices)?;
    let provider = clusters::for_runs(args, &plans, images)?;
    let out = out_folder(args)?;
    let cancel = interrupt::token(screen, "taking the clusters away")?;

    let mut view = LiveView::new(Arc::clone(screen));
    let needed = needed(&plans, &choices);
    let fetched = gateway_command::fetch(&needed, &cancel, |event| view.handle(event)).await;
    // Who names no gateway gets those that this machine can have.
    let fetched = fetched.and_then(|fetched| if args.gateway.is_empty() { do_without(&mut plans, fetched) } else { fetched.all() });
    let builds = fetched.inspect_err(|_| {
        let _ = std::fs::remove_dir(&out);
    })?;
    skip_unobserved(&mut plans, &builds);
    if let Err(failure) = prepare(&*provider, &plans, &builds, &cancel, &mut view).await {
        view.clear();
        end(&*provider, screen).await;
        let _ = std::fs::remove_dir(&out);
        return Err(failure);
    }
    let mut builds = builds;
    with_found(&mut builds, &*provider);
    for missing in provider.missing_images() {
        skip(&mut plans, missing.kind, &missing.reason);
    }
    let session = Session {
        provider: Arc::clone(&provider),
        plans,
        builds: builds.into_iter().map(|build| (build.kind.name().to_owned(), build)).collect::<BTreeMap<String, GatewayBuild>>(),
        repeat: args.repeat,
        jobs: args.jobs.map_or_else(session::default_jobs, |jobs| jobs as usize),
        control: match (args.without_fault, args.without_fix) {
            (true, _) => Control::FaultLeftOut,
            (_, true) => Control::FixLeftOut,
            _ => Control::Full,
        },
        real_time: args.real_time,
        out: out.clone(),
        command: std::env::args().collect(),
        seed: args.seed.unwrap_or_else(rand::random),
    };
    let outcome = session.run(cancel, |event| view.handle(event)).await;
    view.clear();
    end(&*provider, screen).await;
    let outcome = outcome.map_err(|error| unwritable(&error))?;
    conclude(args, &outcome, &out, screen)
}

/// Gateways out of named images, in the place of those that the lab has packed for sidecars.
pub fn with_found(builds: &mut Vec<GatewayBuild>, provider: &dyn Provider) {
    for found in provider.found_images() {
        builds.retain(|build| build.kind != found.named.kind);
        builds.push(GatewayBuild {
            kind: found.named.kind,
            version: found.described(),
            binary: found.binary,
            root: None,
            library_path: Vec::new(),
            origin: Origin::Given,
        });
    }
}

/// What all runs share; nothing when all of them will be skipped.
pub async fn prepare(
    provider: &dyn Provider,
    plans: &[Plan],
    builds: &[GatewayBuild],
    cancel: &CancellationToken,
    view: &mut LiveView,
) -> Result<(), Failure> {
    let setting = provider.setting();
    if plans.iter().all(|plan| plan.skip.is_some() || setting.lacks(plan).is_some()) {
        return Ok(());
    }
    let (sender, mut steps) = mpsc::unbounded_channel();
    let tell = move |what| _ = sender.send(what);
    let mut work = std::pin::pin!(provider.prepare(builds, &tell));
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(Failure::new(Exit::Interrupted, "interrupted; the cluster was taken away")),
            Some(what) = steps.recv() => view.handle(&Event::of_session(EventKind::Preparing { what, done: 0, total: None })),
            ended = &mut work => return ended.map_err(|error| unprovided(&error)),
        }
    }
}

/// Takes away what runs shared, or says what is left.
pub async fn end(provider: &dyn Provider, screen: &Screen) {
    match provider.end().await {
        Ok(None) => {}
        Ok(Some(left)) => screen.note(&left),
        Err(error) => {
            screen.warning(&error.to_string());
            screen.hint("`gatelab down --all` tries again");
        }
    }
}

fn unprovided(error: &ProviderError) -> Failure {
    let failure = Failure::from_error(Exit::Environment, error);
    error.hints.iter().fold(failure, |failure, hint| failure.hint(hint.clone()))
}

/// Runs that need a gateway which cannot be had are skipped, with the reason; without any gateway there is nothing to do.
fn do_without(plans: &mut [Plan], fetched: Fetched) -> Result<Vec<GatewayBuild>, Failure> {
    if fetched.builds.is_empty() && !fetched.missing.is_empty() {
        return fetched.all();
    }
    for (kind, failure) in &fetched.missing {
        let why = failure.message.lines().next().unwrap_or_default();
        for plan in plans.iter_mut().filter(|plan| plan.gateway == kind.name() || uses_sidecar(plan, *kind)) {
            plan.skip.get_or_insert_with(|| format!("{kind} cannot be had here: {why}"));
        }
    }
    Ok(fetched.builds)
}

/// Runs on one gateway, whatever else would keep them from being made.
fn skip(plans: &mut [Plan], kind: GatewayKind, reason: &str) {
    for plan in plans.iter_mut().filter(|plan| plan.gateway == kind.name()) {
        plan.skip = Some(reason.to_owned());
    }
}

/// What was observed with other versions of a gateway says nothing about this build.
fn skip_unobserved(plans: &mut [Plan], builds: &[GatewayBuild]) {
    for build in builds {
        for plan in plans.iter_mut().filter(|plan| plan.gateway == build.kind.name()) {
            if plan.versions.as_ref().is_some_and(|versions| !versions.hold(&build.version)) {
                plan.skip.get_or_insert_with(|| format!("no expectation for {} {}", build.kind, build.version));
            }
        }
    }
}

fn uses_sidecar(plan: &Plan, kind: GatewayKind) -> bool {
    let image = format!("gatelab/{kind}");
    let changes = [&plan.setup, &plan.fault, &plan.fix];
    let objects = plan.app.iter().chain(changes.into_iter().flat_map(|change| change.apply.iter().chain(&change.patch)));
    objects.into_iter().any(|object| object.to_string().contains(&image))
}

/// Gateways that are run, and those that an application uses as a sidecar.
pub fn needed(plans: &[Plan], choices: &[Choice]) -> Vec<Choice> {
    let mut needed = choices.to_vec();
    for &kind in GatewayKind::ALL {
        let mentions = |plan: &Plan| uses_sidecar(plan, kind);
        if !needed.iter().any(|choice| choice.kind == kind) && plans.iter().any(mentions) {
            needed.push(Choice::any(kind));
        }
    }
    needed
}

/// Made at once, so that a folder that cannot be written is told before anything runs.
fn out_folder(args: &RunArgs) -> Result<PathBuf, Failure> {
    let folder =
        args.out.clone().unwrap_or_else(|| PathBuf::from("gatelab-out").join(Zoned::now().strftime("%Y-%m-%dT%H-%M-%S").to_string()));
    session::is_writable(&folder).map_err(|error| {
        Failure::new(Exit::Output, format!("cannot write results to {}: {error}", folder.display()))
            .hint("choose another folder with --out, or make room on the disk")
    })?;
    Ok(folder)
}

fn unwritable(error: &EventFileError) -> Failure {
    let failure = Failure::from_error(Exit::Output, error);
    match miette::Diagnostic::help(error) {
        Some(help) => failure.hint(help.to_string()),
        None => failure,
    }
}

/// Reports, table, exit code.
fn conclude(args: &RunArgs, outcome: &SessionOutcome, out: &std::path::Path, screen: &Screen) -> Result<Exit, Failure> {
    if let Some(error) = &outcome.unwritten {
        return Err(unwritable(error));
    }
    if let Some(error) = &outcome.hopeless {
        return Err(Failure::from_error(Exit::Environment, error).hint("`gatelab doctor` shows what this machine has and what to do"));
    }
    let json = super::report::write(out, &outcome.report)?;
    if args.json {
        screen.data_raw(&json);
    } else {
        let summary = table::summary(&outcome.events);
        if !summary.is_empty() {
            screen.data(&summary);
        }
        for line in table::details(&outcome.events) {
            screen.data(&line);
        }
    }
    screen.note(&format!("{}; reports in {}", table::totals(&outcome.events), out.display()));
    if outcome.interrupted {
        return Err(Failure::new(Exit::Interrupted, "interrupted; every cluster was taken away"));
    }
    Ok(exit(&outcome.events))
}

/// The highest row of the table that applies.
fn exit(events: &[Event]) -> Exit {
    let any = |wanted: fn(&Verdict) -> bool| !table::runs_with(events, wanted).is_empty();
    if any(|verdict| matches!(verdict, Verdict::Unexpected)) {
        Exit::Unexpected
    } else if any(|verdict| matches!(verdict, Verdict::Void { .. })) {
        Exit::Void
    } else if any(|verdict| matches!(verdict, Verdict::Proven)) {
        Exit::Success
    } else {
        Exit::Skipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{EventKind, RunId};

    fn finished(verdict: Verdict) -> Event {
        let run = RunId { scenario: "a".into(), gateway: "nginx".into(), repeat: 1 };
        Event::of_run(&run, EventKind::RunFinished { verdict, took_ms: 1, phases_ms: BTreeMap::new() })
    }

    #[test]
    fn a_build_that_nothing_was_observed_with_is_skipped() {
        let (catalogue, _) =
            crate::scenario::Catalogue::load(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios")).unwrap();
        let reason = |scenario: &str, gateway: &str, version: &str| {
            let mut plans = [catalogue.get(scenario).unwrap().plan(gateway, Scale::Lab)];
            let build = GatewayBuild {
                kind: gateway.parse().unwrap(),
                version: version.to_owned(),
                binary: "/usr/sbin/gateway".into(),
                root: None,
                library_path: Vec::new(),
                origin: gateways::fetch::Origin::Path,
            };
            skip_unobserved(&mut plans, &[build]);
            plans[0].skip.clone()
        };
        assert_eq!(reason("duplicate-transfer-encoding", "nginx", "1.22.1"), None);
        assert_eq!(reason("duplicate-transfer-encoding", "nginx", "1.27.0").as_deref(), Some("no expectation for nginx 1.27.0"));
        assert_eq!(reason("duplicate-transfer-encoding", "envoy", "1.27.0"), None);
        assert_eq!(reason("wrong-target-port", "nginx", "1.27.0"), None);
    }

    #[test]
    fn the_worst_verdict_decides_the_exit_code() {
        let void = || finished(Verdict::Void { reason: String::new() });
        let skipped = || finished(Verdict::Skipped { reason: String::new() });
        assert_eq!(exit(&[finished(Verdict::Proven), skipped()]), Exit::Success);
        assert_eq!(exit(&[finished(Verdict::Proven), void()]), Exit::Void);
        assert_eq!(exit(&[void(), finished(Verdict::Unexpected), finished(Verdict::Proven)]), Exit::Unexpected);
        assert_eq!(exit(&[skipped()]), Exit::Skipped);
        assert_eq!(exit(&[]), Exit::Skipped);
    }
}
