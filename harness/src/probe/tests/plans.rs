//! One process, plan after plan.

use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::super::command::{ProbeError, QUIT, STOP, follow};
use super::super::plan::Plan;
use super::*;

/// Where the process writes; each write is one line.
struct Lines(mpsc::UnboundedSender<Line>);

impl std::io::Write for Lines {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.send(serde_json::from_slice(text)?);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Process {
    input: DuplexStream,
    lines: mpsc::UnboundedReceiver<Line>,
    ended: JoinHandle<Result<(), ProbeError>>,
}

impl Process {
    fn start() -> Self {
        let (input, theirs) = duplex(64 * 1024);
        let (sender, lines) = mpsc::unbounded_channel();
        Process { input, lines, ended: tokio::spawn(async move { follow(theirs, &mut Lines(sender)).await }) }
    }

    async fn say(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    async fn plan(&mut self, probes: Vec<Probe>) {
        self.say(&serde_json::to_string(&Plan { probes }).unwrap()).await;
    }

    /// The next summary, and how many records went before it.
    async fn summary(&mut self) -> (Summary, usize) {
        let mut records = 0;
        loop {
            match tokio::time::timeout(Duration::from_secs(20), self.lines.recv()).await.unwrap().unwrap() {
                Line::Record(_) => records += 1,
                Line::Summary(summary) => return (summary, records),
                Line::Journal(page) => panic!("nobody asked for {page:?}"),
            }
        }
    }
}

/// A server that keeps its connections, and tells of each end of one.
async fn keeping() -> (String, mpsc::UnboundedReceiver<()>) {
    let (ended, ends) = mpsc::unbounded_channel();
    let address = listen(move |mut stream| {
        let ended = ended.clone();
        async move {
            let mut buffer = [0; 4096];
            while stream.read(&mut buffer).await.is_ok_and(|length| length > 0) {
                let _ = stream.write_all(OK).await;
            }
            let _ = ended.send(());
        }
    })
    .await;
    (address, ends)
}

#[tokio::test]
async fn plans_follow_each_other_and_leave_no_connection_to_the_next() {
    let (address, mut ends) = keeping().await;
    let sequence = || Schedule::Sequence { times: 3, gap: Micros::ZERO, concurrency: 1 };
    let mut process = Process::start();
    for _ in 0..2 {
        process.plan(vec![http(&address, Connection::Reuse, sequence())]).await;
        let (summary, records) = process.summary().await;
        assert_eq!((summary.connections, records), (1, 3), "each plan opens a connection of its own");
        tokio::time::timeout(Duration::from_secs(20), ends.recv()).await.expect("the plan's connection ends with it");
    }
    process.say(QUIT).await;
    process.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn stop_is_for_the_plan_under_way_only() {
    let (address, _ends) = keeping().await;
    let endless = || Schedule::Rate { per_second: 50.0, lasting: Micros::from(Duration::from_secs(3600)), concurrency: 4 };
    let once = || vec![http(&address, Connection::New, Schedule::once())];
    let mut process = Process::start();
    process.plan(once()).await;
    process.summary().await;
    // Late: what it was for has ended by itself.
    process.say(STOP).await;
    process.plan(vec![http(&address, Connection::New, endless())]).await;
    assert!(matches!(process.lines.recv().await, Some(Line::Record(_))), "the late stop is not for this one");
    process.say(STOP).await;
    process.summary().await;
    process.plan(once()).await;
    assert_eq!(process.summary().await.1, 1);
    drop(process.input);
    process.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_plan_from_a_file_runs_to_its_end_and_bad_ones_are_refused() {
    let (address, _ends) = keeping().await;
    let mut process = Process::start();
    let sequence = Schedule::Sequence { times: 3, gap: Micros::from(Duration::from_millis(50)), concurrency: 1 };
    process.plan(vec![http(&address, Connection::New, sequence)]).await;
    drop(std::mem::replace(&mut process.input, duplex(1).0));
    assert_eq!(process.summary().await.1, 3, "the end of input is no stop");
    process.ended.await.unwrap().unwrap();

    let mut process = Process::start();
    process.say("{}").await;
    assert!(matches!(process.ended.await.unwrap(), Err(ProbeError::Plan(_))));
}

/// The journal of a backend in the same container is what every run reads; here there is none.
#[tokio::test]
async fn a_journal_that_cannot_be_read_is_told_and_the_process_goes_on() {
    let mut process = Process::start();
    process.say("journal yesterday").await;
    assert!(matches!(process.lines.recv().await, Some(Line::Journal(Err(reason))) if reason.contains("`yesterday` is no time")));
    let (address, _ends) = keeping().await;
    process.plan(vec![http(&address, Connection::New, Schedule::once())]).await;
    assert_eq!(process.summary().await.1, 1);
    process.say(QUIT).await;
    process.ended.await.unwrap().unwrap();
}
