//! The probe against small servers on loopback that do one thing each.

mod plans;
mod protocols;

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use super::dns::Resolver;
use super::plan::{Connection, HttpProbe, Probe, ProbeKind, Protocol, Schedule, TcpProbe};
use super::record::{Line, Micros, Outcome, Phase, Record, Summary};
use super::schedule::run_probe;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Served-By: me\r\n\r\nhi";

fn http(address: &str, connection: Connection, schedule: Schedule) -> Probe {
    Probe {
        name: "home".into(),
        kind: ProbeKind::Http(HttpProbe {
            address: address.into(),
            method: "GET".into(),
            target: "/".into(),
            host: "shop.test".into(),
            headers: vec![],
            body: String::new(),
            connection,
            tls: None,
            protocol: Protocol::Http1,
            websocket: None,
            body_kept: 2048,
        }),
        schedule,
        deadline: Micros::from(Duration::from_secs(10)),
    }
}

async fn run(probe: Probe) -> (Vec<Record>, Summary) {
    let (_stop, stopped) = watch::channel(false);
    run_until(probe, stopped).await
}

async fn run_until(probe: Probe, stopped: watch::Receiver<bool>) -> (Vec<Record>, Summary) {
    let (lines, mut results) = mpsc::channel(16);
    tokio::spawn(run_probe(probe, Resolver::parse("", ""), lines, stopped));
    let (mut records, mut summary) = (Vec::new(), None);
    while let Some(line) = results.recv().await {
        match line {
            Line::Record(record) => records.push(record),
            Line::Summary(last) => summary = Some(last),
            Line::Journal(page) => panic!("nobody asked for {page:?}"),
        }
    }
    (records, summary.expect("every probe ends with a summary"))
}

async fn one(probe: Probe) -> Record {
    let (mut records, _) = run(probe).await;
    assert_eq!(records.len(), 1);
    records.remove(0)
}

/// Accepts for ever; `serve` gets each connection.
async fn listen<F, R>(serve: F) -> String
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// Reads one request head; false at end of stream.
async fn read_head(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0u8];
        match stream.read(&mut byte).await {
            Ok(1) => head.push(byte[0]),
            _ => return false,
        }
    }
    true
}

async fn answer_always(mut stream: TcpStream) {
    while read_head(&mut stream).await {
        stream.write_all(OK).await.unwrap();
    }
}

fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

#[tokio::test]
async fn a_response_is_recorded_whole() {
    let address = listen(answer_always).await;
    let record = one(http(&address, Connection::New, Schedule::once())).await;
    assert_eq!((record.outcome, record.phase, record.status), (Outcome::Answered, Phase::Done, Some(200)));
    assert_eq!((record.header("x-served-by"), record.body.as_str(), record.body_length), (Some("me"), "hi", 2));
    assert_eq!(record.body_sha256, "8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4");
    let timings = record.timings;
    assert!(timings.connected.unwrap() <= timings.first_byte.unwrap() && timings.first_byte.unwrap() <= timings.total);
    assert_eq!(record.connection.unwrap().remote.to_string(), address);
}

#[tokio::test]
async fn nothing_listening_is_refused() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let record = one(http(&address, Connection::New, Schedule::once())).await;
    assert_eq!((record.outcome, record.phase), (Outcome::Refused, Phase::Connect));
    assert_eq!(record.errno.as_deref(), Some("ECONNREFUSED"));
    let tcp = Probe { kind: ProbeKind::Tcp(TcpProbe { address }), ..http("", Connection::New, Schedule::once()) };
    assert_eq!(one(tcp).await.outcome, Outcome::Refused);
}

#[tokio::test]
async fn reset_close_garbage_and_truncation_are_told_apart() {
    let resets = listen(|mut stream| async move {
        read_head(&mut stream).await;
        reset(stream);
    });
    let closes = listen(|mut stream| async move {
        read_head(&mut stream).await;
    });
    let closes_in_head = listen(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Le").await.unwrap();
    });
    let garbage = listen(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"\x15\x03\x01\x00\x02\x02\x16 what is this\r\n\r\n").await.unwrap();
        stream.read_exact(&mut [0]).await.ok();
    });
    let truncates = listen(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this").await.unwrap();
    });
    for (address, outcome, phase, status) in [
        (resets.await, Outcome::Reset, Phase::Head, None),
        (closes.await, Outcome::Closed, Phase::Head, None),
        (closes_in_head.await, Outcome::Closed, Phase::Head, None),
        (garbage.await, Outcome::Malformed, Phase::Head, None),
        (truncates.await, Outcome::Truncated, Phase::Body, Some(200)),
    ] {
        let record = one(http(&address, Connection::New, Schedule::once())).await;
        assert_eq!((record.outcome, record.phase, record.status), (outcome, phase, status), "{record:?}");
    }
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let address = listen(|stream| async move {
        let _held = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let mut probe = http(&address, Connection::New, Schedule::once());
    probe.deadline = Micros(50_000);
    let record = one(probe).await;
    assert_eq!((record.outcome, record.phase), (Outcome::Timeout, Phase::Head));
    assert!(record.timings.total >= Micros(50_000) && record.timings.connected.is_some());
}

#[tokio::test]
async fn connections_are_reused_only_when_told_so() {
    let address = listen(answer_always).await;
    let schedule = Schedule::Sequence { times: 4, gap: Micros::ZERO, concurrency: 1 };
    let (records, summary) = run(http(&address, Connection::Reuse, schedule.clone())).await;
    let uses: Vec<_> =
        records.iter().map(|record| record.connection.clone().unwrap()).map(|used| (used.id, used.requests_before)).collect();
    assert_eq!(uses, [(0, 0), (0, 1), (0, 2), (0, 3)]);
    assert_eq!((summary.connections, summary.results["200"]), (1, 4));
    let (_, summary) = run(http(&address, Connection::New, schedule)).await;
    assert_eq!(summary.connections, 4);
}

#[tokio::test]
async fn a_connection_closed_by_its_response_is_not_used_again() {
    let address = listen(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    })
    .await;
    let (records, summary) =
        run(http(&address, Connection::Reuse, Schedule::Sequence { times: 3, gap: Micros::ZERO, concurrency: 1 })).await;
    assert!(records.iter().all(|record| record.status == Some(200)));
    assert_eq!(summary.connections, 3);
}

#[tokio::test]
async fn a_sweep_names_the_gap_before_each_request_and_adds_up_by_gap() {
    let address = listen(answer_always).await;
    let schedule = Schedule::Sweep { gaps: vec![Micros(1_000), Micros(2_000)], times: 3, concurrency: 1 };
    let (records, summary) = run(http(&address, Connection::Reuse, schedule)).await;
    let gaps: Vec<_> = records.iter().map(|record| record.gap.map(|gap| gap.0)).collect();
    assert_eq!(gaps, [None, Some(1000), Some(1000), Some(1000), None, Some(2000), Some(2000), Some(2000)]);
    assert_eq!(summary.gaps.iter().map(|gap| (gap.gap.0, gap.attempts, gap.failed)).collect::<Vec<_>>(), [(1000, 3, 0), (2000, 3, 0)]);
}

#[tokio::test]
async fn a_stall_shows_in_every_attempt_that_was_due_in_it() {
    // Answers nothing for 300 ms after the first connection, then at once.
    let start = std::time::Instant::now();
    let address = listen(move |mut stream| async move {
        tokio::time::sleep(Duration::from_millis(300).saturating_sub(start.elapsed())).await;
        read_head(&mut stream).await;
        stream.write_all(OK).await.ok();
    })
    .await;
    let schedule = Schedule::Rate { per_second: 100.0, lasting: Micros(250_000), concurrency: 1 };
    let (records, _) = run(http(&address, Connection::New, schedule)).await;
    assert_eq!(records.len(), 25);
    // One slot only: a closed loop would have sent a single slow request and 24 fast ones.
    let slow = records.iter().filter(|record| record.timings.total > Micros(50_000)).count();
    assert!(slow >= 20, "{slow} of 25 show the stall");
}

#[tokio::test]
async fn stop_ends_an_open_ended_probe() {
    let address = listen(answer_always).await;
    let (stop, stopped) = watch::channel(false);
    let schedule = Schedule::Rate { per_second: 200.0, lasting: Micros::from(Duration::from_secs(3600)), concurrency: 4 };
    let running = tokio::spawn(run_until(http(&address, Connection::Reuse, schedule), stopped));
    tokio::time::sleep(Duration::from_millis(50)).await;
    stop.send(true).unwrap();
    let (records, _) = running.await.unwrap();
    assert!(!records.is_empty() && records.len() < 1000);
}

#[tokio::test]
async fn a_plan_that_cannot_be_sent_says_so() {
    let mut probe = http("127.0.0.1:1", Connection::New, Schedule::once());
    if let ProbeKind::Http(http) = &mut probe.kind {
        http.headers.push(("bad name".into(), "x".into()));
    }
    let record = one(probe).await;
    assert_eq!(record.outcome, Outcome::ProbeError);
    assert!(record.detail.unwrap().contains("bad name"));
}
