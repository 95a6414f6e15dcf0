//! The loop: objects change, a configuration is made, and if it differs from the running one it is put in force, not too often.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Client, Resource};
use tokio::time::{Instant, sleep_until};

use super::{AgentError, ApplyError, Files, Gateway, Status, events::Reporter, health::Health, log, status::Board, watch::Following};
use crate::{
    GatewayKind,
    model::{self, Model, Objects, Problem},
};

pub(super) struct Reconciler {
    following: Following,
    gateway: Box<dyn Gateway>,
    reporter: Reporter,
    status: Status,
    board: Board,
    health: Health,
    running: Option<Files>,
    /// The last configuration that the gateway refused, and why.
    refused: Option<(Files, String)>,
    changed_at: Option<Instant>,
    /// The gateway has to be held against the newest objects once more, whether or not they change.
    behind: bool,
}

impl Reconciler {
    pub fn new(
        client: Client,
        following: Following,
        gateway: Box<dyn Gateway>,
        kind: GatewayKind,
        version: String,
        board: Board,
        health: Health,
    ) -> Self {
        let status = Status { gateway: kind, version, generation: 0, applied: Default::default(), last_error: None };
        Self {
            following,
            gateway,
            reporter: Reporter::new(client),
            status,
            board,
            health,
            running: None,
            refused: None,
            changed_at: None,
            behind: false,
        }
    }

    /// Runs until the gateway ends.
    pub async fn run(&mut self) -> AgentError {
        loop {
            if let Err(error) = self.reconcile().await {
                return error;
            }
            if std::mem::take(&mut self.behind) {
                continue;
            }
            tokio::select! {
                () = self.following.changed() => {}
                error = self.gateway.ended() => return error.into(),
            }
        }
    }

    pub async fn quit(&mut self) {
        self.health.set(false);
        self.gateway.quit().await;
    }

    async fn reconcile(&mut self) -> Result<(), AgentError> {
        let (mut objects, mut model) = self.observe();
        let mut files = self.gateway.render(&model);
        if self.running.as_ref() != Some(&files)
            && let Some(allowed_at) = self.allowed_at(model.global.sync_delay)
        {
            // As a token bucket of size one: the first change goes at once, the next one waits for its turn and takes all that came since.
            tokio::select! {
                () = sleep_until(allowed_at) => {}
                error = self.gateway.ended() => return Err(error.into()),
            }
            (objects, model) = self.observe();
            files = self.gateway.render(&model);
        }
        let mut problems = model.problems.clone();
        if self.running.as_ref() == Some(&files) {
            self.status.applied = objects.versions();
            self.status.last_error = None;
            self.refused = None;
        } else if let Some((_, reason)) = self.refused.as_ref().filter(|(refused, _)| *refused == files) {
            problems.extend(refusals(&objects, reason));
        } else {
            problems.extend(self.apply(objects, &model, files).await?);
        }
        // Told before anything is reported: the report goes over the API, which may be slow.
        if let Err(error) = self.board.tell(&self.status) {
            log(&error);
        }
        self.reporter.report(&problems).await;
        Ok(())
    }

    async fn apply(&mut self, objects: Objects, model: &Model, files: Files) -> Result<Vec<Problem>, AgentError> {
        self.changed_at = Some(Instant::now());
        match self.gateway.apply(model, &files).await {
            Ok(()) => {
                self.status.generation += 1;
                self.status.applied = objects.versions();
                self.status.last_error = None;
                self.refused = None;
                self.running = Some(files);
                self.health.set(true);
                log(&format!("configuration {} is in force: {}", self.status.generation, summary(model)));
                Ok(Vec::new())
            }
            Err(ApplyError::Rejected(reason)) => {
                log(&format!("the gateway refuses the configuration, the old one stays: {reason}"));
                self.status.last_error = Some(reason.clone());
                let problems = refusals(&objects, &reason);
                self.refused = Some((files, reason));
                Ok(problems)
            }
            Err(ApplyError::Behind(reason)) => {
                if self.status.last_error.as_ref() != Some(&reason) {
                    log(&format!("not in force yet: {reason}"));
                }
                self.status.last_error = Some(reason);
                self.behind = true;
                Ok(Vec::new())
            }
            // Before the first configuration is served there is nothing to fall back to.
            Err(ApplyError::Internal(reason)) if self.running.is_none() => Err(AgentError::Start(reason)),
            Err(ApplyError::Internal(reason)) => {
                log(&format!("the configuration could not be put in force: {reason}"));
                self.status.last_error = Some(reason);
                Ok(Vec::new())
            }
        }
    }

    fn observe(&self) -> (Objects, Model) {
        let objects = self.following.objects();
        let model = model::build(self.status.gateway, &objects);
        (objects, model)
    }

    /// When the next change may be made, if that is not now.
    fn allowed_at(&self, sync_delay: Duration) -> Option<Instant> {
        self.changed_at.map(|at| at + sync_delay).filter(|at| *at > Instant::now())
    }
}

/// A refused configuration cannot be pinned on one object, so every Ingress gets the Event, and the settings do.
fn refusals(objects: &Objects, reason: &str) -> Vec<Problem> {
    let ingresses = objects.ingresses.iter().map(|ingress| ingress.object_ref(&()));
    let settings = objects.settings.iter().map(|settings| settings.object_ref(&()));
    let problem = |object: ObjectReference| Problem {
        object,
        reason: "ConfigurationRejected",
        message: format!("the gateway refuses its configuration and keeps the old one: {reason}"),
    };
    ingresses.chain(settings).map(problem).collect()
}

fn summary(model: &Model) -> String {
    let routes: usize = model.hosts.iter().map(|host| host.routes.len()).sum();
    let endpoints: usize = model.backends.values().map(|backend| backend.endpoints.len()).sum();
    format!("{} hosts, {routes} routes, {} backends, {endpoints} endpoints", model.hosts.len(), model.backends.len())
}
