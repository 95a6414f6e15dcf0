//! A session while it runs: a line for each run under way where somebody watches, a line for each finished run everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::screen::Screen;
use super::table::verdict_word;
use crate::events::{Event, EventKind, RunId, Verdict};

/// How often spinners turn.
const TICK: Duration = Duration::from_millis(120);

pub struct LiveView {
    screen: Arc<Screen>,
    /// Finished runs go to standard error; off when a table or JSON is all that is wanted.
    show_finished: bool,
    runs: BTreeMap<RunId, ProgressBar>,
    overall: Option<ProgressBar>,
    preparing: BTreeMap<String, ProgressBar>,
    announced: BTreeSet<String>,
    repeats: bool,
}

impl LiveView {
    pub fn new(screen: Arc<Screen>) -> Self {
        let show_finished = !screen.is_quiet();
        LiveView {
            screen,
            show_finished,
            runs: BTreeMap::new(),
            overall: None,
            preparing: BTreeMap::new(),
            announced: BTreeSet::new(),
            repeats: false,
        }
    }

    pub fn handle(&mut self, event: &Event) {
        match (&event.run, &event.event) {
            (_, EventKind::SessionStarted { runs, .. }) => self.session_started(runs),
            (_, EventKind::Preparing { what, done, total }) => self.prepare(what, *done, *total),
            (Some(run), EventKind::RunStarted { .. }) => self.run_started(run),
            (Some(run), EventKind::PhaseStarted { phase }) => self.step(run, &format!("{}: begins", phase.name())),
            (Some(run), EventKind::Step { step }) => self.step(run, step),
            (Some(run), EventKind::ProbeProgress { phase, probe, done, failed }) => {
                self.step(run, &format!("{}: probe {probe}: {done} answered, {failed} failed", phase.name()));
            }
            (Some(run), EventKind::RunFinished { verdict, took_ms, .. }) => self.run_finished(run, verdict, *took_ms),
            (run, EventKind::Warning { message }) => self.screen.warning(&prefixed(run.as_ref(), message)),
            (Some(run), EventKind::Error { message, causes, .. }) if self.show_finished => {
                self.screen.note(&prefixed(Some(run), message));
                for cause in causes {
                    self.screen.note(&format!("  caused by: {cause}"));
                }
            }
            (_, EventKind::SessionFinished { .. }) => self.clear(),
            _ => {}
        }
    }

    /// Takes everything that moves off the screen.
    pub fn clear(&mut self) {
        for (_, bar) in std::mem::take(&mut self.runs) {
            bar.finish_and_clear();
        }
        for (_, bar) in std::mem::take(&mut self.preparing) {
            bar.finish_and_clear();
        }
        if let Some(bar) = self.overall.take() {
            bar.finish_and_clear();
        }
    }

    fn session_started(&mut self, runs: &[RunId]) {
        self.repeats = runs.iter().any(|run| run.repeat > 1);
        if self.screen.is_interactive() {
            let bar = self.screen.bars().add(ProgressBar::new(runs.len() as u64));
            bar.set_style(style("{bar:24} {pos} of {len} runs, {elapsed}"));
            bar.enable_steady_tick(TICK);
            self.overall = Some(bar);
        }
    }

    fn prepare(&mut self, what: &str, done: u64, total: Option<u64>) {
        if !self.screen.is_interactive() {
            // Several gateways tell how far they are in turns.
            if self.announced.insert(what.to_owned()) {
                self.screen.note(what);
            }
            return;
        }
        let bar = self.preparing.entry(what.to_owned()).or_insert_with(|| {
            let bar = self.screen.bars().add(ProgressBar::no_length());
            bar.set_message(what.to_owned());
            bar.enable_steady_tick(TICK);
            bar
        });
        match total {
            Some(total) => {
                bar.set_style(style("{bar:24} {msg}: {bytes} of {total_bytes}"));
                bar.set_length(total);
            }
            None => bar.set_style(style("{spinner} {msg}")),
        }
        bar.set_position(done);
        if total.is_some_and(|total| done >= total) {
            bar.finish_and_clear();
        }
    }

    fn run_started(&mut self, run: &RunId) {
        for (_, bar) in std::mem::take(&mut self.preparing) {
            bar.finish_and_clear();
        }
        if self.screen.is_interactive() {
            let bar = self.screen.bars().add(ProgressBar::new_spinner());
            bar.set_style(style("{spinner} {prefix}  {msg}"));
            bar.set_prefix(self.name(run));
            bar.enable_steady_tick(TICK);
            self.runs.insert(run.clone(), bar);
        }
    }

    fn step(&self, run: &RunId, step: &str) {
        if let Some(bar) = self.runs.get(run) {
            bar.set_message(step.to_owned());
        }
    }

    fn run_finished(&mut self, run: &RunId, verdict: &Verdict, took_ms: u64) {
        if let Some(bar) = self.runs.remove(run) {
            bar.finish_and_clear();
        }
        if let Some(bar) = &self.overall {
            bar.inc(1);
        }
        if self.show_finished {
            let mut line = format!("{}  {}  {}", verdict_word(verdict), self.name(run), seconds(took_ms));
            if let Some(reason) = verdict.reason() {
                line.push_str(&format!("  ({reason})"));
            }
            self.screen.note(&line);
        }
    }

    fn name(&self, run: &RunId) -> String {
        if self.repeats { run.to_string() } else { format!("{}/{}", run.scenario, run.gateway) }
    }
}

fn prefixed(run: Option<&RunId>, message: &str) -> String {
    match run {
        Some(run) => format!("{run}: {message}"),
        None => message.to_owned(),
    }
}

/// `2.4 s`.
pub fn seconds(milliseconds: u64) -> String {
    format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100)
}

/// The templates are constants of this file; one that does not parse falls back to the plain bar.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}
