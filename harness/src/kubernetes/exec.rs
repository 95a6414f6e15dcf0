//! Running a command in a container of a pod, over the WebSocket protocol of `kubectl exec`.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use super::client::{Kubernetes, KubernetesError};

/// Output waits here when nobody reads; kube's default of 1 KiB makes a round trip of every line.
const OUTPUT_BUFFER: usize = 256 * 1024;

/// Where a command runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecTarget {
    pub namespace: String,
    pub pod: String,
    pub container: Option<String>,
}

impl std::fmt::Display for ExecTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pod {}/{}", self.namespace, self.pod)?;
        match &self.container {
            Some(container) => write!(f, " ({container})"),
            None => Ok(()),
        }
    }
}

/// What a finished command left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutput {
    pub stdout: String,
    pub stderr: String,
    pub exit_code: i32,
}

/// A command under way; dropping it ends the command.
pub struct Running {
    process: AttachedProcess,
    stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    lines: tokio::io::Lines<BufReader<Box<dyn tokio::io::AsyncRead + Send + Unpin>>>,
    stderr: tokio::task::JoinHandle<String>,
    command: String,
    target: ExecTarget,
}

impl Kubernetes {
    /// Starts a command with its standard input open.
    pub async fn start(&self, target: &ExecTarget, command: &[&str]) -> Result<Running, KubernetesError> {
        let params = AttachParams {
            container: target.container.clone(),
            stdin: true,
            stdout: true,
            stderr: true,
            tty: false,
            max_stdin_buf_size: Some(OUTPUT_BUFFER),
            max_stdout_buf_size: Some(OUTPUT_BUFFER),
            max_stderr_buf_size: Some(OUTPUT_BUFFER),
        };
        let api: Api<Pod> = Api::namespaced(self.client().clone(), &target.namespace);
        let shown = command.join(" ");
        let mut process =
            self.bounded(format!("running `{shown}` in {target}"), api.exec(&target.pod, command.iter().copied(), &params)).await?;
        let lost = || KubernetesError::Exec { command: shown.clone(), pod: target.to_string(), detail: "no streams were attached".into() };
        let stdin = process.stdin().ok_or_else(lost)?;
        let stdout: Box<dyn tokio::io::AsyncRead + Send + Unpin> = Box::new(process.stdout().ok_or_else(lost)?);
        let mut errors = process.stderr().ok_or_else(lost)?;
        let stderr = tokio::spawn(async move {
            let mut text = Vec::new();
            let _ = errors.read_to_end(&mut text).await;
            String::from_utf8_lossy(&text).into_owned()
        });
        Ok(Running {
            process,
            stdin: Some(Box::new(stdin)),
            lines: BufReader::new(stdout).lines(),
            stderr,
            command: shown,
            target: target.clone(),
        })
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// `NotReached` when it takes longer than `within`; a failing command is no error, look at its exit code.
    pub async fn run(&self, target: &ExecTarget, command: &[&str], within: Duration) -> Result<ExecOutput, KubernetesError> {
        let work = async {
            let mut running = self.start(target, command).await?;
            running.close_input();
            let mut stdout = String::new();
            while let Some(line) = running.next_line().await? {
                stdout.push_str(&line);
                stdout.push('\n');
            }
            let (exit_code, stderr) = running.finish().await?;
            Ok(ExecOutput { stdout, stderr, exit_code })
        };
        match tokio::time::timeout(within, work).await {
            Ok(result) => result,
            Err(_) => Err(KubernetesError::NotReached {
                what: format!("the end of `{}` in {target}", command.join(" ")),
                waited: within,
                last: "it still ran".into(),
            }),
        }
    }

    /// As [`Kubernetes::run`], but a command that fails is an error with what it wrote to standard error.
    pub async fn run_checked(&self, target: &ExecTarget, command: &[&str], within: Duration) -> Result<String, KubernetesError> {
        let output = self.run(target, command, within).await?;
        if output.exit_code == 0 {
            return Ok(output.stdout);
        }
        Err(KubernetesError::Exec {
            command: command.join(" "),
            pod: target.to_string(),
            detail: format!("exit code {}: {}", output.exit_code, output.stderr.trim()),
        })
    }
}

impl Running {
    pub async fn write_line(&mut self, line: &str) -> Result<(), KubernetesError> {
        let failed = |detail: String| KubernetesError::Exec { command: self.command.clone(), pod: self.target.to_string(), detail };
        let Some(stdin) = &mut self.stdin else { return Err(failed("its standard input is closed".into())) };
        let text = format!("{line}\n");
        let written = async {
            stdin.write_all(text.as_bytes()).await?;
            stdin.flush().await
        };
        written.await.map_err(|error: std::io::Error| failed(format!("writing to its standard input: {error}")))
    }

    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    /// `None` at the end of its output. Safe to cancel.
    pub async fn next_line(&mut self) -> Result<Option<String>, KubernetesError> {
        self.lines.next_line().await.map_err(|error| KubernetesError::Exec {
            command: self.command.clone(),
            pod: self.target.to_string(),
            detail: format!("reading its output: {error}"),
        })
    }

    /// Exit code and standard error, once the command has ended.
    pub async fn finish(mut self) -> Result<(i32, String), KubernetesError> {
        let failed = |detail: String| KubernetesError::Exec { command: self.command.clone(), pod: self.target.to_string(), detail };
        let status = match self.process.take_status() {
            Some(status) => status.await,
            None => None,
        };
        let code = exit_code(status.as_ref()).ok_or_else(|| failed("the connection ended before the command did".into()))?;
        let stderr = (&mut self.stderr).await.unwrap_or_default();
        Ok((code, stderr))
    }
}

/// remotecommand's status: `Success`, or `Failure` with reason `NonZeroExitCode` and the code among its causes.
fn exit_code(status: Option<&Status>) -> Option<i32> {
    let status = status?;
    if status.status.as_deref() == Some("Success") {
        return Some(0);
    }
    let causes = status.details.as_ref()?.causes.as_ref()?;
    let code = causes.iter().find(|cause| cause.reason.as_deref() == Some("ExitCode"))?;
    code.message.as_ref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_come_from_the_causes() {
        let status = |text: &str| serde_json::from_str::<Status>(text).unwrap();
        assert_eq!(exit_code(Some(&status(r#"{"status":"Success"}"#))), Some(0));
        let failed = r#"{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#;
        assert_eq!(exit_code(Some(&status(failed))), Some(7));
        assert_eq!(exit_code(Some(&status(r#"{"status":"Failure","message":"container not found"}"#))), None);
        assert_eq!(exit_code(None), None);
    }
}
