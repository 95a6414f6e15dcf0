//! `gatelab up`: a lab to work in by hand.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::arguments::{Global, LabPhase, UpArgs};
use super::clusters::{self, Choice};
use super::exit::Exit;
use super::failure::Failure;
use super::labs::{self, LabNote, OuterLab, OuterPlace};
use super::{catalogue, gateways as gateway_command, interrupt, run};
use crate::events::{Event, EventKind, RunId};
use crate::provider::context::tenancy;
use crate::provider::{Lifetime, Provider, kind};
use crate::run::lab::{Lab, LabRequest};
use crate::run::phase::Stage;
use crate::run::{Emitter, RunError};
use crate::scenario::plan::PlannedSettle;
use crate::scenario::{Plan, Scale};
use crate::signature::Phase;
use crate::terminal::{LiveView, Screen};

/// Bound of the wait for the first answers of a healthy lab.
const ANSWERS_WITHIN: std::time::Duration = std::time::Duration::from_secs(15);

pub async fn run(args: &UpArgs, global: &Global, screen: &Arc<Screen>) -> Result<Exit, Failure> {
    let found = catalogue::find(global)?;
    found.tell(screen);
    let entry = catalogue::pick(&found, std::slice::from_ref(&args.id))?.remove(0);
    let choice = gateway_command::choices(std::slice::from_ref(&args.gateway), &[])?.remove(0);
    let kind = choice.kind;
    let plan = entry.plan(kind.name(), if args.real_time { Scale::Production } else { Scale::Lab });
    if let Some(reason) = plan.skip.clone().or(clusters::unfit(&args.cluster, kind)?) {
        return Err(Failure::usage(format!("{} cannot be brought up with {kind}: {reason}", args.id)));
    }
    let note = LabNote { scenario: args.id.clone(), gateway: args.gateway.clone(), phase: args.phase, real_time: args.real_time };
    let outer = outer(args, &note)?;
    let cluster = outer.as_ref().map(|lab| match &lab.place {
        OuterPlace::Kind { cluster } => cluster.clone(),
        OuterPlace::Context { mark } => mark.clone(),
    });
    let (images, choices) = clusters::named_images(&args.cluster, &[choice])?;
    let provider = clusters::for_lab(&args.cluster, cluster, &plan, images)?;
    if let Some(reason) = provider.setting().lacks(&plan) {
        return Err(Failure::usage(format!("{} cannot be brought up there: {reason}", args.id)));
    }
    labs::must_be_free(&args.name)?;
    let cancel = interrupt::token(screen, "taking the cluster away")?;
    let mut view = LiveView::new(Arc::clone(screen));
    let needed = run::needed(std::slice::from_ref(&plan), &choices);
    let mut builds = gateway_command::fetch(&needed, &cancel, |event| view.handle(event)).await?.all()?;
    if let Some(lab) = &outer {
        labs::write_outer(lab).map_err(|error| Failure::new(Exit::Output, format!("cannot keep a record of the lab: {error}")))?;
    }
    if let Err(failure) = run::prepare(&*provider, std::slice::from_ref(&plan), &builds, &cancel, &mut view).await {
        view.clear();
        take_away(&args.name, &*provider, screen).await;
        return Err(failure);
    }

    run::with_found(&mut builds, &*provider);
    let Some(gateway) = builds.iter().find(|build| build.kind == kind) else {
        take_away(&args.name, &*provider, screen).await;
        if let Some(missing) = provider.missing_images().into_iter().find(|missing| missing.kind == kind) {
            return Err(Failure::environment(missing.reason));
        }
        return Err(Failure::environment(format!("there is no {kind} to bring up")));
    };
    let (sender, mut events) = mpsc::unbounded_channel::<Event>();
    let id = RunId { scenario: args.name.clone(), gateway: kind.name().to_owned(), repeat: 1 };
    let emit = Emitter::new(id.clone(), sender);
    let request = LabRequest {
        provider: &*provider,
        name: args.name.clone(),
        plan: &plan,
        gateway,
        builds: &builds,
        // Attached while it comes up: whatever goes wrong, nothing is left.
        lifetime: Lifetime::Detached,
    };
    let (lab, answered) = {
        let mut bringing_up = std::pin::pin!(bring_up(&request, args.phase, &emit));
        view.handle(&Event::of_run(
            &id,
            EventKind::RunStarted {
                title: plan.title.clone(),
                level: plan.level.clone(),
                tags: plan.tags.clone(),
                provider: provider.name().to_owned(),
                gateway_version: gateway.version.clone(),
                control: crate::events::Control::Full,
                real_time: args.real_time,
            },
        ));
        let result = loop {
            tokio::select! {
                Some(event) = events.recv() => view.handle(&event),
                result = &mut bringing_up => break Some(result),
                () = cancel.cancelled() => break None,
            }
        };
        view.clear();
        match result {
            Some(Ok(up)) => up,
            Some(Err(error)) => {
                take_away(&args.name, &*provider, screen).await;
                return Err(failure(&error));
            }
            None => {
                take_away(&args.name, &*provider, screen).await;
                return Err(Failure::new(Exit::Interrupted, "interrupted; the cluster was taken away"));
            }
        }
    };
    if outer.is_none()
        && let Err(error) = labs::write_note(&args.name, &note)
    {
        screen.warning(&format!("`gatelab status` will not know what to send: {error}"));
    }
    tell(args, &plan, &lab, answered, screen);
    lab.detach();
    Ok(Exit::Success)
}

/// The lab, and whether it answered before any fault was put in.
async fn bring_up(request: &LabRequest<'_>, phase: LabPhase, emit: &Emitter) -> Result<(Lab, bool), RunError> {
    let plan = request.plan;
    let lab = Lab::create(request, emit).await?;
    let settle = if plan.setup.is_empty() { PlannedSettle::default() } else { plan.setup.settle.clone() };
    lab.settle(&settle, plan, Phase::Healthy, emit).await?;
    let stage = Stage { lab: &lab, plan, gateway: request.gateway.kind, emit };
    let answered = stage.first_answers(Phase::Healthy, ANSWERS_WITHIN).await?;
    if phase == LabPhase::Fault {
        lab.change(&plan.fault, plan, Phase::Fault, emit).await?;
        lab.settle(&plan.fault.settle, plan, Phase::Fault, emit).await?;
    }
    Ok((lab, answered))
}

fn tell(args: &UpArgs, plan: &Plan, lab: &Lab, answered: bool, screen: &Screen) {
    if !answered {
        screen.warning("the healthy application did not answer; see `gatelab status`");
    }
    screen.data(&lab.kubeconfig().display().to_string());
    screen.note(&format!("lab `{}` is up: kubectl --kubeconfig \"$(gatelab kubeconfig {})\" get pods -A", args.name, args.name));
    if let (Some(address), Some(probe)) = (lab.host_address("http"), plan.probes.iter().flatten().next()) {
        screen.note(&format!(
            "the gateway answers on this machine: curl -i -H 'Host: {}' http://{address}{}",
            probe.send.authority(),
            probe.send.target
        ));
    }
    screen.hint(&format!("`gatelab status {}` sends the probes, `gatelab down {}` takes the lab away", args.name, args.name));
}

/// Of a lab in a cluster that is no process of this machine: where it will be.
fn outer(args: &UpArgs, note: &LabNote) -> Result<Option<OuterLab>, Failure> {
    let lab = |place, kubeconfig| Some(OuterLab { name: args.name.clone(), place, kubeconfig, note: note.clone() });
    let around = kind::provider::surroundings().map_err(|error| Failure::from_error(Exit::Environment, &error))?;
    Ok(match Choice::of(&args.cluster.cluster)? {
        Choice::Embedded => None,
        Choice::Context(_) => {
            let mark = tenancy::mark_of_lab(&args.name);
            let kubeconfig = tenancy::folder(&around.cache, &mark).join("kubeconfig");
            lab(OuterPlace::Context { mark }, kubeconfig)
        }
        Choice::Kind => {
            let cluster = kind::cluster::name_of_lab(&args.name);
            let kubeconfig = kind::cluster::kubeconfig_of(&around.cache, &cluster);
            lab(OuterPlace::Kind { cluster }, kubeconfig)
        }
    })
}

/// What there is of a lab that did not come up.
async fn take_away(name: &str, provider: &dyn Provider, screen: &Screen) {
    run::end(provider, screen).await;
    labs::remove_outer(name);
    if let Ok(cluster) = embedded_cluster::cluster::Cluster::attach(&embedded_cluster::cluster::default_state_dir(name)) {
        let _ = cluster.stop().await;
    }
}

/// An error of the lab, with the exit code of its kind.
pub fn failure(error: &RunError) -> Failure {
    let exit = match error {
        RunError::Provider(_) => Exit::Environment,
        RunError::Kubernetes(_) | RunError::TooLong(_) => Exit::Void,
        RunError::Plan(_) => Exit::Usage,
    };
    let failure = Failure::from_error(exit, error);
    if error.is_hopeless() { failure.hint("`gatelab doctor` shows what this machine has and what to do") } else { failure }
}
