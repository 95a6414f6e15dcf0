//! The last step of starting a process: find the command as a container runtime does, and become it.

use std::ffi::CString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::errno::Errno;

use super::order::{Failure, ProcessOrder};

/// PATH where neither the image nor the pod sets one.
pub(in crate::runtime) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Replaces this process; only comes back with the reason why not, worded as runc words it.
pub(super) fn execute(process: &ProcessOrder) -> Failure {
    let text = |text: &str| CString::new(text).map_err(|_| Failure::Command { detail: "it holds a NUL byte".to_owned() });
    let prepared = (|| {
        let name = process.command.first().ok_or_else(|| Failure::Command { detail: "no command specified".to_owned() })?;
        let path = find(name, &process.env)?;
        let arguments = process.command.iter().map(|a| text(a)).collect::<Result<Vec<_>, _>>()?;
        let environment = process.env.iter().map(|(name, value)| text(&format!("{name}={value}"))).collect::<Result<Vec<_>, _>>()?;
        Ok((text(&path)?, arguments, environment))
    })();
    match prepared {
        Err(failure) => failure,
        Ok((path, arguments, environment)) => match nix::unistd::execve(&path, &arguments, &environment) {
            Err(Errno::ENOEXEC) => Failure::Command { detail: "exec format error".to_owned() },
            Err(errno) => Failure::Command { detail: errno.desc().to_lowercase() },
        },
    }
}

fn find(name: &str, env: &[(String, String)]) -> Result<String, Failure> {
    if name.contains('/') {
        return match std::fs::metadata(name) {
            Err(error) => Err(Failure::Command { detail: format!("stat {name}: {}", reason(&error)) }),
            Ok(meta) if meta.is_dir() => Err(Failure::Command { detail: "is a directory".to_owned() }),
            Ok(meta) if meta.permissions().mode() & 0o111 == 0 => Err(Failure::Command { detail: "permission denied".to_owned() }),
            Ok(_) => Ok(name.to_owned()),
        };
    }
    let path = env.iter().rev().find(|(name, _)| name == "PATH").map_or(DEFAULT_PATH, |(_, value)| value);
    path.split(':')
        .map(|folder| Path::new(if folder.is_empty() { "." } else { folder }).join(name))
        .find(|candidate| std::fs::metadata(candidate).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0))
        .map(|found| found.to_string_lossy().into_owned())
        .ok_or_else(|| Failure::Command { detail: "executable file not found in $PATH".to_owned() })
}

fn reason(error: &std::io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |code| Errno::from_raw(code).desc().to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(name: &str, env: &[(&str, &str)]) -> String {
        let env: Vec<_> = env.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        match find(name, &env) {
            Ok(path) => path,
            Err(Failure::Command { detail } | Failure::System { detail, .. }) => detail,
        }
    }

    #[test]
    fn refusals_read_as_runc_words_them() {
        assert_eq!(failure("no-such-tool", &[]), "executable file not found in $PATH");
        assert_eq!(failure("/no/such", &[]), "stat /no/such: no such file or directory");
        assert_eq!(failure("/etc/passwd", &[]), "permission denied");
        assert_eq!(failure("/etc", &[]), "is a directory");
    }

    #[test]
    fn the_last_path_counts() {
        assert_eq!(failure("sh", &[("PATH", "/nowhere"), ("PATH", "/bin")]), "/bin/sh");
        assert_eq!(failure("sh", &[("PATH", "/nowhere")]), "executable file not found in $PATH");
    }
}
