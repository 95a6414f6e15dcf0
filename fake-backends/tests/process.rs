//! The backend as a process: signals, exit codes, the client commands, the log.
//!
//! This test binary starts itself again with `backend` as its first argument, so that what is tested is always what was built.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::exit, reason = "a test that cannot go on has failed")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::process::ExitStatusExt,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use clap::Parser;
use fake_backends::{BackendArgs, journal};
use libtest_mimic::{Arguments, Failed, Trial};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

#[derive(Parser)]
struct Itself {
    #[command(subcommand)]
    command: ItselfCommand,
}

#[derive(clap::Subcommand)]
enum ItselfCommand {
    Backend(BackendArgs),
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("backend") {
        let ItselfCommand::Backend(args) = Itself::parse().command;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        if let Err(error) = runtime.block_on(fake_backends::run(args)) {
            let _ = writeln!(std::io::stderr(), "{error}");
            std::process::exit(1);
        }
        return;
    }
    let tests: Vec<(&str, fn())> = vec![
        ("exit_on_sigterm_cuts_requests_and_gives_143", exit_on_sigterm_cuts_requests_and_gives_143),
        ("finish_refuses_new_connections_and_finishes_old_requests", finish_refuses_new_connections_and_finishes_old_requests),
        ("drain_serves_on_unready_and_then_ends", drain_serves_on_unready_and_then_ends),
        ("ignore_needs_sigkill", ignore_needs_sigkill),
        ("a_process_ends_after_its_time_with_its_code", a_process_ends_after_its_time_with_its_code),
        ("a_process_ends_after_so_many_answers", a_process_ends_after_so_many_answers),
        ("a_change_by_command_reaches_the_running_process", a_change_by_command_reaches_the_running_process),
        ("the_log_and_the_journal_command_tell_the_same", the_log_and_the_journal_command_tell_the_same),
        ("mistakes_end_with_an_error", mistakes_end_with_an_error),
    ];
    let trials = tests.into_iter().map(|(name, test)| {
        Trial::test(name, move || {
            std::panic::catch_unwind(test).map_err(|panic| {
                let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
                Failed::from(text.unwrap_or_default())
            })
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

const PATIENCE: Duration = Duration::from_secs(15);

/// A backend of its own process, killed at the end of the test whatever happens.
struct Process {
    child: Child,
    log: BufReader<ChildStdout>,
    address: SocketAddr,
    admin: SocketAddr,
}

impl Process {
    fn start(settings: &[&str]) -> Process {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["backend", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        command.args(settings.iter().flat_map(|setting| ["--set", setting]));
        let mut child = command.env("POD_NAME", "shop-7d9f-x2x").stdout(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        let started: serde_json::Value = serde_json::from_str(&line).unwrap();
        let address = |key: &str| started[key].as_str().unwrap().parse().unwrap();
        Process { child, log, address: address("address"), admin: address("admin_address") }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "the process did not end");
            pause();
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn client(&self, arguments: &[&str]) -> std::process::Output {
        let admin = self.admin.to_string();
        Command::new(std::env::current_exe().unwrap()).arg("backend").args(arguments).args(["--admin", &admin]).output().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[allow(clippy::disallowed_methods, reason = "a plain thread that polls a child process; no runtime to stall")]
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "never happened: {what}");
        pause();
    }
}

fn ask(stream: &mut TcpStream, path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()).unwrap();
}

/// One response, however far it comes.
fn read(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while !bytes.ends_with(b"}\n") {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn in_flight(process: &Process) -> bool {
    String::from_utf8(process.client(&["journal"]).stdout).unwrap().contains("request 1")
}

fn exit_on_sigterm_cuts_requests_and_gives_143() {
    let mut process = Process::start(&["server.shutdown=exit", "response.latency=1h"]);
    let mut stream = process.connect();
    ask(&mut stream, "/");
    until("in flight", || in_flight(&process));
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait().code(), Some(143));
    assert_eq!(read(&mut stream), "");
}

fn finish_refuses_new_connections_and_finishes_old_requests() {
    let mut process = Process::start(&["server.shutdown=finish", "response.latency=1500ms"]);
    let mut idle = process.connect();
    let mut busy = process.connect();
    ask(&mut busy, "/");
    until("in flight", || in_flight(&process));
    process.signal(Signal::SIGTERM);
    until("refused", || TcpStream::connect(process.address).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused));
    // The idle connection goes at once, the busy one is answered first.
    assert_eq!(read(&mut idle), "");
    assert!(process.child.try_wait().unwrap().is_none(), "ended before the request was answered");
    assert!(read(&mut busy).starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(process.wait().code(), Some(0));
}

fn drain_serves_on_unready_and_then_ends() {
    let mut process = Process::start(&["server.shutdown=drain", "server.drain_timeout=1500ms"]);
    process.signal(Signal::SIGTERM);
    let begin = Instant::now();
    until("unready", || {
        let mut stream = process.connect();
        ask(&mut stream, "/readyz");
        read(&mut stream).starts_with("HTTP/1.1 503")
    });
    let mut stream = process.connect();
    ask(&mut stream, "/");
    let answer = read(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.to_lowercase().contains("connection: close"), "{answer}");
    assert_eq!(process.wait().code(), Some(0));
    assert!(begin.elapsed() >= Duration::from_millis(1400), "{:?}", begin.elapsed());
}

fn ignore_needs_sigkill() {
    let mut process = Process::start(&["server.shutdown=ignore"]);
    process.signal(Signal::SIGTERM);
    let mut stream = process.connect();
    for _ in 0..20 {
        ask(&mut stream, "/");
        assert!(read(&mut stream).starts_with("HTTP/1.1 200"));
        pause();
    }
    process.signal(Signal::SIGKILL);
    assert_eq!(process.wait().signal(), Some(9));
}

fn a_process_ends_after_its_time_with_its_code() {
    let mut process = Process::start(&["lifetime.exit_after=400ms", "lifetime.exit_code=7"]);
    assert_eq!(process.wait().code(), Some(7));
}

fn a_process_ends_after_so_many_answers() {
    let mut process = Process::start(&["lifetime.exit_after_requests=3", "lifetime.exit_code=9"]);
    let mut stream = process.connect();
    for path in ["/", "/healthz", "/", "/"] {
        ask(&mut stream, path);
        assert!(read(&mut stream).starts_with("HTTP/1.1 200"), "{path}");
    }
    assert_eq!(process.wait().code(), Some(9));
}

fn a_change_by_command_reaches_the_running_process() {
    let process = Process::start(&[]);
    assert!(process.client(&["set", "response.status=418", "name=other"]).status.success());
    let mut stream = process.connect();
    ask(&mut stream, "/");
    let answer = read(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 418") && answer.contains("x-app: other"), "{answer}");
    let refused = process.client(&["set", "response.status=teapot"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("response.status"));
}

fn the_log_and_the_journal_command_tell_the_same() {
    let mut process = Process::start(&[]);
    let mut stream = process.connect();
    ask(&mut stream, "/healthz");
    read(&mut stream);
    ask(&mut stream, "/cart");
    assert!(read(&mut stream).contains("x-served-by: shop-7d9f-x2x"));
    drop(stream);
    let mut lines = Vec::new();
    for _ in 0..2 {
        let mut line = String::new();
        process.log.read_line(&mut line).unwrap();
        lines.push(serde_json::from_str::<journal::Entry>(&line).unwrap());
    }
    assert!(matches!(&lines[0], journal::Entry::Request(request) if request.path == "/cart"), "{lines:?}");
    assert!(matches!(&lines[1], journal::Entry::Connection(connection) if connection.requests == 2), "{lines:?}");
    let page: journal::Page = serde_json::from_slice(&process.client(&["journal", "--json"]).stdout).unwrap();
    for line in &lines {
        assert!(page.entries.contains(line), "{page:?}");
    }
    let after = page.next.to_string();
    let rest: journal::Page = serde_json::from_slice(&process.client(&["journal", "--json", "--since", &after]).stdout).unwrap();
    assert!(rest.entries.is_empty());
}

fn mistakes_end_with_an_error() {
    let itself = std::env::current_exe().unwrap();
    for (arguments, says) in [
        (vec!["backend", "--config", "/does/not/exist.yaml"], "/does/not/exist.yaml"),
        (vec!["backend", "--set", "server.akcept=refuse"], "akcept"),
        (vec!["backend", "journal", "--admin", "127.0.0.1:1"], "admin"),
    ] {
        let output = Command::new(&itself).args(&arguments).output().unwrap();
        assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains(says), "{arguments:?}: {output:?}");
    }
}
