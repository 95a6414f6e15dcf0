//! Watches: a list's changes as a stream of JSON lines.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::stream;
use http::Response;
use rand::RngExt as _;
use serde_json::{Value, json};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::kinds::Kind;
use super::read::{self, Selection};
use super::respond::{self, Body, Form};
use super::route::Target;
use super::router::Call;
use super::status::Refusal;
use super::{convert, table};
use crate::store::{Change, Changes, WatchEvent};

/// As kube-apiserver: about once a minute.
const BOOKMARKS: Duration = Duration::from_secs(60);
/// kube-apiserver ends watches after 30 to 60 minutes unless told otherwise.
const DEFAULT_SECONDS: std::ops::Range<u64> = 1800..3600;

/// Bytes to send at once, about.
const BATCH: usize = 64 * 1024;

struct Watch {
    kind: Arc<Kind>,
    namespace: Option<String>,
    selection: Selection,
    form: Form,
    include: table::Include,
    columns_sent: bool,
    /// What was there at the beginning, to be sent before any change. Made into lines only as the client reads them: a
    /// thousand clients that do not read cost a thousand lists of pointers.
    initial: std::vec::IntoIter<Arc<Value>>,
    /// A bookmark is to tell where the initial objects end.
    end_of_initial: bool,
    /// Changes that are not sent yet.
    pending: VecDeque<Arc<Change>>,
    changes: Changes,
    bookmarks: Option<Interval>,
    end: Instant,
    ended: bool,
}

pub(super) fn watch(call: &Call, target: &Target) -> Result<Response<Body>, Refusal> {
    let kind = target.kind.clone();
    let mut selection = Selection::of(call, &kind)?;
    if let Some(name) = &target.name {
        // The old way to watch one object: GET …/name?watch=1.
        selection.fields = super::selector::FieldSelector::parse(&format!("metadata.name={name}"), &kind)?;
    }
    let form = respond::form(&call.headers)?;
    let version = call.query.number::<u64>("resourceVersion")?.unwrap_or(0);
    let bookmarks = call.query.flag("allowWatchBookmarks");
    let initial = match (call.query.get("sendInitialEvents"), call.query.get("resourceVersionMatch")) {
        (None, None) => None,
        (None, Some(_)) => {
            return Err(Refusal::new(
                422,
                "Invalid",
                "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ));
        }
        (Some(_), Some("NotOlderThan")) => Some(call.query.flag("sendInitialEvents")),
        (Some(_), _) => {
            return Err(Refusal::new(
                422,
                "Invalid",
                "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
    };
    let store = &call.state.store;
    let current = store.resource_version();
    if version > current {
        return Err(read::too_large(version, current));
    }
    let from_list = initial.unwrap_or(version == 0);
    let (items, changes) = if from_list {
        let (list, changes) = store.list_and_changes(&kind.storage, target.namespace());
        (list.items, changes)
    } else {
        let from = if version == 0 { current } else { version };
        match store.changes(&kind.storage, from) {
            Ok(changes) => (Vec::new(), changes),
            Err(fault) => return Ok(gone(fault)),
        }
    };
    let seconds = call.query.number::<u64>("timeoutSeconds")?.filter(|s| *s > 0);
    let seconds = seconds.unwrap_or_else(|| rand::rng().random_range(DEFAULT_SECONDS));
    let now = Instant::now();
    let mut ticks = tokio::time::interval_at(now + BOOKMARKS, BOOKMARKS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watch = Watch {
        namespace: target.namespace.clone(),
        selection,
        form,
        include: read::include_object(call),
        columns_sent: false,
        initial: items.into_iter(),
        end_of_initial: initial == Some(true) && bookmarks,
        pending: VecDeque::new(),
        changes,
        bookmarks: bookmarks.then_some(ticks),
        end: now + Duration::from_secs(seconds.min(86400 * 365)),
        ended: false,
        kind,
    };
    let lines = stream::unfold(watch, |mut watch| async move { watch.next().await.map(|bytes| (Ok(bytes), watch)) });
    Ok(respond::stream("application/json", lines))
}

/// A watch from a version that is forgotten begins and ends with an ERROR event, status 410, as in kube-apiserver.
fn gone(fault: crate::store::Fault) -> Response<Body> {
    respond::stream("application/json", stream::iter([Ok(error_line(&Refusal::from(fault)))]))
}

impl Watch {
    /// The next bytes to send; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let mut batch = BytesMut::new();
        while batch.len() < BATCH
            && let Some(object) = self.initial.next()
        {
            if self.selection.matches(&object) {
                let line = self.line("ADDED", &object);
                batch.put(line);
            }
        }
        if self.initial.as_slice().is_empty() && std::mem::take(&mut self.end_of_initial) {
            let line = self.bookmark(true);
            batch.put(line);
        }
        loop {
            while batch.len() < BATCH
                && let Some(change) = self.pending.pop_front()
            {
                if let Some(line) = self.report(&change) {
                    batch.put(line);
                }
            }
            if !batch.is_empty() {
                return Some(batch.freeze());
            }
            if self.ended {
                return None;
            }
            tokio::select! {
                biased;
                changes = self.changes.next() => match changes {
                    Ok(changes) => self.pending.extend(changes),
                    Err(fault) => {
                        self.ended = true;
                        return Some(error_line(&Refusal::from(fault)));
                    }
                },
                () = tick(self.bookmarks.as_mut()) => return Some(self.bookmark(false)),
                () = tokio::time::sleep_until(self.end) => return None,
            }
        }
    }

    /// One change as this watch sees it: an object that leaves the selection is deleted, one that enters it is added.
    fn report(&mut self, change: &Change) -> Option<Bytes> {
        let object = change.event.object();
        if let Some(namespace) = &self.namespace
            && object["metadata"]["namespace"].as_str() != Some(namespace)
        {
            return None;
        }
        let plain = self.selection.is_everything() && self.form == Form::Object && self.kind.resource == self.kind.storage;
        if plain && self.kind.custom.is_none() {
            return Some(change.wire(|event| match event {
                WatchEvent::Added(object) => line("ADDED", object),
                WatchEvent::Modified(object) => line("MODIFIED", object),
                WatchEvent::Deleted(object) => line("DELETED", object),
            }));
        }
        let was = change.before.as_ref().is_some_and(|before| self.selection.matches(before));
        let is = !matches!(change.event, WatchEvent::Deleted(_)) && self.selection.matches(object);
        let object = object.clone();
        match (was, is) {
            (false, true) => Some(self.line("ADDED", &object)),
            (true, true) => Some(self.line("MODIFIED", &object)),
            (true, false) => Some(self.line("DELETED", &object)),
            (false, false) => None,
        }
    }

    fn line(&mut self, event: &str, object: &Arc<Value>) -> Bytes {
        let object = convert::outgoing(&self.kind, object);
        match self.form {
            Form::Object => line(event, &object),
            Form::Metadata => line(event, &convert::metadata_only(&object)),
            Form::Table => {
                let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                let table = table::table(&self.kind, std::slice::from_ref(&object), self.include, !self.columns_sent, &metadata);
                self.columns_sent = true;
                line(event, &table)
            }
        }
    }

    fn bookmark(&mut self, initial_events_end: bool) -> Bytes {
        let version = self.changes.position();
        let mut metadata = json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
        if initial_events_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.form {
            Form::Object => json!({"kind": self.kind.resource.kind, "apiVersion": self.kind.resource.api_version(), "metadata": metadata}),
            Form::Metadata => json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}),
            Form::Table => {
                json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": [], "rows": []})
            }
        };
        line("BOOKMARK", &object)
    }
}

async fn tick(interval: Option<&mut Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

fn error_line(refusal: &Refusal) -> Bytes {
    line("ERROR", &refusal.status())
}

fn line(event: &str, object: &Value) -> Bytes {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(event.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    // Writing to memory cannot fail.
    let _ = serde_json::to_writer(&mut out, object);
    out.extend_from_slice(b"}\n");
    out.into()
}
