//! exec and attach: a process's streams over a WebSocket, its end as a `Status`.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::super::query::Query;
use super::super::respond::Body;
use super::super::route::Target;
use super::super::server::ApiState;
use super::super::status::Refusal;
use super::channels::{self, CLOSE, Receiver, V4, V5};
use super::container::container;
use super::upgrade::{Socket, handshake};
use crate::kubelet::AccessError;
use crate::runtime::{ExecProcess, ExecSpec, TerminalSize};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// How long a client may take to answer the closing handshake.
const CLOSING: Duration = Duration::from_secs(5);

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
    // Before the process is started: nobody could hear it otherwise.
    let handshake = handshake(request, &[V5, V4])?;
    let spec = ExecSpec { command, tty: asked("tty"), stdin: asked("stdin") };
    let started = if attach { state.access.attach(&container, spec).await } else { state.access.exec(&container, spec).await };
    let process = match started {
        Ok(process) => Ok(process),
        Err(AccessError::Internal(message)) => Err(message),
        Err(refused) => return Err(refused.into()),
    };
    let (stdout, stderr) = (asked("stdout"), asked("stderr") && !asked("tty"));
    Ok(handshake.accept(move |socket| serve(socket, process, stdout, stderr)))
}

async fn serve(socket: Socket, process: Result<ExecProcess, String>, stdout: bool, stderr: bool) {
    let (sender, mut receiver, writer) = channels::open(socket);
    let status = match process {
        Err(message) => Some(Refusal::internal(message).status()),
        Ok(process) => run(process, &sender, &mut receiver, stdout, stderr).await,
    };
    if let Some(status) = status {
        let _ = sender.send(channels::message(ERROR, status.to_string().as_bytes())).await;
    }
    drop(sender);
    // The client answers our close; until then its last messages are taken off the socket, so that the kernel does not
    // answer them with a reset that could overtake the status.
    let _ = tokio::time::timeout(CLOSING, async {
        while receiver.next().await.is_some() {}
        let _ = writer.await;
    })
    .await;
}

/// Carries the streams until the process has ended; `None` when the client went away before.
async fn run(process: ExecProcess, sender: &channels::Sender, receiver: &mut Receiver, stdout: bool, stderr: bool) -> Option<Value> {
    let ExecProcess { stdin, stdout: out, stderr: err, resize, exit, guard } = process;
    let discard = |wanted: bool| if wanted { Some(sender.clone()) } else { None };
    let output = async {
        let out = async {
            if let Some(out) = out {
                forward(out, STDOUT, discard(stdout)).await;
            }
        };
        let err = async {
            if let Some(err) = err {
                forward(err, STDERR, discard(stderr)).await;
            }
        };
        tokio::join!(out, err);
        exit.await
    };
    let input = async {
        let mut stdin = stdin;
        while let Some(received) = receiver.next().await {
            match received.channel {
                STDIN => {
                    // A process that does not read its input holds up its input only.
                    let gone = match &mut stdin {
                        Some(pipe) => pipe.write_all(&received.data).await.is_err() || pipe.flush().await.is_err(),
                        None => false,
                    };
                    if gone {
                        stdin = None;
                    }
                }
                CLOSE if received.data.first() == Some(&STDIN) => {
                    if let Some(mut pipe) = stdin.take() {
                        let _ = pipe.shutdown().await;
                    }
                }
                RESIZE => {
                    if let (Some(resize), Some(size)) = (&resize, terminal_size(&received.data)) {
                        let _ = resize.try_send(size);
                    }
                }
                _ => {}
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

async fn forward(from: Box<dyn tokio::io::AsyncRead + Send + Unpin>, channel: u8, to: Option<channels::Sender>) {
    match to {
        Some(to) => channels::pump(from, channel, to).await,
        None => {
            let mut from = from;
            let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
        }
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
