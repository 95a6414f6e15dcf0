//! The journal itself: the newest entries in memory, each change broadcast, each finished entry a line on standard output.

use std::{
    collections::BTreeMap,
    io::Write,
    str::FromStr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use super::{ConnectionEntry, Entry, RequestEntry};
use crate::units::parse_duration;

/// Entries kept. The oldest change is forgotten first.
const CAPACITY: usize = 20_000;
/// Changes that a slow reader of the stream may lag behind.
const STREAM_BUFFER: usize = 4096;

/// All entries, by the number of their latest change.
#[derive(Debug)]
pub struct Journal {
    entries: Mutex<Entries>,
    changes: broadcast::Sender<Entry>,
    connections: AtomicU64,
    requests: AtomicU64,
    log: bool,
}

#[derive(Debug, Default)]
struct Entries {
    seq: u64,
    forgotten: u64,
    by_seq: BTreeMap<u64, Entry>,
}

/// Part of a journal. `next` is the `since` that continues after it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Page {
    pub next: u64,
    /// Entries that no longer fitted into memory, since the start.
    pub forgotten: u64,
    pub entries: Vec<Entry>,
}

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Since {
    /// After this change.
    Seq(u64),
    /// Entries that began at this time or later.
    Time(Timestamp),
}

impl FromStr for Since {
    type Err = String;

    /// `1234` (a `seq`), `30s` (so long ago) or `2026-01-31T12:00:00Z`.
    fn from_str(text: &str) -> Result<Since, String> {
        if let Ok(seq) = text.parse() {
            return Ok(Since::Seq(seq));
        }
        if let Ok(time) = text.parse() {
            return Ok(Since::Time(time));
        }
        let ago =
            parse_duration(text).map_err(|_| format!("`{text}` is neither a sequence number, a duration (`30s`) nor an RFC 3339 time"))?;
        Timestamp::now().checked_sub(ago).map(Since::Time).map_err(|error| error.to_string())
    }
}

impl Journal {
    /// `log`: also write each finished entry to standard output as a JSON line.
    pub(crate) fn new(log: bool) -> Arc<Journal> {
        Arc::new(Journal {
            entries: Mutex::default(),
            changes: broadcast::channel(STREAM_BUFFER).0,
            connections: AtomicU64::new(1),
            requests: AtomicU64::new(1),
            log,
        })
    }

    pub(crate) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn next_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }

    /// The entries after `since`, in the order of their latest change.
    pub fn read(&self, since: Since) -> Page {
        let entries = self.lock();
        let from = if let Since::Seq(seq) = since { seq.saturating_add(1) } else { 0 };
        let wanted = |entry: &&Entry| if let Since::Time(time) = since { entry.time() >= time } else { true };
        Page {
            next: entries.seq,
            forgotten: entries.forgotten,
            entries: entries.by_seq.range(from..).map(|(_, entry)| entry).filter(wanted).cloned().collect(),
        }
    }

    /// Every change from now on.
    pub fn follow(&self) -> broadcast::Receiver<Entry> {
        self.changes.subscribe()
    }

    fn record(&self, mut entry: Entry) -> u64 {
        let mut entries = self.lock();
        if entry.seq() != 0 {
            entries.by_seq.remove(&entry.seq());
        }
        entries.seq += 1;
        let seq = entries.seq;
        entry.set_seq(seq);
        entries.by_seq.insert(seq, entry.clone());
        if entries.by_seq.len() > CAPACITY {
            entries.by_seq.pop_first();
            entries.forgotten += 1;
        }
        // Sent under the lock, so that a follower sees changes in order. Nobody listening is no error.
        let _ = self.changes.send(entry);
        seq
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An entry that is still being written.
#[derive(Debug)]
pub(crate) struct Recorded<T> {
    journal: Arc<Journal>,
    entry: Mutex<T>,
}

/// What [`Recorded`] needs to know of an entry.
pub(crate) trait Record: Clone + Into<Entry> {
    fn set_seq(&mut self, seq: u64);
    fn is_finished(&self) -> bool;
    /// Probes by the kubelet come every few seconds and would drown the log.
    fn is_logged(&self) -> bool;
}

impl<T: Record> Recorded<T> {
    pub(crate) fn begin(journal: &Arc<Journal>, mut entry: T) -> Recorded<T> {
        entry.set_seq(journal.record(entry.clone().into()));
        Recorded { journal: journal.clone(), entry: Mutex::new(entry) }
    }

    /// Changes the entry, unless it is finished.
    pub(crate) fn update(&self, change: impl FnOnce(&mut T)) {
        let mut entry = self.entry.lock().unwrap_or_else(PoisonError::into_inner);
        if entry.is_finished() {
            return;
        }
        change(&mut entry);
        let seq = self.journal.record(entry.clone().into());
        entry.set_seq(seq);
        if entry.is_finished() && entry.is_logged() && self.journal.log {
            write_log_line(&entry.clone().into());
        }
    }

    #[cfg(test)]
    fn get<R>(&self, read: impl FnOnce(&T) -> R) -> R {
        read(&self.entry.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Record for ConnectionEntry {
    fn set_seq(&mut self, seq: u64) {
        self.seq = seq;
    }
    fn is_finished(&self) -> bool {
        self.ended.is_some()
    }
    fn is_logged(&self) -> bool {
        self.requests == 0 || self.requests > self.health_requests
    }
}

impl Record for RequestEntry {
    fn set_seq(&mut self, seq: u64) {
        self.seq = seq;
    }
    fn is_finished(&self) -> bool {
        self.ended.is_some()
    }
    fn is_logged(&self) -> bool {
        !self.health
    }
}

impl From<ConnectionEntry> for Entry {
    fn from(entry: ConnectionEntry) -> Entry {
        Entry::Connection(entry)
    }
}

impl From<RequestEntry> for Entry {
    fn from(entry: RequestEntry) -> Entry {
        Entry::Request(entry)
    }
}

/// Writes one JSON line to standard output, the pod's log.
pub(crate) fn write_log_line(line: &impl Serialize) {
    let Ok(mut bytes) = serde_json::to_vec(line) else { return };
    bytes.push(b'\n');
    // One write per line, so that lines of several threads do not mix. A log that nobody takes must not stop the server.
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(&bytes).and_then(|()| output.flush());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::ConnectionEnd;

    fn connection(id: u64) -> ConnectionEntry {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        ConnectionEntry {
            seq: 0,
            time: Timestamp::now(),
            connection: id,
            peer: address,
            local: address,
            tls: None,
            requests: 0,
            health_requests: 0,
            bytes_in: 0,
            bytes_out: 0,
            unread_bytes: 0,
            ended: None,
            duration: None,
            error: None,
        }
    }

    #[test]
    fn an_entry_that_changes_moves_behind_since() {
        let journal = Journal::new(false);
        let first = Recorded::begin(&journal, connection(1));
        let _second = Recorded::begin(&journal, connection(2));
        let page = journal.read(Since::Seq(0));
        assert_eq!(page.entries.len(), 2);
        assert!(journal.read(Since::Seq(page.next)).entries.is_empty());
        first.update(|entry| entry.ended = Some(ConnectionEnd::ClientClosed));
        let news = journal.read(Since::Seq(page.next)).entries;
        assert!(
            matches!(&news[..], [Entry::Connection(entry)] if entry.connection == 1 && entry.ended == Some(ConnectionEnd::ClientClosed))
        );
        assert_eq!(journal.read(Since::Seq(0)).entries.len(), 2);
    }

    #[test]
    fn a_finished_entry_stays_as_it_is() {
        let journal = Journal::new(false);
        let recorded = Recorded::begin(&journal, connection(1));
        recorded.update(|entry| entry.ended = Some(ConnectionEnd::ClientReset));
        recorded.update(|entry| entry.ended = Some(ConnectionEnd::Completed));
        assert_eq!(recorded.get(|entry| entry.ended), Some(ConnectionEnd::ClientReset));
    }

    #[test]
    fn the_oldest_is_forgotten_and_counted() {
        let journal = Journal::new(false);
        for id in 0..CAPACITY as u64 + 5 {
            Recorded::begin(&journal, connection(id));
        }
        let page = journal.read(Since::Seq(0));
        assert_eq!((page.entries.len(), page.forgotten), (CAPACITY, 5));
    }

    #[test]
    fn entries_survive_a_round_trip_through_json() {
        let mut entry = connection(3);
        entry.duration = Some(std::time::Duration::from_micros(1_234_567));
        entry.tls = Some(super::super::TlsOutcome::Failed { error: "unknown CA".to_owned() });
        let entry = Entry::from(entry);
        let text = serde_json::to_string(&entry).unwrap();
        assert!(text.contains(r#""kind":"connection""#) && text.contains(r#""duration_ms":1234.567"#), "{text}");
        assert_eq!(serde_json::from_str::<Entry>(&text).unwrap(), entry);
    }

    #[test]
    fn since_is_a_number_a_duration_or_a_time() {
        assert_eq!("12".parse(), Ok(Since::Seq(12)));
        assert!(matches!("30s".parse(), Ok(Since::Time(time)) if time < Timestamp::now()));
        assert!(matches!("2026-01-31T12:00:00Z".parse(), Ok(Since::Time(_))));
        assert!("yesterday".parse::<Since>().is_err());
    }
}
