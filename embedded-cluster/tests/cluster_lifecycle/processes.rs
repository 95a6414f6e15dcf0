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
    /// Pid and start time of what was seen to be its own: an ending process has no environment any more, long before it lets
    /// go of its files (`exit_mm` comes before `exit_files`), and where root makes labs there is no user namespace to tell.
    seen: BTreeSet<(String, String)>,
}

impl Tree {
    pub fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mark = format!("{:032x}", rand::random::<u128>());
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(arguments).env(MARK, &mark).stdout(Stdio::piped()).stderr(Stdio::null());
        command.envs(environment.iter().copied()).env_remove("XDG_RUNTIME_DIR");
        Self { launcher: command.spawn().unwrap(), mark, namespaces: BTreeSet::new(), seen: BTreeSet::new() }
    }

    /// Living processes of the lab and its launcher.
    pub fn alive(&mut self) -> Vec<String> {
        let own = user_namespace("self");
        let mark = format!("{MARK}={}", self.mark);
        let mut alive = BTreeSet::new();
        // Children have larger numbers than their parents, but for the moment when numbers start again from below.
        for process in processes() {
            let environment = fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
            let marked = environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes());
            let Some(namespace) = user_namespace(&process.pid) else { continue };
            if marked && Some(&namespace) != own.as_ref() {
                self.namespaces.insert(namespace.clone());
            }
            let identity = (process.pid.clone(), process.start_time);
            let below = alive.contains(&process.parent);
            if marked || below || self.namespaces.contains(&namespace) || self.seen.contains(&identity) {
                self.seen.insert(identity);
                alive.insert(process.pid);
            }
        }
        let command = |pid: &String| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
        alive.iter().map(|pid| format!("{pid} {}", command(pid))).collect()
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

    /// Kills the launcher, having looked who is there.
    pub fn kill(&mut self) {
        self.alive();
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

struct Process {
    pid: String,
    parent: String,
    start_time: String,
}

/// Without the dead: a zombie holds nothing but its number until its parent looks, unless it is the first of several
/// threads, which shows as a zombie while the others still run.
fn processes() -> Vec<Process> {
    let mut numbers: Vec<u32> =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    let read = |number: &u32| {
        let pid = number.to_string();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split_ascii_whitespace().collect();
        let is_dead = matches!(fields[0], "Z" | "X") && fields[17].parse::<u32>().is_ok_and(|threads| threads <= 1);
        (!is_dead).then(|| Process { pid, parent: fields[1].to_owned(), start_time: fields[19].to_owned() })
    };
    numbers.iter().filter_map(read).collect()
}
