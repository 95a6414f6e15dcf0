//! Events are kept for an hour (kube-apiserver's `--event-ttl`), so that a lab that stays up for days does not grow.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Event;

use super::objects::Objects;
use super::pods::key;
use crate::store::{DeleteOptions, Store};

const KEPT: SignedDuration = SignedDuration::from_hours(1);
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Runs for ever.
pub(super) async fn run(store: Store) {
    let events: Objects<Event> = Objects::new(&store);
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    loop {
        ticks.tick().await;
        expire(&events, Timestamp::now());
    }
}

fn expire(events: &Objects<Event>, now: Timestamp) {
    for event in events.list(None) {
        let written = event.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let last = event.last_timestamp.as_ref().map(|time| time.0).max(event.event_time.as_ref().map(|time| time.0)).max(written);
        if last.is_some_and(|last| now.duration_since(last) > KEPT) {
            let _ = events.delete(&key(&*event), &DeleteOptions::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_events_that_stopped_happening_an_hour_ago_go() {
        let store = Store::default();
        let events: Objects<Event> = Objects::new(&store);
        let now = Timestamp::now();
        for (name, minutes) in [("old", 61), ("young", 59)] {
            let last = now - SignedDuration::from_mins(minutes);
            let event = json!({"metadata": {"name": name}, "involvedObject": {}, "lastTimestamp": last.to_string()});
            events.create("n", &serde_json::from_value(event).expect("an Event")).expect("created");
        }
        let names = || events.list(None).iter().filter_map(|e| e.metadata.name.clone()).collect::<Vec<_>>();
        expire(&events, now);
        assert_eq!(names(), ["old", "young"], "both were written just now");
        expire(&events, now + SignedDuration::from_mins(70));
        assert_eq!(names(), [] as [String; 0]);
    }
}
