//! Finds the processes of a lab from outside, without asking the lab.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Environment variable that a launcher under test and everything that inherits from it has.
const MARK: &str = "GATELAB_TEST_MARK";

/// One launcher under test.
pub struct Tree {
    pub launcher: Child,
    mark: String,
    /// User namespaces its processes were seen in, besides this test's own: containers inherit no environment, but they
    /// are in their lab's namespace.
    namespaces: BTreeSet<String>,
}

impl Tree {
    pub fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mark = format!("{:032x}", rand::random::<u128>());
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(arguments).env(MARK, &mark).stdout(Stdio::piped()).stderr(Stdio::null());
        command.envs(environment.iter().copied()).env_remove("XDG_RUNTIME_DIR");
        Self { launcher: command.spawn().unwrap(), mark, namespaces: BTreeSet::new() }
    }

    /// Living processes of the lab and its launcher.
    pub fn alive(&mut self) -> Vec<String> {
        let own = user_namespace("self");
        let mark = format!("{MARK}={}", self.mark);
        let mut alive = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let pid = entry.file_name().to_string_lossy().into_owned();
            if pid.bytes().any(|byte| !byte.is_ascii_digit()) || is_dead(&pid) {
                continue;
            }
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let marked = environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes());
            let Some(namespace) = user_namespace(&pid) else { continue };
            if marked && Some(&namespace) != own.as_ref() {
                self.namespaces.insert(namespace.clone());
            }
            if marked || self.namespaces.contains(&namespace) {
                let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
                alive.push(format!("{pid} {command}"));
            }
        }
        alive
    }

    /// Whether all is gone within a second; otherwise what is not.
    pub fn gone_within_a_second(&mut self) -> Result<(), Vec<String>> {
        let bound = Instant::now() + Duration::from_secs(1);
        loop {
            let alive = self.alive();
            if alive.is_empty() {
                return Ok(());
            }
            if Instant::now() > bound {
                return Err(alive);
            }
        }
    }

    pub fn kill(&mut self) {
        self.launcher.kill().unwrap();
        self.launcher.wait().unwrap();
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = self.launcher.kill();
        let _ = self.launcher.wait();
    }
}

fn user_namespace(pid: &str) -> Option<String> {
    fs::read_link(format!("/proc/{pid}/ns/user")).ok().map(|link| link.to_string_lossy().into_owned())
}

/// A zombie holds nothing but its number until its parent looks.
fn is_dead(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}
