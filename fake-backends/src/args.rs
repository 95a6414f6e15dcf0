//! The commands: `backend`, `backend journal`, `backend set`.

use std::{io::Write, net::SocketAddr, path::PathBuf};

use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde_json::json;
use tokio::select;

use crate::{
    Backend, Config, Error,
    admin::{DEFAULT_ADDRESS, client},
    backend::served_by,
    journal::{Entry, Page, RequestEntry, Since, write_log_line},
    process::{KILLED_BY_SIGINT, Signals},
};

/// Run an HTTP server that behaves exactly as it is told.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BackendArgs {
    #[command(subcommand)]
    pub command: Option<BackendCommand>,
    /// Settings file (YAML); without one the server is healthy on port 8080.
    #[arg(long, value_name = "FILE", env = "BACKEND_CONFIG")]
    pub config: Option<PathBuf>,
    /// Application name, sent as `x-app`.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Address of the main port.
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Address of a separate port for the health endpoints.
    #[arg(long, value_name = "ADDRESS")]
    pub health_listen: Option<SocketAddr>,
    /// Address of the admin port.
    #[arg(long, value_name = "ADDRESS")]
    pub admin_listen: Option<SocketAddr>,
    /// Any other setting by its path, e.g. `server.keepalive_idle_timeout=2s`; may be repeated.
    #[arg(long = "set", value_name = "PATH=VALUE", value_parser = parse_assignment)]
    pub set: Vec<(String, String)>,
}

/// Clients of a backend that runs in the same container.
#[derive(Debug, Subcommand)]
pub enum BackendCommand {
    /// Print the journal of connections and requests.
    Journal(JournalArgs),
    /// Change settings of the running backend.
    Set(SetArgs),
}

#[derive(Debug, Args)]
pub struct JournalArgs {
    /// Only what is newer: a `seq` number, a duration (`30s`) or an RFC 3339 time.
    #[arg(long, value_name = "SINCE", value_parser = check_since)]
    pub since: Option<String>,
    /// Print the journal as one JSON document instead of text.
    #[arg(long)]
    pub json: bool,
    /// Go on printing every change, one JSON object a line.
    #[arg(long, conflicts_with = "json")]
    pub follow: bool,
    /// Address of the admin port.
    #[arg(long, value_name = "ADDRESS", default_value_t = DEFAULT_ADDRESS)]
    pub admin: SocketAddr,
}

#[derive(Debug, Args)]
pub struct SetArgs {
    /// Settings, e.g. `server.accept=refuse routes.0.response.latency=2s`; `null` puts a setting back to its default.
    #[arg(value_name = "PATH=VALUE", required = true, value_parser = parse_assignment)]
    pub assignments: Vec<(String, String)>,
    /// Address of the admin port.
    #[arg(long, value_name = "ADDRESS", default_value_t = DEFAULT_ADDRESS)]
    pub admin: SocketAddr,
}

fn parse_assignment(text: &str) -> Result<(String, String), String> {
    let (path, value) = text.split_once('=').ok_or("write PATH=VALUE, e.g. server.accept=refuse")?;
    Ok((path.to_owned(), value.to_owned()))
}

fn check_since(text: &str) -> Result<String, String> {
    text.parse::<Since>().map(|_| text.to_owned())
}

/// Runs the command. A backend that ends with another exit code than 0 ends the process by itself.
pub async fn run(args: BackendArgs) -> Result<(), Error> {
    match args.command {
        None => serve(args).await,
        Some(BackendCommand::Journal(args)) => journal(args).await,
        Some(BackendCommand::Set(args)) => set(args).await,
    }
}

fn settings(args: &BackendArgs) -> Result<Config, Error> {
    let mut config = match &args.config {
        Some(path) => Config::from_file(path)?,
        None => Config::default(),
    };
    if let Some(name) = &args.name {
        config.name.clone_from(name);
    }
    if let Some(address) = args.listen {
        config.server.listen = address;
    }
    if let Some(address) = args.health_listen {
        config.server.health_listen = Some(address);
    }
    if let Some(address) = args.admin_listen {
        config.admin.listen = address;
    }
    config.assigned(args.set.iter().map(|(path, value)| (path.as_str(), value.as_str())))
}

async fn serve(args: BackendArgs) -> Result<(), Error> {
    // Before anything else: a SIGTERM at start must not be lost.
    let mut signals = Signals::install()?;
    let config = settings(&args)?;
    let backend = Backend::start_as(config, served_by(), true).await?;
    let config = backend.config();
    write_log_line(&json!({
        "kind": "started",
        "time": jiff::Timestamp::now(),
        "app": config.name,
        "address": backend.address().unwrap_or(config.server.listen),
        "health_address": backend.health_address(),
        "admin_address": backend.admin_address(),
    }));
    let exit = loop {
        select! {
            _ = signals.terminate.recv() => backend.terminate(),
            _ = signals.interrupt.recv() => backend.stop(KILLED_BY_SIGINT),
            exit = backend.stopped() => break exit,
        }
    };
    end_process(exit.code)
}

/// Ends the process here and now. Returning would run the caller's runtime down first, and it is the point of an abrupt end that every
/// socket is closed in the same instant by the kernel.
#[allow(clippy::exit, reason = "an abrupt end of the process is what was asked for")]
fn end_process(code: u8) -> Result<(), Error> {
    std::process::exit(i32::from(code))
}

async fn set(args: SetArgs) -> Result<(), Error> {
    let assignments: serde_json::Map<_, _> = args.assignments.into_iter().map(|(path, value)| (path, value.into())).collect();
    let body = serde_json::Value::Object(assignments).to_string().into_bytes();
    let answer = client::send(args.admin, Method::POST, "/set", body).await?;
    client::collect(args.admin, answer).await.map(drop)
}

/// The journal of the backend that runs in this container, with its default admin port.
///
/// # Errors
/// When none answers there.
pub async fn journal_since(since: Timestamp) -> Result<Page, Error> {
    page(DEFAULT_ADDRESS, &fetch(DEFAULT_ADDRESS, &since.to_string()).await?)
}

async fn fetch(admin: SocketAddr, since: &str) -> Result<Bytes, Error> {
    let body = client::send(admin, Method::GET, &format!("/journal?since={since}"), Vec::new()).await?;
    client::collect(admin, body).await
}

fn page(admin: SocketAddr, body: &[u8]) -> Result<Page, Error> {
    serde_json::from_slice(body).map_err(|error| Error::Admin { address: admin, reason: format!("not a journal: {error}") })
}

async fn journal(args: JournalArgs) -> Result<(), Error> {
    let since = args.since.as_deref().unwrap_or("0").replace('+', "%2B").replace(' ', "");
    if args.follow {
        let mut body = client::send(args.admin, Method::GET, &format!("/journal/stream?since={since}"), Vec::new()).await?;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Error::Admin { address: args.admin, reason: error.to_string() })?;
            if let Some(data) = frame.data_ref() {
                print(data)?;
            }
        }
        return Ok(());
    }
    let body = fetch(args.admin, &since).await?;
    if args.json {
        return print(&body);
    }
    let page = page(args.admin, &body)?;
    let text: String = page.entries.iter().map(|entry| format!("{}\n", describe(entry))).collect();
    print(text.as_bytes())
}

fn print(bytes: &[u8]) -> Result<(), Error> {
    let mut output = std::io::stdout().lock();
    output.write_all(bytes).and_then(|()| output.flush()).map_err(Error::Output)
}

/// One entry as a line of text.
fn describe(entry: &Entry) -> String {
    let ended = |end: serde_json::Value| end.as_str().unwrap_or("open").to_owned();
    match entry {
        Entry::Connection(entry) => format!(
            "{} connection {} from {}: {} requests, {} in, {} out, {}",
            entry.time,
            entry.connection,
            entry.peer,
            entry.requests,
            entry.bytes_in,
            entry.bytes_out,
            ended(json!(entry.ended)),
        ),
        Entry::Request(entry) => {
            let RequestEntry { time, connection, number, method, path, .. } = entry;
            let status = entry.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
            let id = entry.request_id.as_deref().unwrap_or("-");
            let after = entry.duration.map_or_else(String::new, |duration| format!(" after {duration:.3?}"));
            format!(
                "{time} connection {connection} request {number} {method} {path} -> {status} {}{after} id {id}",
                ended(json!(entry.ended))
            )
        }
    }
}
