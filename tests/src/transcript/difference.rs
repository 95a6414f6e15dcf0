//! Two transcripts of the same script, side by side.

use super::Entry;

/// The commands whose outputs differ, lines of the first marked by `-`, of the second by `+`; empty when none does.
pub fn difference(first: &[Entry], second: &[Entry]) -> String {
    let mut text = String::new();
    for (one, other) in first.iter().zip(second) {
        if one == other {
            continue;
        }
        text.push_str(&format!("$ {}\n", one.command));
        text.push_str(&lines(&one.output, &other.output));
        text.push('\n');
    }
    if first.len() != second.len() {
        text.push_str(&format!("the first has {} commands, the second {}\n", first.len(), second.len()));
    }
    text
}

/// By the longest common subsequence of lines.
fn lines(first: &str, second: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (first.lines().collect(), second.lines().collect());
    let mut longest = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            longest[i][j] = if a[i] == b[j] { longest[i + 1][j + 1] + 1 } else { longest[i + 1][j].max(longest[i][j + 1]) };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut text = String::new();
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            text.push_str(&format!("  {}\n", a[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == b.len() || i < a.len() && longest[i + 1][j] >= longest[i][j + 1] {
            text.push_str(&format!("- {}\n", a[i]));
            i += 1;
        } else {
            text.push_str(&format!("+ {}\n", b[j]));
            j += 1;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_shown() {
        let entry = |command: &str, output: &str| Entry { command: command.to_owned(), output: output.to_owned() };
        let first = [entry("one", "a\nb\nc\n"), entry("two", "same\n")];
        let second = [entry("one", "a\nx\nc\n"), entry("two", "same\n")];
        assert_eq!(difference(&first, &second), "$ one\n  a\n- b\n+ x\n  c\n\n");
        assert_eq!(difference(&first, &first), "");
    }
}
