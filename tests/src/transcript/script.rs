//! The file of commands.
//!
//! `$ command` is run and its output held; `~ command` prepares: it has to succeed, and its output is not held. Lines that
//! begin with a space go on with the command before. `# needs: thing` at the top of a section (a line `## title` begins one)
//! leaves the section out where the cluster under test lacks the thing. `# differs: reason` in front of a command says that
//! the embedded cluster answers otherwise than Kubernetes, and why: `docs/parity.md` lists them; `# differs later: reason`, that it does so once
//! a controller of Kubernetes has acted, which may be after the command. `# client: reason` says why one kubectl prints
//! something else than another. Other lines that begin with `#` are comments.
//! `$SCRATCH` is a folder of this run, for what one command leaves to another.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    Held,
    Prepare,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub kind: StepKind,
    /// For `sh -c`.
    pub command: String,
    /// Why the embedded cluster's output is another than Kubernetes'.
    pub differs: Option<String>,
    /// It may not differ yet when it is asked.
    pub later: bool,
    /// Why what is printed depends on kubectl's version.
    pub client: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    pub steps: Vec<Step>,
}

impl Script {
    /// # Errors
    /// The first line that is none of the above, by its number.
    pub fn parse(text: &str, lacking: &[String]) -> Result<Self, String> {
        let mut steps: Vec<Step> = Vec::new();
        let mut left_out = false;
        let (mut differs, mut later, mut client) = (None, false, None);
        for (number, line) in text.lines().enumerate() {
            if line.starts_with("## ") {
                left_out = false;
            } else if let Some(needed) = line.strip_prefix("# needs: ") {
                left_out = lacking.iter().any(|lacking| lacking == needed.trim());
            }
            if let Some(reason) = line.strip_prefix("# differs: ") {
                differs = Some(reason.trim().to_owned());
            } else if let Some(reason) = line.strip_prefix("# differs later: ") {
                (differs, later) = (Some(reason.trim().to_owned()), true);
            } else if let Some(reason) = line.strip_prefix("# client: ") {
                client = Some(reason.trim().to_owned());
            }
            if left_out || line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let kind = match line.split_at(1).0 {
                "$" => StepKind::Held,
                "~" => StepKind::Prepare,
                " " => {
                    let step = steps.last_mut().ok_or_else(|| format!("line {}: goes on with no command", number + 1))?;
                    step.command.push('\n');
                    step.command.push_str(line);
                    continue;
                }
                _ => return Err(format!("line {}: begins with none of `$`, `~`, a space, `#`", number + 1)),
            };
            let command = line[1..].trim().to_owned();
            steps.push(Step { kind, command, differs: differs.take(), later: std::mem::take(&mut later), client: client.take() });
        }
        Ok(Self { steps })
    }

    /// The commands whose output is held, in order.
    pub fn held(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| step.kind == StepKind::Held)
    }

    /// How many kubectl commands have their output held.
    pub fn invocations(&self) -> usize {
        self.held().map(|step| step.command.matches("kubectl ").count()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_that_need_what_is_lacking_are_left_out() {
        let text = "# a comment\n$ kubectl get pods\n## tools\n# needs: shell\n~ true\n$ kubectl exec p --\n  sh\n## more\n# client: new words\n# differs: why\n$ kubectl version\n# differs later: x\n$ true\n$ true\n";
        let all = Script::parse(text, &[]).expect("a script");
        assert_eq!((all.steps.len(), all.invocations()), (6, 3));
        assert_eq!(all.steps[2].command, "kubectl exec p --\n  sh");
        assert_eq!((all.steps[3].differs.as_deref(), &all.steps[2].differs), (Some("why"), &None));
        assert_eq!((all.steps[4].differs.as_deref(), &all.steps[5].differs), (Some("x"), &None));
        assert_eq!(all.steps.iter().map(|step| step.later).collect::<Vec<_>>(), [false, false, false, false, true, false]);
        assert_eq!((all.steps[3].client.as_deref(), &all.steps[2].client), (Some("new words"), &None));
        let without = Script::parse(text, &["shell".to_owned()]).expect("a script");
        assert_eq!(without.invocations(), 2);
        assert!(Script::parse("kubectl get pods", &[]).is_err());
    }
}
