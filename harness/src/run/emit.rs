//! Telling what happens: runs put events into one channel, from which the session writes and shows them.

use tokio::sync::mpsc;

use crate::events::{Event, EventKind, RunId};

/// Tells events of one run.
#[derive(Clone, Debug)]
pub struct Emitter {
    run: RunId,
    events: mpsc::UnboundedSender<Event>,
}

impl Emitter {
    pub fn new(run: RunId, events: mpsc::UnboundedSender<Event>) -> Self {
        Emitter { run, events }
    }

    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// Nobody listening any more means that the session ends; its own end is told elsewhere.
    pub fn tell(&self, event: EventKind) {
        let _ = self.events.send(Event::of_run(&self.run, event));
    }

    pub fn step(&self, step: impl Into<String>) {
        self.tell(EventKind::Step { step: step.into() });
    }
}
