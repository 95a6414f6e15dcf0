//! What is held of a transcript: all of it as one kubectl prints it, and of another kubectl what it prints otherwise.

use std::collections::BTreeSet;

use super::{Entry, Script};

/// Reads what [`super::render`] wrote, below a snapshot's header if it has one.
///
/// # Errors
/// When it is of another script: says at which command.
pub fn read(text: &str, script: &Script) -> Result<Vec<Entry>, String> {
    let body = text.strip_prefix("---\n").and_then(|text| text.split_once("\n---\n")).map_or(text, |(_, body)| body);
    let mut lines = body.trim_end().lines().peekable();
    let mut steps = script.held().peekable();
    let mut entries = Vec::new();
    while let Some(step) = steps.next() {
        for expected in format!("$ {}", step.command).lines() {
            let found = lines.next().unwrap_or_default();
            if found != expected {
                return Err(format!("it is of another script: `{found}` where `{expected}` is expected"));
            }
        }
        // The output goes on to the next command: an empty line may be part of it.
        let next = steps.peek().map(|step| format!("$ {}", step.command));
        let next = next.as_deref().and_then(|next| next.lines().next());
        let mut output = String::new();
        while let Some(line) = lines.next_if(|line| Some(*line) != next) {
            output.push_str(line);
            output.push('\n');
        }
        if next.is_some() {
            output.pop();
        }
        entries.push(Entry { command: step.command.clone(), output });
    }
    Ok(entries)
}

/// The entries of `other` that are not as in `base`, by the same script; of a command that is there twice both, if one is another.
pub fn differing(base: &[Entry], other: &[Entry]) -> Vec<Entry> {
    let commands: BTreeSet<&str> =
        base.iter().zip(other).filter(|(one, other)| one != other).map(|(_, other)| other.command.as_str()).collect();
    other.iter().filter(|entry| commands.contains(entry.command.as_str())).cloned().collect()
}

/// Reads what was written of [`differing`] entries.
///
/// # Errors
/// When it is of another script.
pub fn read_differing(text: &str, script: &Script) -> Result<Vec<Entry>, String> {
    let mut part = script.clone();
    part.steps.retain(|step| is_in(text, &step.command));
    read(text, &part)
}

/// Whether the command is one of those that were written.
pub fn is_in(text: &str, command: &str) -> bool {
    text.contains(&format!("\n$ {command}\n"))
}

/// The whole transcript of the kubectl that differs so from `base`.
pub fn laid_over(base: &[Entry], differing: Vec<Entry>) -> Vec<Entry> {
    let mut differing = differing.into_iter().peekable();
    base.iter().map(|entry| differing.next_if(|other| other.command == entry.command).unwrap_or_else(|| entry.clone())).collect()
}

/// The last line of an output, if it tells an exit code.
fn exit(entry: &Entry) -> Option<&str> {
    entry
        .output
        .lines()
        .last()
        .filter(|line| *line == "killed" || line.strip_prefix("exit ").is_some_and(|code| code.parse::<i32>().is_ok()))
}

/// Commands that end with another exit code than in `base`.
pub fn other_exits<'a>(base: &[Entry], other: &'a [Entry]) -> Vec<&'a Entry> {
    base.iter().zip(other).filter(|(one, other)| exit(one) != exit(other)).map(|(_, other)| other).collect()
}

#[cfg(test)]
mod tests {
    use super::super::render;
    use super::*;

    fn entry(command: &str, output: &str) -> Entry {
        Entry { command: command.to_owned(), output: output.to_owned() }
    }

    #[test]
    fn what_was_written_is_read() {
        let script = Script::parse("$ kubectl one\n~ kubectl unheld\n$ kubectl two\n  more\n$ kubectl three\n", &[]).expect("a script");
        let entries = [entry("kubectl one", "a\n\nb\n"), entry("kubectl two\n  more", ""), entry("kubectl three", "! no\nexit 1\n")];
        assert_eq!(read(&render(&entries), &script).as_deref(), Ok(&entries[..]));
        // As insta keeps it.
        let kept = format!("---\nsource: x\n---\n{}", render(&entries).trim_end());
        assert_eq!(read(&kept, &script).as_deref(), Ok(&entries[..]));
        let other = Script::parse("$ kubectl one\n$ kubectl 2\n", &[]).expect("a script");
        assert!(read(&kept, &other).expect_err("another script").contains("kubectl 2"));
    }

    #[test]
    fn differences_are_laid_over_what_they_differ_from() {
        let script = Script::parse("$ a\n$ twice\n$ b\n$ twice\n", &[]).expect("a script");
        let base = [entry("a", "1\n"), entry("twice", "2\n"), entry("b", ""), entry("twice", "3\n")];
        let other = [entry("a", "1\n"), entry("twice", "2\n"), entry("b", ""), entry("twice", "4\n")];
        let differing = differing(&base, &other);
        assert_eq!(differing, [other[1].clone(), other[3].clone()]);
        let written = format!("---\nsource: x\n---\n{}", render(&differing));
        let read = read_differing(&written, &script).expect("of the script");
        assert_eq!(laid_over(&base, read), other);
    }

    #[test]
    fn exits_are_compared_apart_from_words() {
        let base = [entry("a", "x\n"), entry("b", "! no\nexit 1\n"), entry("c", "x\n")];
        let other = [entry("a", "y\n"), entry("b", "! not\nexit 1\n"), entry("c", "! what\nexit 2\n")];
        assert_eq!(differing(&base, &other), other);
        assert_eq!(other_exits(&base, &other), [&other[2]]);
    }
}
