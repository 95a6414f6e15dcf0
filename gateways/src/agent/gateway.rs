//! What a gateway must be able to do so that the agent can run it.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use async_trait::async_trait;
use tokio::process::{Child, Command};

use crate::model::Model;

/// Generated files by their name in the state folder.
pub type Files = BTreeMap<PathBuf, String>;

/// A gateway's binary as the agent's arguments name it.
#[derive(Debug, Clone)]
pub(crate) struct Binary {
    pub path: PathBuf,
    /// Value for `LD_LIBRARY_PATH`.
    pub library_path: Option<OsString>,
    /// Where the gateway's own output goes; `None`: where the agent's goes, the pod's log.
    pub output: Option<PathBuf>,
}

/// Why a configuration is not the running one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApplyError {
    /// The gateway refused it; the old one keeps running.
    #[error("{0}")]
    Rejected(String),
    /// Something else failed.
    #[error("{0}")]
    Internal(String),
    /// The gateway runs and follows the objects by itself, but is not where they are, or were when they were looked at: to be asked again.
    #[error("{0}")]
    Behind(String),
}

/// The gateway stopped, or never ran.
#[derive(Debug, thiserror::Error)]
#[error("the gateway ended by itself: {0}")]
pub struct GatewayError(String);

impl GatewayError {
    pub(crate) fn from_exit(status: io::Result<ExitStatus>) -> Self {
        Self(match status {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        })
    }
}

/// One running gateway.
#[async_trait]
pub(crate) trait Gateway: Send {
    /// The configuration for a model: pure, so that it can be compared with the running one.
    fn render(&self, model: &Model) -> Files;

    /// Makes a rendered configuration the running one (starting the gateway the first time), and returns when it is what serves.
    async fn apply(&mut self, model: &Model, files: &Files) -> Result<(), ApplyError>;

    /// Returns when the gateway has ended by itself. Cancel-safe.
    async fn ended(&mut self) -> GatewayError;

    /// Ends the gateway as its well-known controller does, and returns when it is gone.
    async fn quit(&mut self);
}

impl Binary {
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        if let Some(value) = &self.library_path {
            command.env("LD_LIBRARY_PATH", value);
        }
        command
    }

    /// Starts the gateway itself. It does not outlive the agent when that ends in good order; when not, the container's end takes both.
    pub fn spawn(&self, command: &mut Command) -> Result<Child, ApplyError> {
        let spawn = |command: &mut Command| {
            if let Some(output) = &self.output {
                let file = std::fs::File::options().create(true).append(true).open(output)?;
                command.stdout(file.try_clone()?).stderr(file);
            }
            command.stdin(Stdio::null()).kill_on_drop(true).spawn()
        };
        spawn(command).map_err(|error| ApplyError::Internal(format!("cannot start {}: {error}", self.path.display())))
    }
}

/// Writes a file beside its place and renames it there: readers see the old content or the new one. The rename is also what makes Envoy
/// look at a file again.
pub(crate) fn write_atomically(path: &Path, content: &str) -> Result<(), String> {
    let write = || {
        let folder = path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        io::Write::write_all(&mut file, content.as_bytes())?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|error: io::Error| format!("cannot write {}: {error}", path.display()))
}
