//! The process of a gateway, and asking it something.

use std::{io, path::Path};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    process::Child,
};

use super::{ApplyError, GatewayError};

/// A gateway's process, once there is one.
#[derive(Debug)]
pub(crate) struct Process {
    /// As its makers write it.
    gateway: &'static str,
    child: Option<Child>,
}

impl Process {
    pub fn none(gateway: &'static str) -> Self {
        Self { gateway, child: None }
    }

    pub fn is_started(&self) -> bool {
        self.child.is_some()
    }

    pub fn started(&mut self, child: Child) {
        self.child = Some(child);
    }

    /// `None` when there is none, or it has ended.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// One that is gone, or was never there, has nothing to be told.
    pub fn signal(&self, signal: Signal) -> Result<(), String> {
        let Some(pid) = self.id() else { return Ok(()) };
        let pid = i32::try_from(pid).map_err(|error| error.to_string())?;
        kill(Pid::from_raw(pid), signal).map_err(|errno| format!("cannot send {signal} to {}: {errno}", self.gateway))
    }

    /// An error when it has ended.
    pub fn check_alive(&mut self) -> Result<(), ApplyError> {
        match self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
            Some(status) => Err(ApplyError::Internal(format!("{} ended with {status}", self.gateway))),
            None => Ok(()),
        }
    }

    /// Returns when it has ended by itself; never where there is none. Cancel-safe.
    pub async fn ended(&mut self) -> GatewayError {
        match &mut self.child {
            Some(child) => GatewayError::from_exit(child.wait().await),
            None => std::future::pending().await,
        }
    }

    /// Tells it to end, and returns when it is gone.
    pub async fn quit(&mut self, signal: Signal) {
        // It may be gone already.
        let _ = self.signal(signal);
        self.wait().await;
    }

    /// Returns when it is gone, at once where there is none. Cancel-safe.
    pub async fn wait(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.wait().await;
            self.child = None;
        }
    }
}

/// One request (HTTP/1.0, or a command) over a Unix socket, and all that comes back.
pub(crate) async fn ask(socket: &Path, request: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_told_to_end_and_waited_for() {
        let mut process = Process::none("Sleep");
        process.quit(Signal::SIGTERM).await;
        assert!(!process.is_started() && process.check_alive().is_ok() && process.signal(Signal::SIGTERM).is_ok());
        process.started(tokio::process::Command::new("sleep").arg("60").kill_on_drop(true).spawn().unwrap());
        process.check_alive().unwrap();
        process.signal(Signal::SIGTERM).unwrap();
        assert!(process.ended().await.to_string().contains("signal: 15"));
        assert!(matches!(process.check_alive(), Err(ApplyError::Internal(reason)) if reason.contains("Sleep ended with")));
        process.wait().await;
        assert!(!process.is_started());
    }
}
