//! Events as client-go's recorder writes them: the same thing happening again to the same object raises the count of
//! the event instead of adding one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::{Event, EventSeries, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};

use super::objects::Objects;
use crate::store::Store;

/// Known events are forgotten beyond this many; the next occurrence then starts a new Event object.
const REMEMBERED: usize = 4096;

/// `type` of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Severity {
    Normal,
    Warning,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Sameness {
    uid: String,
    field_path: Option<String>,
    severity: Severity,
    reason: String,
    message: String,
}

/// Records events in the name of one component; clones share the counts.
#[derive(Clone)]
pub(crate) struct Recorder {
    events: Objects<Event>,
    component: &'static str,
    host: Option<String>,
    /// Written through `events.k8s.io`, as kube-scheduler does: with a time in microseconds, and a series instead of a count.
    is_new: bool,
    known: Arc<Mutex<HashMap<Sameness, String>>>,
}

impl Recorder {
    /// `host` is the node of a kubelet.
    pub(crate) fn new(store: &Store, component: &'static str, host: Option<String>) -> Self {
        Self { events: Objects::new(store), component, host, is_new: false, known: Arc::default() }
    }

    /// Of a component that writes events of the new API; `instance` is where it runs.
    pub(crate) fn of_new_events(store: &Store, component: &'static str, instance: String) -> Self {
        Self { is_new: true, ..Self::new(store, component, Some(instance)) }
    }

    pub(crate) fn normal(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(about, Severity::Normal, reason, message.into());
    }

    pub(crate) fn warning(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(about, Severity::Warning, reason, message.into());
    }

    fn record(&self, about: &ObjectReference, severity: Severity, reason: &str, message: String) {
        let namespace = about.namespace.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| "default".to_owned());
        let same = Sameness {
            uid: about.uid.clone().unwrap_or_default(),
            field_path: about.field_path.clone(),
            severity,
            reason: reason.to_owned(),
            message: message.clone(),
        };
        let now = Timestamp::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = known.get(&same) {
            let counted = self.events.modify(&(namespace.clone(), name.clone()), |event| {
                if self.is_new {
                    let count = event.series.as_ref().and_then(|series| series.count).unwrap_or(1) + 1;
                    event.series = Some(EventSeries { count: Some(count), last_observed_time: Some(MicroTime(now)) });
                } else {
                    event.count = Some(event.count.unwrap_or(1) + 1);
                    event.last_timestamp = Some(Time(now));
                }
            });
            if counted.is_ok() {
                return;
            }
        }
        // client-go names events after the object and the time in hexadecimal nanoseconds.
        let name = format!("{}.{:x}", about.name.as_deref().unwrap_or_default(), now.as_nanosecond());
        let mut event = Event {
            metadata: ObjectMeta { name: Some(name.clone()), namespace: Some(namespace.clone()), ..ObjectMeta::default() },
            involved_object: about.clone(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            type_: Some(match severity {
                Severity::Normal => "Normal".to_owned(),
                Severity::Warning => "Warning".to_owned(),
            }),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            source: Some(EventSource { component: Some(self.component.to_owned()), host: self.host.clone() }),
            reporting_component: Some(self.component.to_owned()),
            reporting_instance: Some(self.host.clone().unwrap_or_default()),
            ..Event::default()
        };
        if self.is_new {
            event = Event {
                action: Some(if severity == Severity::Normal { "Binding" } else { "Scheduling" }.to_owned()),
                event_time: Some(MicroTime(now)),
                count: None,
                first_timestamp: None,
                last_timestamp: None,
                source: None,
                reporting_instance: self.host.as_ref().map(|host| format!("{}-{host}", self.component)),
                ..event
            };
        }
        match self.events.create(&namespace, &event) {
            Ok(_) => {
                if known.len() >= REMEMBERED {
                    known.clear();
                }
                known.insert(same, name);
            }
            // Events about a namespace that is going away are refused, as on a real cluster.
            Err(fault) => tracing::debug!(%fault, reason, "event not recorded"),
        }
    }
}

/// A reference to an object as events carry it.
pub(crate) fn reference<K>(object: &K) -> ObjectReference
where
    K: k8s_openapi::Resource + Metadata<Ty = ObjectMeta>,
{
    let metadata = object.metadata();
    ObjectReference {
        api_version: Some(K::API_VERSION.to_owned()),
        kind: Some(K::KIND.to_owned()),
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        uid: metadata.uid.clone(),
        resource_version: metadata.resource_version.clone(),
        field_path: None,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    #[test]
    fn a_repeated_event_is_counted_and_another_is_added() {
        let store = Store::default();
        let recorder = Recorder::new(&store, "kubelet", Some("node-1".to_owned()));
        let pod = Pod {
            metadata: ObjectMeta {
                name: Some("shop".to_owned()),
                namespace: Some("default".to_owned()),
                uid: Some("u1".to_owned()),
                ..ObjectMeta::default()
            },
            ..Pod::default()
        };
        let about = reference(&pod);
        recorder.warning(&about, "BackOff", "Back-off restarting failed container");
        recorder.warning(&about, "BackOff", "Back-off restarting failed container");
        recorder.normal(&about, "Started", "Started container app");
        let events: Objects<Event> = Objects::new(&store);
        let mut counts: Vec<_> =
            events.list(Some("default")).iter().map(|e| (e.reason.clone().unwrap_or_default(), e.count.unwrap_or_default())).collect();
        counts.sort();
        assert_eq!(counts, [("BackOff".to_owned(), 2), ("Started".to_owned(), 1)]);
    }
}
