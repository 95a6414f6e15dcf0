//! `gatelab probe`: the container command.

use std::collections::VecDeque;
use std::io::Write;
use std::pin::pin;

use fake_backends::journal::Page;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::{mpsc, watch};

use super::dns::Resolver;
use super::plan::{Plan, Schedule};
use super::record::Line;
use super::schedule::run_probe;

#[derive(Clone, Debug, clap::Args)]
pub struct ProbeArgs {
    /// `-`: read plans, each a line of JSON, from standard input, and carry them out one after the other; a line `stop` ends the
    /// open-ended probes of the one under way. A plan is over when each of its probes has had its summary. A line `quit` or
    /// the end of input ends the process after the plans before it; `journal` and a time (RFC 3339) answers with what the
    /// application in this container has written down since.
    #[arg(required_unless_present = "idle", value_parser = ["-"])]
    pub plan: Option<String>,
    /// Do nothing until told to end (SIGTERM or SIGINT): keeps a pod for probes to run in.
    #[arg(long, conflicts_with = "plan")]
    pub idle: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("cannot read the plan from standard input: {0}")]
    Input(#[source] std::io::Error),
    #[error("a plan on standard input is not one line of valid JSON: {0}")]
    Plan(#[source] serde_json::Error),
    #[error("cannot start threads: {0}")]
    Runtime(#[source] std::io::Error),
    #[error("of {planned} probes only {summaries} came to an end")]
    Lost { planned: usize, summaries: usize },
    #[error("cannot write results to standard output: {0}")]
    Output(#[source] std::io::Error),
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] std::io::Error),
}

/// Ends the open-ended probes of the plan under way.
pub const STOP: &str = "stop";
/// Asks for the journal; a time follows it.
pub const JOURNAL: &str = "journal";
/// Ends the process after the plans before it, as the end of input does: not every connection to a cluster carries that.
pub const QUIT: &str = "quit";

/// Runs until the last plan is done, or, idle, until a signal.
pub async fn run(args: ProbeArgs) -> Result<(), ProbeError> {
    if args.idle { idle().await } else { follow(tokio::io::stdin(), &mut std::io::stdout()).await }
}

/// A container's first process gets no default action for signals (pid_namespaces(7)): without handlers, stopping the pod
/// would last its whole grace period.
async fn idle() -> Result<(), ProbeError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(ProbeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ProbeError::Signals)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Takes plan after plan. A line that comes while a plan is under way is `stop`, or what comes next.
pub(super) async fn follow(input: impl AsyncRead + Unpin + Send + 'static, output: &mut impl Write) -> Result<(), ProbeError> {
    let mut input = lines_of(input);
    let stop = watch::Sender::new(false);
    let mut waiting = VecDeque::new();
    loop {
        let next = match waiting.pop_front() {
            Some(text) => text,
            None => match input.recv().await.transpose().map_err(ProbeError::Input)? {
                Some(text) => text,
                None => return Ok(()),
            },
        };
        match next.trim() {
            QUIT => return Ok(()),
            // What was to be stopped has ended meanwhile.
            STOP => continue,
            _ => {}
        }
        if let Some(since) = next.trim().strip_prefix(JOURNAL) {
            write_line(&Line::Journal(journal(since.trim()).await), output)?;
            continue;
        }
        let plan: Plan = serde_json::from_str(&next).map_err(ProbeError::Plan)?;
        stop.send_replace(false);
        let mut running = pin!(carry_out(plan, stop.subscribe(), output));
        // The end of input, a broken one too, is not `stop`: a plan piped in from a file must run to its end.
        let mut more = true;
        loop {
            tokio::select! {
                ended = &mut running => break ended?,
                line = input.recv(), if more => match line {
                    Some(Ok(line)) if line.trim() == STOP => drop(stop.send(true)),
                    Some(Ok(line)) => waiting.push_back(line),
                    Some(Err(_)) | None => more = false,
                },
            }
        }
    }
}

/// Reading a line cannot be cancelled without loss, so a task of its own does it.
fn lines_of(input: impl AsyncRead + Unpin + Send + 'static) -> mpsc::Receiver<std::io::Result<String>> {
    let (lines, received) = mpsc::channel(4);
    tokio::spawn(async move {
        let mut input = BufReader::new(input).lines();
        while let Some(line) = input.next_line().await.transpose() {
            if lines.send(line).await.is_err() {
                return;
            }
        }
    });
    received
}

async fn journal(since: &str) -> Result<Page, String> {
    let since = since.parse().map_err(|error| format!("`{since}` is no time: {error}"))?;
    fake_backends::journal_since(since).await.map_err(|error| error.to_string())
}

/// In a runtime of its own: what probes have opened and left goes with it, and no later plan shares a connection.
async fn carry_out(plan: Plan, stopped: watch::Receiver<bool>, output: &mut impl Write) -> Result<(), ProbeError> {
    let threads = if plan.probes.iter().all(|probe| probe.schedule == Schedule::once()) { 1 } else { 2 };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().map_err(ProbeError::Runtime)?;
    let planned = plan.probes.len();
    let (lines, mut results) = mpsc::channel::<Line>(256);
    let resolver = Resolver::from_system();
    for probe in plan.probes {
        runtime.spawn(run_probe(probe, resolver.clone(), lines.clone(), stopped.clone()));
    }
    drop(lines);
    let mut written = Ok(());
    let mut summaries = 0;
    while let Some(line) = results.recv().await {
        summaries += usize::from(matches!(line, Line::Summary(_)));
        written = write_line(&line, output);
        if written.is_err() {
            break;
        }
    }
    runtime.shutdown_background();
    written?;
    if summaries == planned { Ok(()) } else { Err(ProbeError::Lost { planned, summaries }) }
}

fn write_line(line: &Line, output: &mut impl Write) -> Result<(), ProbeError> {
    let mut text = serde_json::to_vec(line).map_err(|error| ProbeError::Output(error.into()))?;
    text.push(b'\n');
    output.write_all(&text).and_then(|()| output.flush()).map_err(ProbeError::Output)
}
