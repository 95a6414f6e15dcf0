//! Running package clients: output kept for error messages, arrival of bytes reported while they run.

use std::{
    fs, io,
    path::Path,
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use super::FetchError;

/// What a command left behind.
#[derive(Debug)]
pub(super) struct Finished {
    pub status: ExitStatus,
    /// Standard output and standard error, as they came.
    pub output: String,
}

impl Finished {
    /// The last lines of what it said, for an error message.
    pub fn tail(&self) -> String {
        let lines: Vec<&str> = self.output.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(12)..].iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
    }

    pub fn says(&self, any_of: &[&str]) -> bool {
        any_of.iter().any(|text| self.output.contains(text))
    }
}

/// Runs a command to its end. Its output goes through a file in `folder`, so that no pipe can fill up; `poll` is called some ten times
/// a second.
pub(super) fn run(command: &mut Command, folder: &Path, poll: &dyn Fn()) -> Result<Finished, FetchError> {
    let log_path = folder.join("command.log");
    let log = fs::File::create(&log_path).map_err(FetchError::file("write", &log_path))?;
    let log_again = log.try_clone().map_err(FetchError::file("write", &log_path))?;
    let program = command.get_program().to_owned();
    end_with_this_thread(command);
    let mut child = command
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(log_again)
        .spawn()
        .map_err(FetchError::file("start", Path::new(&program)))?;
    let (sender, receiver) = mpsc::channel();
    let waiter = thread::spawn(move || {
        // A lost receiver means that nobody waits any more.
        let _ = sender.send(child.wait());
    });
    let status = loop {
        match receiver.recv_timeout(Duration::from_millis(100)) {
            Ok(status) => break status.map_err(FetchError::file("wait for", Path::new(&program)))?,
            Err(mpsc::RecvTimeoutError::Timeout) => poll(),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(FetchError::file("wait for", Path::new(&program))(io::ErrorKind::BrokenPipe.into()));
            }
        }
    };
    // It has sent already, so it ends at once.
    let _ = waiter.join();
    let output = String::from_utf8_lossy(&fs::read(&log_path).map_err(FetchError::file("read", &log_path))?).into_owned();
    let finished = Finished { status, output };
    if !status.success() && finished.says(&["No space left on device", "Disk quota exceeded", "not enough free space"]) {
        return Err(FetchError::DiskFull { path: folder.to_owned() });
    }
    Ok(finished)
}

/// The kernel ends the package client when the thread that waits for it is gone (prctl(2), PR_SET_PDEATHSIG), so that nothing is left
/// behind by a killed process.
fn end_with_this_thread(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    let set = || Ok(nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?);
    // SAFETY: between fork and exec only async-signal-safe functions may be called; prctl is a plain system call.
    unsafe { command.pre_exec(set) };
}

/// Like [`run`], where anything but success is an error.
pub(super) fn run_checked(command: &mut Command, folder: &Path, poll: &dyn Fn()) -> Result<Finished, FetchError> {
    let finished = run(command, folder, poll)?;
    if finished.status.success() {
        return Ok(finished);
    }
    Err(FetchError::CommandFailed { command: describe(command), status: finished.status.to_string(), output: finished.tail() })
}

/// The command as a person would type it.
pub(super) fn describe(command: &Command) -> String {
    std::iter::once(command.get_program()).chain(command.get_args()).map(|part| part.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Finds a program on PATH or in the folders where distributions put administrators' programs, which an ordinary user's PATH lacks.
pub(crate) fn locate(program: &str) -> Option<std::path::PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        // The last are where a container of the lab sees an unpacked gateway (`CONTAINER_ROOT`).
        .chain(
            [
                "/usr/local/sbin",
                "/usr/sbin",
                "/sbin",
                "/usr/local/bin",
                "/usr/bin",
                "/opt/gateway/usr/bin",
                "/opt/gateway/bin",
                "/opt/gateway",
            ]
            .map(Into::into),
        )
        .map(|folder| folder.join(program))
        .find(|file| fs::metadata(file).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0))
}

/// Bytes in all files under a folder; 0 for what cannot be read (a client may rename files meanwhile).
pub(super) fn size_of(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => size_of(&entry.path()),
            Ok(data) => data.len(),
            Err(_) => 0,
        })
        .sum()
}
