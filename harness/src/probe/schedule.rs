//! When each attempt of a probe is due, and the keeping of its deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use sha2::Digest;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::dns::Resolver;
use super::failure::Failure;
use super::http::{HttpClient, Progress};
use super::plan::{Probe, ProbeKind, Schedule};
use super::record::{Line, Micros, Outcome, Phase, Record};
use super::summary::Tally;
use super::tcp;

/// Runs one probe to its end, or until `stop` turns true; every record, then the summary, goes to `lines`.
pub async fn run_probe(probe: Probe, resolver: Resolver, lines: mpsc::Sender<Line>, stop: watch::Receiver<bool>) {
    let (records, mut finished) = mpsc::channel::<Record>(64);
    let name = probe.name.clone();
    let lane = match Lane::new(probe, resolver, records) {
        Ok(lane) => Arc::new(lane),
        Err(rejected) => {
            let (probe, failure) = *rejected;
            let record = Record { detail: Some(failure.detail.clone()), ..failed_record(&probe.name, &failure) };
            let mut tally = Tally::new(&probe.name);
            tally.add(&record);
            let _ = lines.send(Line::Record(record)).await;
            let _ = lines.send(Line::Summary(tally.finish(0))).await;
            return;
        }
    };
    let attempts = tokio::spawn(follow(Arc::clone(&lane), stop));
    let mut tally = Tally::new(&name);
    let opened = {
        let client = lane.client_handle();
        drop(lane);
        while let Some(record) = finished.recv().await {
            tally.add(&record);
            if lines.send(Line::Record(record)).await.is_err() {
                attempts.abort();
                return;
            }
        }
        client.map_or(0, |client| client.opened())
    };
    let _ = attempts.await;
    let _ = lines.send(Line::Summary(tally.finish(opened))).await;
}

async fn follow(lane: Arc<Lane>, mut stop: watch::Receiver<bool>) {
    match lane.probe.schedule.clone() {
        Schedule::Sequence { times, gap, concurrency } => {
            let mut lanes = JoinSet::new();
            for _ in 0..concurrency.max(1) {
                lanes.spawn(sequence(Arc::clone(&lane), times, gap.duration(), None, stop.clone()));
            }
            while lanes.join_next().await.is_some() {}
        }
        Schedule::Sweep { gaps, times, concurrency } => {
            for gap in gaps {
                let mut lanes = JoinSet::new();
                for _ in 0..concurrency.max(1) {
                    lanes.spawn(sequence(Arc::clone(&lane), times, gap.duration(), Some(gap), stop.clone()));
                }
                while lanes.join_next().await.is_some() {}
            }
        }
        Schedule::Rate { per_second, lasting, concurrency } => {
            rate(lane, per_second, lasting.duration(), concurrency, &mut stop).await;
        }
    }
}

/// A swept gap starts with an attempt that no gap went before.
async fn sequence(lane: Arc<Lane>, times: u32, gap: Duration, swept: Option<Micros>, mut stop: watch::Receiver<bool>) {
    if swept.is_some() {
        lane.attempt(Instant::now(), Timestamp::now(), None).await;
    }
    for turn in 0..times {
        let begun = Instant::now();
        if (turn > 0 || swept.is_some()) && pause(gap, &mut stop).await {
            return;
        }
        let paused = Micros::from(begun.elapsed());
        lane.attempt(Instant::now(), Timestamp::now(), swept.map(|planned| Gap { planned, paused })).await;
    }
}

async fn rate(lane: Arc<Lane>, per_second: f64, lasting: Duration, concurrency: u32, stop: &mut watch::Receiver<bool>) {
    if !(per_second.is_finite() && per_second > 0.0) {
        return;
    }
    let interval = Duration::from_secs_f64(1.0 / per_second);
    let slots = Arc::new(Semaphore::new(concurrency.max(1) as usize));
    let (start, start_time) = (Instant::now(), Timestamp::now());
    let mut flights = JoinSet::new();
    let mut count = 0u32;
    loop {
        let offset = interval * count;
        if offset >= lasting || pause((start + offset).saturating_duration_since(Instant::now()), stop).await {
            break;
        }
        let (lane, slots) = (Arc::clone(&lane), Arc::clone(&slots));
        flights.spawn(async move {
            let due = start + offset;
            let deadline = lane.probe.deadline.duration();
            match tokio::time::timeout_at((due + deadline).into(), slots.acquire_owned()).await {
                Ok(Ok(_slot)) => lane.attempt(due, start_time + offset, None).await,
                _ => {
                    lane.report(due, start_time + offset, None, Uuid::new_v4(), Progress::new(due), Err(Failure::timeout(Phase::Queued)))
                        .await
                }
            }
        });
        count += 1;
        while flights.try_join_next().is_some() {}
    }
    while flights.join_next().await.is_some() {}
}

/// True when told to stop meanwhile.
async fn pause(duration: Duration, stop: &mut watch::Receiver<bool>) -> bool {
    if *stop.borrow() {
        return true;
    }
    tokio::select! {
        () = tokio::time::sleep(duration) => false,
        // The sender is gone when nobody can say stop any more: keep the schedule.
        Ok(_) = stop.wait_for(|stop| *stop) => true,
    }
}

/// The pause before a request, as asked for and as it was.
#[derive(Clone, Copy)]
struct Gap {
    planned: Micros,
    paused: Micros,
}

/// A probe under way.
struct Lane {
    probe: Probe,
    client: Option<Arc<HttpClient>>,
    resolver: Resolver,
    sequence: AtomicU32,
    records: mpsc::Sender<Record>,
}

impl Lane {
    fn new(probe: Probe, resolver: Resolver, records: mpsc::Sender<Record>) -> Result<Self, Box<(Probe, Failure)>> {
        let client = match &probe.kind {
            ProbeKind::Http(http) => match HttpClient::new(http.clone(), resolver.clone()) {
                Ok(client) => Some(Arc::new(client)),
                Err(failure) => return Err(Box::new((probe, failure))),
            },
            _ => None,
        };
        Ok(Lane { probe, client, resolver, sequence: AtomicU32::new(0), records })
    }

    fn client_handle(&self) -> Option<Arc<HttpClient>> {
        self.client.clone()
    }

    async fn attempt(&self, due: Instant, due_at: Timestamp, gap: Option<Gap>) {
        let request_id = Uuid::new_v4();
        let mut progress = Progress::new(due);
        let deadline = (due + self.probe.deadline.duration()).into();
        let result = match tokio::time::timeout_at(deadline, self.once(request_id, due, &mut progress)).await {
            Ok(result) => result,
            Err(_) => Err(Failure::timeout(progress.phase)),
        };
        self.report(due, due_at, gap, request_id, progress, result).await;
    }

    async fn once(&self, request_id: Uuid, due: Instant, progress: &mut Progress) -> Result<(), Failure> {
        match &self.probe.kind {
            ProbeKind::Http(_) => match &self.client {
                Some(client) => client.attempt(request_id, due, progress).await,
                None => Err(Failure::new(Outcome::ProbeError, Phase::Queued, "no client")),
            },
            ProbeKind::Tcp(tcp) => {
                let (timings, phase) = (&mut progress.timings, &mut progress.phase);
                tcp::connect(&tcp.address, &self.resolver, due, timings, phase).await?;
                progress.phase = Phase::Done;
                Ok(())
            }
            ProbeKind::Dns(dns) => {
                progress.phase = Phase::Resolve;
                let addresses = self.resolver.lookup(&dns.name).await?;
                progress.timings.resolved = Some(Micros::from(due.elapsed()));
                progress.addresses = addresses.iter().map(ToString::to_string).collect();
                progress.phase = Phase::Done;
                Ok(())
            }
        }
    }

    async fn report(
        &self,
        due: Instant,
        due_at: Timestamp,
        gap: Option<Gap>,
        request_id: Uuid,
        progress: Progress,
        result: Result<(), Failure>,
    ) {
        let (outcome, phase, errno, detail) = match result {
            Ok(()) => (Outcome::Answered, Phase::Done, None, None),
            Err(failure) => (failure.outcome, failure.phase, failure.errno, Some(failure.detail)),
        };
        let record = Record {
            probe: self.probe.name.clone(),
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed),
            request_id,
            gap: gap.map(|gap| gap.planned),
            paused: gap.map(|gap| gap.paused),
            due_at,
            finished_at: Timestamp::now(),
            outcome,
            phase,
            errno,
            detail,
            status: progress.status,
            headers: progress.headers,
            body: String::from_utf8_lossy(&progress.body).into_owned(),
            body_length: progress.body_length,
            body_sha256: if progress.status.is_some() { hex(&progress.body_hash.finalize()) } else { String::new() },
            timings: super::record::Timings { total: Micros::from(due.elapsed()), ..progress.timings },
            connection: progress.connection,
            addresses: progress.addresses,
            websocket: progress.websocket,
            grpc: progress.grpc,
        };
        let _ = self.records.send(record).await;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn failed_record(probe: &str, failure: &Failure) -> Record {
    let now = Timestamp::now();
    Record {
        probe: probe.to_owned(),
        sequence: 0,
        request_id: Uuid::new_v4(),
        gap: None,
        paused: None,
        due_at: now,
        finished_at: now,
        outcome: failure.outcome,
        phase: failure.phase,
        errno: failure.errno.clone(),
        detail: None,
        status: None,
        headers: Vec::new(),
        body: String::new(),
        body_length: 0,
        body_sha256: String::new(),
        timings: super::record::Timings::default(),
        connection: None,
        addresses: Vec::new(),
        websocket: None,
        grpc: None,
    }
}
