//! Running a program with a bound. It gets a process group of its own: Ctrl-C in a terminal goes to the whole foreground group, and
//! kind killed half-way by it would leave more behind than this program knows of.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

use super::error::{KindError, tail};

/// What a program that has ended said.
#[derive(Debug)]
pub struct Said {
    pub success: bool,
    /// As in `exit status: 1`.
    pub status: String,
    pub output: String,
    pub errors: String,
}

impl Said {
    /// # Errors
    /// When the program failed.
    pub fn checked(self, what: &str) -> Result<String, KindError> {
        if self.success {
            return Ok(self.output);
        }
        let detail = if self.errors.trim().is_empty() { tail(&self.output) } else { tail(&self.errors) };
        Err(KindError::Failed { what: what.to_owned(), status: self.status, detail })
    }
}

/// Ends the process group when the wait for it is given up.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// Runs a program to its end; `line` sees every line of its standard error as it comes. Dropping the future kills the program and
/// what it has started.
///
/// # Errors
/// When it cannot be started, or runs for longer than `within`.
pub async fn run(
    program: &Path,
    arguments: &[&str],
    environment: &[(String, String)],
    within: Duration,
    mut line: impl FnMut(&str),
) -> Result<Said, KindError> {
    let what = || format!("`{} {}`", program.file_name().unwrap_or(OsStr::new("?")).display(), arguments.join(" "));
    let unstartable = |error: std::io::Error| KindError::Failed { what: what(), status: "not started".into(), detail: error.to_string() };
    let mut command = Command::new(program);
    command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    let mut child = command.spawn().map_err(unstartable)?;
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
    let (mut stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let talk = async {
        let mut output = Vec::new();
        let mut errors = String::new();
        let reading = async {
            if let Some(stdout) = stdout.as_mut() {
                let _ = stdout.read_to_end(&mut output).await;
            }
        };
        let listening = async {
            let Some(stderr) = stderr else { return };
            let mut lines = BufReader::new(stderr).lines();
            while let Ok(Some(text)) = lines.next_line().await {
                line(&text);
                errors.push_str(&text);
                errors.push('\n');
            }
        };
        tokio::join!(reading, listening);
        let status = child.wait().await;
        (status, String::from_utf8_lossy(&output).into_owned(), errors)
    };
    let ended = tokio::time::timeout(within, talk).await;
    let (status, output, errors) = ended.map_err(|_| KindError::TooLong { what: what(), waited: within })?;
    group.0 = None;
    let status = status.map_err(unstartable)?;
    Ok(Said { success: status.success(), status: status.to_string(), output, errors })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    async fn shell(script: &str, within: Duration) -> (Result<Said, KindError>, Vec<String>) {
        let mut lines = Vec::new();
        let said =
            run(Path::new("/bin/sh"), &["-c", script], &[("GREETING".into(), "hello".into())], within, |line| lines.push(line.to_owned()))
                .await;
        (said, lines)
    }

    #[tokio::test]
    async fn output_status_and_progress_come_through() {
        let (said, lines) = shell("echo $GREETING; echo step >&2; exit 3", Duration::from_secs(60)).await;
        let said = said.unwrap();
        assert_eq!((said.output.as_str(), said.success, lines), ("hello\n", false, vec!["step".to_owned()]));
        let error = said.checked("greeting").unwrap_err().to_string();
        assert!(error.contains("greeting failed (exit status: 3): step"), "{error}");
    }

    #[tokio::test]
    async fn what_takes_too_long_is_ended_with_all_that_it_started() {
        let begun = Instant::now();
        let (said, lines) = shell("sleep 600 & echo $! >&2; wait", Duration::from_millis(500)).await;
        assert!(matches!(said, Err(KindError::TooLong { .. })), "{said:?}");
        assert!(begun.elapsed() < Duration::from_secs(300));
        let grandchild = Pid::from_raw(lines[0].parse().unwrap());
        // Killed, it may still be a zombie for a moment where nobody reaps orphans.
        let gone = || {
            let state = std::fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
            state.is_empty() || state.contains(") Z ") || state.contains(") X ")
        };
        while !gone() {
            assert!(begun.elapsed() < Duration::from_secs(60), "process {grandchild} lives on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_told() {
        let error = run(Path::new("/no/such/kind"), &["version"], &[], Duration::from_secs(5), |_| ()).await.unwrap_err();
        assert!(error.to_string().contains("`kind version` failed (not started)"), "{error}");
    }
}
