//! What the running configuration reflects: kept in a file, told on a socket, printed by `gateway-agent status`.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::watch,
    task::JoinSet,
};

use super::gateway::write_atomically;
use crate::GatewayKind;

/// Answer of `gatelab gateway-agent status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub gateway: GatewayKind,
    pub version: String,
    /// How often the running configuration was changed; 0: none is running yet.
    pub generation: u64,
    /// `Kind/namespace/name` and resourceVersion of every object, as the configuration that serves requests reflects it.
    pub applied: BTreeMap<String, String>,
    /// Why the newest configuration is not the running one.
    pub last_error: Option<String>,
}

pub(super) fn path(state: &Path) -> PathBuf {
    state.join("status.json")
}

fn socket(state: &Path) -> PathBuf {
    state.join("status.sock")
}

/// Where the status is read: the file has the newest, the socket tells it and all that come after. Tells until dropped.
pub(super) struct Board {
    state: PathBuf,
    newest: watch::Sender<Option<String>>,
    _readers: JoinSet<()>,
}

impl Board {
    /// To be opened before the gateway is started; the folder is there.
    pub fn open(state: &Path) -> io::Result<Self> {
        let path = socket(state);
        // An emptyDir outlives its containers.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        let newest = watch::Sender::new(None);
        let mut readers = JoinSet::new();
        readers.spawn(accept(listener, newest.subscribe()));
        Ok(Self { state: state.to_owned(), newest, _readers: readers })
    }

    pub fn tell(&self, status: &Status) -> Result<(), String> {
        let text = serde_json::to_string(status).map_err(|error| error.to_string())?;
        write_atomically(&path(&self.state), &text)?;
        self.newest.send_if_modified(|told| {
            let differs = told.as_ref() != Some(&text);
            *told = Some(text);
            differs
        });
        Ok(())
    }
}

async fn accept(listener: UnixListener, newest: watch::Receiver<Option<String>>) {
    let mut readers = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        while readers.try_join_next().is_some() {}
        readers.spawn(tell_all(stream, newest.clone()));
    }
}

/// Ends when the reader goes away.
async fn tell_all(mut reader: UnixStream, mut newest: watch::Receiver<Option<String>>) {
    newest.mark_changed();
    while newest.changed().await.is_ok() {
        let told = newest.borrow_and_update().clone();
        let Some(line) = told else { continue };
        if reader.write_all(format!("{line}\n").as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Copies what an agent tells, a line each time, until it or the reader goes away, or anything comes in.
pub(super) async fn follow(state: &Path, mut input: impl AsyncRead + Unpin, output: &mut impl io::Write) -> io::Result<()> {
    let stream = UnixStream::connect(socket(state)).await?;
    let mut lines = BufReader::new(stream).lines();
    let mut byte = [0; 1];
    let told_to_end = input.read(&mut byte);
    tokio::pin!(told_to_end);
    loop {
        let line = tokio::select! {
            line = lines.next_line() => line?,
            _ = &mut told_to_end => return Ok(()),
        };
        let Some(line) = line else { return Ok(()) };
        writeln!(output, "{line}")?;
        output.flush()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_is_told_the_newest_status_and_each_that_differs() {
        let folder = tempfile::tempdir().unwrap();
        let status = |generation| Status {
            gateway: GatewayKind::ALL[0],
            version: "1".to_owned(),
            generation,
            applied: BTreeMap::new(),
            last_error: None,
        };
        // As a container left it that was killed.
        drop(std::os::unix::net::UnixListener::bind(socket(folder.path())).unwrap());
        let board = Board::open(folder.path()).unwrap();
        board.tell(&status(1)).unwrap();
        board.tell(&status(2)).unwrap();
        let (input, told_to_end) = tokio::io::duplex(1);
        let (reading, mut output) = std::io::pipe().unwrap();
        let state = folder.path().to_owned();
        let following = tokio::spawn(async move { follow(&state, input, &mut output).await });
        let mut lines = BufReader::new(tokio::net::unix::pipe::Receiver::from_owned_fd(reading.into()).unwrap()).lines();
        let mut next = async || {
            let line = tokio::time::timeout(std::time::Duration::from_secs(20), lines.next_line()).await.expect("a line in time");
            serde_json::from_str::<Status>(&line.unwrap().unwrap()).unwrap()
        };
        assert_eq!(next().await, status(2));
        board.tell(&status(2)).unwrap();
        board.tell(&status(3)).unwrap();
        assert_eq!(next().await, status(3));
        let kept: Status = serde_json::from_str(&std::fs::read_to_string(path(folder.path())).unwrap()).unwrap();
        assert_eq!(kept, status(3));
        drop(told_to_end);
        following.await.unwrap().unwrap();
    }
}
