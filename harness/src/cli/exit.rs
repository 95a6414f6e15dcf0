//! What the exit code says; the same table is in every `--help` that needs it and in docs/.

use std::process::ExitCode;

/// Ends of a command. Higher rows of the table win when several apply to one `run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Did what it was asked; `run`: every run was proven (skipped ones aside); `status`: every probe is as in health.
    Success,
    /// `run`: at least one signature was another than documented; `status`: a probe is red.
    Unexpected,
    /// Wrong arguments, an unknown scenario or gateway, or mistakes in scenario files.
    Usage,
    /// A control failed or the lab could not do its work in at least one run: nothing was learnt there.
    Void,
    /// Everything was skipped.
    Skipped,
    /// This machine cannot run the lab as it is: namespaces forbidden, a gateway that cannot be fetched, no such lab.
    Environment,
    /// Results could not be written, such as on a full disk.
    Output,
    /// Ctrl-C or SIGTERM; everything was cleaned up.
    Interrupted,
}

impl Exit {
    pub fn code(self) -> u8 {
        match self {
            Exit::Success => 0,
            Exit::Unexpected => 1,
            Exit::Usage => 2,
            Exit::Void => 3,
            Exit::Skipped => 4,
            Exit::Environment => 5,
            Exit::Output => 6,
            Exit::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// Shown under `--help`; a test holds it to [`Exit`].
pub const TABLE: &str = "\
Exit codes:
    0  every run proven (runs that a scenario skips aside)
    1  unexpected: with the fault in, something else was seen than the scenario says
    2  usage: wrong arguments, unknown scenario or gateway, mistakes in scenario files
    3  void: a control failed or the lab could not do its work, so nothing was learnt
    4  everything was skipped
    5  environment: this machine cannot run the lab as it is (see `gatelab doctor`)
    6  output: results could not be written
  130  interrupted; everything was cleaned up
When several apply to one run, 130 wins, then 6, 5, 1, 3, 4.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_every_code_once() {
        let all =
            [Exit::Success, Exit::Unexpected, Exit::Usage, Exit::Void, Exit::Skipped, Exit::Environment, Exit::Output, Exit::Interrupted];
        let documented: Vec<u8> = TABLE.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
        assert_eq!(documented, all.map(Exit::code));
    }
}
