//! `docs/walkthrough.md`, run as it stands: each command of its transcripts, in order, and what it says that they print.

#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "a test fails by panicking, and has a thread to itself")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use gatelab_tests::{Home, gatelab_path, skipped};

const DOCUMENT: &str = include_str!("../../docs/walkthrough.md");

/// For what follows a change: endpoints, the gateway's configuration, pods that start.
const PATIENCE: Duration = Duration::from_secs(60);

struct Step {
    command: String,
    expected: Vec<String>,
}

/// The sections of the document with the commands in their `console` blocks.
fn sections(document: &str) -> Vec<(String, Vec<Step>)> {
    let mut sections: Vec<(String, Vec<Step>)> = Vec::new();
    let mut in_transcript = false;
    for line in document.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            sections.push((title.to_owned(), Vec::new()));
        } else if line.starts_with("```") {
            in_transcript = line == "```console";
        } else if in_transcript && let Some((_, steps)) = sections.last_mut() {
            match line.strip_prefix("$ ") {
                Some(command) => steps.push(Step { command: command.to_owned(), expected: Vec::new() }),
                None => steps.last_mut().expect("a transcript begins with a command").expected.push(line.to_owned()),
            }
        }
    }
    sections
}

/// Whether a line of output is what the document shows; leading blanks do not count.
fn matches(shown: &str, printed: &str) -> bool {
    let (mut parts, mut rest) = (shown.trim().split('…'), printed.trim());
    let first = parts.next().unwrap_or_default();
    let Some(after) = rest.strip_prefix(first) else { return false };
    rest = after;
    let parts: Vec<&str> = parts.collect();
    for (index, part) in parts.iter().enumerate() {
        if index + 1 == parts.len() {
            return rest.ends_with(part.trim_end());
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

/// The first shown line that the output does not have behind those before it.
fn missing<'a>(expected: &'a [String], output: &str) -> Option<&'a str> {
    let mut lines = output.lines();
    expected.iter().find(|shown| !lines.any(|printed| matches(shown, printed))).map(String::as_str)
}

/// Commands that may be given again until what they look at has come about.
fn only_looks(command: &str) -> bool {
    let changes = ["patch", "edit", "apply", "annotate", "restart", " run ", "gatelab up", "gatelab down", "export"];
    !changes.iter().any(|word| command.contains(word))
}

struct Shell {
    home: Home,
    environment: BTreeMap<String, String>,
}

impl Shell {
    fn new() -> Self {
        let home = Home::new();
        let folder = gatelab_path().parent().map(Path::to_owned).expect("a folder");
        let path = std::env::var("PATH").unwrap_or_default();
        let environment = BTreeMap::from([("PATH".to_owned(), format!("{}:{path}", folder.display()))]);
        Self { home, environment }
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).envs(&self.environment).env("NO_COLOR", "1");
        command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        for name in ["XDG_RUNTIME_DIR", "TMPDIR", "HOME"] {
            command.env(name, self.home.path());
        }
        // The gateways stay in the user's cache.
        if let Some(user) = std::env::var_os("HOME").filter(|_| std::env::var_os("GATELAB_CACHE").is_none()) {
            let own = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| Path::new(&user).join(".cache"), Into::into);
            command.env("GATELAB_CACHE", own.join("gatelab"));
        }
        command
    }

    /// Runs a command as the document has it; both streams, and whether it succeeded.
    fn run(&mut self, command: &str) -> (bool, String) {
        if let Some((name, value)) = command.strip_prefix("export ").and_then(|rest| rest.split_once('=')) {
            let output = self.command(&format!("printf %s \"{value}\"")).output().expect("sh starts");
            let value = String::from_utf8_lossy(&output.stdout).into_owned();
            self.environment.insert(name.to_owned(), value.clone());
            return (output.status.success() && !value.is_empty(), String::new());
        }
        let output = self.command(&format!("{{ {command}\n}} 2>&1")).output().expect("sh starts");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.command("gatelab down --all").output();
    }
}

fn walk(number: usize) {
    if Command::new("kubectl").args(["version", "--client"]).output().is_err() {
        skipped("there is no kubectl on PATH");
        return;
    }
    let (title, steps) = sections(DOCUMENT).swap_remove(number - 1);
    assert!(steps.len() > 5, "{title} has commands");
    let mut shell = Shell::new();
    for Step { command, expected } in &steps {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (succeeded, output) = shell.run(command);
            let missing = missing(expected, &output);
            // `status` says red by its exit code.
            if missing.is_none() && (succeeded || command.starts_with("gatelab status")) {
                break;
            }
            let again = only_looks(command) && Instant::now() < deadline;
            assert!(again, "{title}\n$ {command}\nsucceeded: {succeeded}, missing: {missing:?} in\n{output}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

#[test]
fn one_wrong_target_port() {
    walk(1);
}

#[test]
fn two_selector() {
    walk(2);
}

#[test]
fn three_policy() {
    walk(3);
}

#[test]
fn four_tls() {
    walk(4);
}

#[test]
fn five_slow() {
    walk(5);
}

#[test]
fn six_starved() {
    walk(6);
}

#[test]
fn lines_match_with_gaps_and_in_order() {
    assert!(matches("red    home  …502…", "red    home  GET http://shop.test/  5 x 502  (slowest 0 ms)"));
    assert!(!matches("green  home  …502…", "red    home  GET http://shop.test/  5 x 502"));
    assert!(matches("shop", "  shop") && !matches("shop", "shop-1") && matches("shop-…", "shop-1") && matches("…a…", "bab"));
    let expected = ["one".to_owned(), "two…".to_owned()];
    assert_eq!(missing(&expected, "zero\none\ntwo and a half\n"), None);
    assert_eq!(missing(&expected, "two\none\n"), Some("two…"));
}

#[test]
fn the_document_has_six_faults_of_different_kinds() {
    let sections = sections(DOCUMENT);
    assert_eq!(sections.len(), 6);
    let ids: std::collections::BTreeSet<String> =
        sections.iter().map(|(_, steps)| steps[0].command.split_whitespace().nth(2).expect("a scenario").to_owned()).collect();
    assert_eq!(ids.len(), 6);
    for (title, steps) in &sections {
        let is_green =
            |step: &Step| step.command.starts_with("gatelab status") && step.expected.iter().any(|line| line.starts_with("green"));
        assert!(steps.iter().any(is_green), "{title} ends green");
    }
}
