//! One scenario on one gateway, from its cluster to its verdict.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use gateways::GatewayBuild;

use super::emit::Emitter;
use super::lab::{Lab, LabRequest, gateway_kind, millis};
use super::phase::Stage;
use crate::events::{Control, EventKind, Verdict};
use crate::evidence::journal::JournalKeeper;
use crate::kubernetes::KubernetesError;
use crate::provider::{Lifetime, Provider, ProviderError};
use crate::scenario::Plan;
use crate::scenario::plan::PlannedSettle;
use crate::signature::judgement::{Controls, evaluate, is_vacuous, verdict};
use crate::signature::{Expectation, Item, Observations, Phase};

/// Bound of the wait for good answers in front of a control.
const ANSWERS_WITHIN: Duration = Duration::from_secs(15);
/// The same where no good answers are to be expected (the fix was left out on purpose).
const ANSWERS_WITHOUT_FIX: Duration = Duration::from_millis(500);

/// What keeps a run from being judged. It becomes void; with `hopeless`, so will all others.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Provider(#[from] ProviderError),
    #[error(transparent)]
    Kubernetes(#[from] KubernetesError),
    #[error("the plan cannot be carried out: {0}")]
    Plan(String),
    #[error("the run was not over after {0:?}")]
    TooLong(Duration),
}

impl RunError {
    /// The machine cannot run labs at all.
    pub fn is_hopeless(&self) -> bool {
        matches!(self, RunError::Provider(error) if error.hopeless)
    }
}

/// What a run needs beside its plan.
pub struct RunSettings<'a> {
    pub provider: &'a dyn Provider,
    /// `None` where it cannot be had; the plan is skipped then.
    pub gateway: Option<&'a GatewayBuild>,
    pub builds: &'a [GatewayBuild],
    /// Unique among this user's labs.
    pub lab_name: String,
    pub control: Control,
    pub real_time: bool,
    /// Bound of the whole run.
    pub within: Duration,
}

/// Leads the run to its verdict. Errors of the lab are told and make it void; the error itself is returned too when no other run
/// can fare better.
pub async fn run(plan: &Plan, settings: &RunSettings<'_>, emit: &Emitter) -> (Verdict, Option<RunError>) {
    let begun = Instant::now();
    emit.tell(EventKind::RunStarted {
        title: plan.title.clone(),
        level: plan.level.clone(),
        tags: plan.tags.clone(),
        provider: settings.provider.name().to_owned(),
        gateway_version: settings.gateway.map(|build| build.version.clone()).unwrap_or_default(),
        control: settings.control,
        real_time: settings.real_time,
    });
    let mut journey = Journey { plan, settings, emit, phases_ms: BTreeMap::new() };
    let (verdict, hopeless) = match journey.skipped() {
        Some(reason) => (Verdict::Skipped { reason }, None),
        None => match tokio::time::timeout(settings.within, journey.go()).await {
            Ok(Ok(verdict)) => (verdict, None),
            Ok(Err(error)) => void(error, emit),
            Err(_) => void(RunError::TooLong(settings.within), emit),
        },
    };
    let took_ms = millis(begun.elapsed());
    emit.tell(EventKind::RunFinished { verdict: verdict.clone(), took_ms, phases_ms: journey.phases_ms });
    (verdict, hopeless)
}

fn void(error: RunError, emit: &Emitter) -> (Verdict, Option<RunError>) {
    let message = error.to_string();
    emit.tell(EventKind::Error { message: message.clone(), causes: Vec::new(), help: None });
    // The first line is enough for a table; the event has it all.
    let reason = message.lines().next().unwrap_or_default().to_owned();
    let hopeless = error.is_hopeless().then_some(error);
    (Verdict::Void { reason }, hopeless)
}

struct Journey<'a> {
    plan: &'a Plan,
    settings: &'a RunSettings<'a>,
    emit: &'a Emitter,
    phases_ms: BTreeMap<String, u64>,
}

impl Journey<'_> {
    fn skipped(&self) -> Option<String> {
        let lacking = || self.settings.provider.setting().lacks(self.plan);
        self.plan.skip.clone().or_else(lacking)
    }

    async fn go(&mut self) -> Result<Verdict, RunError> {
        let (plan, emit) = (self.plan, self.emit);
        let begun = Instant::now();
        let Some(gateway) = self.settings.gateway else {
            return Err(RunError::Plan(format!("there is no {} to run it on", plan.gateway)));
        };
        let request = LabRequest {
            provider: self.settings.provider,
            name: self.settings.lab_name.clone(),
            plan,
            gateway,
            builds: self.settings.builds,
            lifetime: Lifetime::Attached,
        };
        let lab = Lab::create(&request, emit).await?;
        self.phases_ms.insert("cluster".to_owned(), millis(begun.elapsed()));
        let judged = self.phases(&lab).await;
        emit.step("cluster down");
        match judged {
            Ok(verdict) => {
                lab.delete().await?;
                Ok(verdict)
            }
            Err(error) => {
                let tail = lab.log_tail();
                if !tail.is_empty() {
                    emit.tell(EventKind::Warning { message: format!("the end of the cluster's log:\n{tail}") });
                }
                Err(error)
            }
        }
    }

    async fn phases(&mut self, lab: &Lab) -> Result<Verdict, RunError> {
        let plan = self.plan;
        let stage = Stage { lab, plan, gateway: gateway_kind(plan)?, emit: self.emit };
        let mut keeper = JournalKeeper::default();

        let begun = self.begin(Phase::Healthy);
        let settle = if plan.setup.is_empty() { PlannedSettle::default() } else { plan.setup.settle.clone() };
        lab.settle(&settle, plan, Phase::Healthy, self.emit).await?;
        self.first_answers(&stage, Phase::Healthy, ANSWERS_WITHIN).await?;
        let healthy = stage.look(Phase::Healthy, &mut keeper).await?;
        let healthy_items = self.judge(Phase::Healthy, &plan.healthy, &healthy, begun);
        if healthy_items.iter().any(|item| !item.met) {
            return Ok(verdict(&Controls { healthy: Some(&healthy_items), ..Controls::default() }));
        }

        let begun = self.begin(Phase::Fault);
        if self.settings.control == Control::FaultLeftOut {
            lab.settle(&PlannedSettle::default(), plan, Phase::Fault, self.emit).await?;
        } else {
            lab.change(&plan.fault, plan, Phase::Fault, self.emit).await?;
            lab.settle(&plan.fault.settle, plan, Phase::Fault, self.emit).await?;
        }
        let fault = stage.look(Phase::Fault, &mut keeper).await?;
        let fault_items = self.judge(Phase::Fault, &plan.expected, &fault, begun);

        let begun = self.begin(Phase::Fixed);
        let mut answers_within = ANSWERS_WITHIN;
        if self.settings.control == Control::FixLeftOut {
            answers_within = ANSWERS_WITHOUT_FIX;
        } else {
            lab.change(&plan.fix, plan, Phase::Fixed, self.emit).await?;
            lab.settle(&plan.fix.settle, plan, Phase::Fixed, self.emit).await?;
        }
        self.first_answers(&stage, Phase::Fixed, answers_within).await?;
        let fixed = stage.look(Phase::Fixed, &mut keeper).await?;
        let fixed_items = self.judge(Phase::Fixed, &plan.healthy, &fixed, begun);

        Ok(verdict(&Controls {
            healthy: Some(&healthy_items),
            fault: Some(&fault_items),
            fixed: Some(&fixed_items),
            vacuous: is_vacuous(&plan.expected, &healthy),
        }))
    }

    fn begin(&self, phase: Phase) -> Instant {
        self.emit.tell(EventKind::PhaseStarted { phase });
        Instant::now()
    }

    async fn first_answers(&self, stage: &Stage<'_>, phase: Phase, within: Duration) -> Result<(), RunError> {
        if !stage.first_answers(phase, within).await? && self.settings.control != Control::FixLeftOut {
            let message = format!("{}: no good answers in a row within {within:?}; the control decides", phase.name());
            self.emit.tell(EventKind::Warning { message });
        }
        Ok(())
    }

    fn judge(&mut self, phase: Phase, expectation: &Expectation, seen: &Observations, begun: Instant) -> Vec<Item> {
        let items = evaluate(expectation, seen);
        self.phases_ms.insert(phase.name().to_owned(), millis(begun.elapsed()));
        self.emit.tell(EventKind::Judged { phase, items: items.clone() });
        items
    }
}
