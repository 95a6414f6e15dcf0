//! Events on the objects that something is wrong with, once for each problem.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};

use super::log;
use crate::model::Problem;

/// Writes Events and log lines.
pub(super) struct Reporter {
    client: Client,
    /// Problems that stand and were reported.
    standing: BTreeSet<String>,
}

impl Reporter {
    pub fn new(client: Client) -> Self {
        Self { client, standing: BTreeSet::new() }
    }

    /// Reports the problems that were not there before. One that goes and comes again is reported again.
    pub async fn report(&mut self, problems: &[Problem]) {
        let mut standing = BTreeSet::new();
        for problem in problems {
            let key = format!("{}\n{}", describe(&problem.object), problem.message);
            if standing.insert(key.clone()) && !self.standing.contains(&key) {
                log(&format!("{}: {}", describe(&problem.object), problem.message));
                self.create(problem).await;
            }
        }
        self.standing = standing;
    }

    async fn create(&self, problem: &Problem) {
        let now = Time(Timestamp::now());
        let object = &problem.object;
        let namespace = object.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let event = Event {
            metadata: ObjectMeta {
                // client-go's naming: the object's name and a time in hexadecimal
                name: Some(format!("{}.{:x}", object.name.as_deref().unwrap_or("object"), now.0.as_nanosecond())),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: object.clone(),
            reason: Some(problem.reason.to_owned()),
            message: Some(problem.message.clone()),
            type_: Some("Warning".to_owned()),
            count: Some(1),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now),
            source: Some(EventSource { component: Some("gateway-agent".to_owned()), host: None }),
            ..Event::default()
        };
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        if let Err(error) = events.create(&PostParams::default(), &event).await {
            log(&format!("cannot write an Event for {}: {error}", describe(object)));
        }
    }
}

fn describe(object: &ObjectReference) -> String {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    match &object.namespace {
        Some(namespace) => format!("{} {namespace}/{}", text(&object.kind), text(&object.name)),
        None => format!("{} {}", text(&object.kind), text(&object.name)),
    }
}
