//! exec and attach: a process's streams over a WebSocket or SPDY, its end as a `Status`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::USER_AGENT;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use super::super::query::Query;
use super::super::respond::Body;
use super::super::route::Target;
use super::super::server::ApiState;
use super::super::status::Refusal;
use super::channels::{self, CLOSE, Output, V4, V5};
use super::container::container;
use super::spdy;
use super::upgrade::{Socket, handshake, websocket};
use crate::kubelet::AccessError;
use crate::runtime::{ExecProcess, ExecSpec, TerminalSize};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// How long a client may take to answer the closing handshake.
const CLOSING: Duration = Duration::from_secs(5);
/// How long a SPDY client may take to open its streams (the kubelet's `streamCreationTimeout`).
const OPENING: Duration = Duration::from_secs(30);
/// kubectl before 1.34 begins to read before it has made its streams, and discards what comes for one that it has not made
/// yet ("Unknown stream id 1, discarding message"); a cluster farther away than this one never answers so soon.
const KUBECTL_READY: Duration = Duration::from_millis(50);
/// Pieces of input waiting for a process that is slow to read.
const WAITING: usize = 8;

pub(super) async fn answer(
    state: Arc<ApiState>,
    target: &Target,
    attach: bool,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let container = container(&state, target, query)?;
    let command: Vec<String> = query.all("command").map(str::to_owned).collect();
    if command.is_empty() && !attach {
        return Err(Refusal::bad_request("you must specify at least 1 command for the container"));
    }
    let asked = |name: &str| query.flag(name);
    if !(asked("stdin") || asked("stdout") || asked("stderr")) {
        return Err(Refusal::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    let is_kubectl = request.headers().get(USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(b"kubectl"));
    // Before the process is started: nobody could hear it otherwise.
    let handshake = handshake(request, &[V5, V4], &[V4])?;
    let spec = ExecSpec { command, tty: asked("tty"), stdin: asked("stdin") };
    let started = if attach { state.access.attach(&container, spec).await } else { state.access.exec(&container, spec).await };
    let process = match started {
        Ok(process) => Ok(process),
        Err(AccessError::Internal(message)) => Err(message),
        Err(refused) => return Err(refused.into()),
    };
    let wanted = Wanted { stdin: asked("stdin"), stdout: asked("stdout"), stderr: asked("stderr") && !asked("tty"), tty: asked("tty") };
    let is_spdy = handshake.is_spdy;
    Ok(handshake.accept(move |connection| async move {
        if is_spdy {
            serve_spdy(connection, process, wanted).await;
        } else {
            let socket = websocket(connection).await;
            if is_kubectl {
                tokio::time::sleep(KUBECTL_READY).await;
            }
            serve_websocket(socket, process, wanted).await;
        }
    }))
}

/// What to do with the streams of a process.
#[derive(Clone, Copy)]
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

/// What a client sends to a process. The end of these means that the client is gone.
enum Input {
    Stdin(Bytes),
    StdinEnd,
    Resize(TerminalSize),
}

type Started = Result<ExecProcess, String>;

async fn serve_websocket(socket: Socket, process: Started, wanted: Wanted) {
    let (sender, mut receiver, writer) = channels::open(socket);
    let (input, inputs) = mpsc::channel(WAITING);
    // Goes on until the client has answered our close: messages left on the socket would make the kernel answer with a
    // reset, which could overtake the status.
    let reader = tokio::spawn(async move {
        while let Some(received) = receiver.next().await {
            let input_ = match received.channel {
                STDIN => Some(Input::Stdin(received.data)),
                CLOSE if received.data.first() == Some(&STDIN) => Some(Input::StdinEnd),
                RESIZE => terminal_size(&received.data).map(Input::Resize),
                _ => None,
            };
            if let Some(input_) = input_ {
                let _ = input.send(input_).await;
            }
        }
    });
    let output = |channel, wanted: bool| wanted.then(|| Output::WebSocket(channel, sender.clone()));
    let outputs = (output(STDOUT, wanted.stdout), output(STDERR, wanted.stderr));
    if let Some(status) = run(process, outputs, inputs).await {
        let _ = sender.send(channels::message(ERROR, status.to_string().as_bytes())).await;
    }
    drop(sender);
    let ends = async {
        let _ = tokio::join!(reader, writer);
    };
    let _ = tokio::time::timeout(CLOSING, ends).await;
}

/// As clients before kubectl 1.31 do it: they open a stream each for error, stdin, stdout, stderr and resize.
async fn serve_spdy(connection: TokioIo<Upgraded>, process: Started, wanted: Wanted) {
    let mut session = spdy::open(connection);
    let expected = 1 + usize::from(wanted.stdin) + usize::from(wanted.stdout) + usize::from(wanted.stderr) + usize::from(wanted.tty);
    let mut streams: HashMap<String, spdy::Stream> = HashMap::new();
    let opening = async {
        while streams.len() < expected {
            let stream = session.streams.recv().await?;
            let kind = stream.headers.get("streamtype").cloned().unwrap_or_default();
            streams.insert(kind, stream);
        }
        Some(())
    };
    if !matches!(tokio::time::timeout(OPENING, opening).await, Ok(Some(()))) {
        return;
    }
    let Some(error) = streams.remove("error") else { return };
    let (input, inputs) = mpsc::channel(WAITING);
    let (stdin, resize) = (streams.remove("stdin"), streams.remove("resize"));
    let closed = session.closed.clone();
    tokio::spawn(async move {
        let stdin = async {
            if let Some(mut stdin) = stdin {
                while let Some(data) = stdin.data.recv().await {
                    let _ = input.send(Input::Stdin(data)).await;
                }
                let _ = input.send(Input::StdinEnd).await;
            }
        };
        let resize = async {
            if let Some(mut resize) = resize {
                while let Some(data) = resize.data.recv().await {
                    if let Some(size) = terminal_size(&data) {
                        let _ = input.send(Input::Resize(size)).await;
                    }
                }
            }
        };
        tokio::join!(stdin, resize, closed.cancelled());
    });
    let output = |name: &str| streams.get(name).map(|stream| stream.sender.clone());
    let (stdout, stderr) = (output("stdout"), output("stderr"));
    let outputs = (stdout.clone().map(Output::Spdy), stderr.clone().map(Output::Spdy));
    if let Some(status) = run(process, outputs, inputs).await {
        error.sender.send(status.to_string().as_bytes()).await;
    }
    for sender in [stdout, stderr, Some(error.sender.clone())].into_iter().flatten() {
        sender.finish().await;
    }
    // The client closes the connection when it has read the end of all streams.
    let _ = tokio::time::timeout(CLOSING, session.closed.cancelled()).await;
}

/// Carries the streams until the process has ended; `None` when the client went away before.
async fn run(process: Started, (stdout, stderr): (Option<Output>, Option<Output>), mut inputs: mpsc::Receiver<Input>) -> Option<Value> {
    let ExecProcess { stdin, stdout: out, stderr: err, resize, exit, guard } = match process {
        Ok(process) => process,
        Err(message) => return Some(Refusal::internal(message).status()),
    };
    let output = async {
        tokio::join!(forward(out, stdout), forward(err, stderr));
        exit.await
    };
    let input = async {
        let mut stdin = stdin;
        while let Some(input) = inputs.recv().await {
            match input {
                Input::Stdin(data) => {
                    // A process that does not read its input holds up its input only.
                    let gone = match &mut stdin {
                        Some(pipe) => pipe.write_all(&data).await.is_err() || pipe.flush().await.is_err(),
                        None => false,
                    };
                    if gone {
                        stdin = None;
                    }
                }
                Input::StdinEnd => {
                    if let Some(mut pipe) = stdin.take() {
                        let _ = pipe.shutdown().await;
                    }
                }
                Input::Resize(size) => {
                    if let Some(resize) = &resize {
                        let _ = resize.try_send(size);
                    }
                }
            }
        }
    };
    let result = tokio::select! {
        exit = output => Some(exit.map_or_else(|_| Refusal::internal("the process was lost").status(), exit_status)),
        () = input => None,
    };
    drop(guard);
    result
}

/// Output that the client does not want is read all the same, so that the process does not block.
async fn forward(from: Option<Box<dyn tokio::io::AsyncRead + Send + Unpin>>, to: Option<Output>) {
    match (from, to) {
        (Some(from), Some(to)) => to.pump(from).await,
        (Some(mut from), None) => drop(tokio::io::copy(&mut from, &mut tokio::io::sink()).await),
        (None, _) => {}
    }
}

/// `{"Width":80,"Height":24}`
fn terminal_size(data: &[u8]) -> Option<TerminalSize> {
    let size: Value = serde_json::from_slice(data).ok()?;
    let number = |field: &str| size[field].as_u64().and_then(|n| u16::try_from(n).ok());
    Some(TerminalSize { columns: number("Width")?, rows: number("Height")? })
}

/// As the kubelet reports a command's end (`remotecommand.NonZeroExitCodeReason`).
fn exit_status(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}
