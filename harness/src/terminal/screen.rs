//! Single messages.

use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;

use indicatif::MultiProgress;
use owo_colors::OwoColorize;

use crate::cli::failure::Failure;

/// Standard output and standard error of this process; messages and progress bars do not overwrite each other.
pub struct Screen {
    quiet: bool,
    bars: MultiProgress,
    /// First failure to write data; a reader that went away (`| head`) is no failure.
    broken: Mutex<Option<io::Error>>,
}

impl Screen {
    pub fn new(quiet: bool) -> Self {
        Screen { quiet, bars: MultiProgress::new(), broken: Mutex::new(None) }
    }

    /// Whether somebody watches standard error.
    pub fn is_interactive(&self) -> bool {
        !self.quiet && io::stderr().is_terminal()
    }

    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Progress bars are drawn here.
    pub fn bars(&self) -> &MultiProgress {
        &self.bars
    }

    /// Data, for programs and people alike.
    pub fn data(&self, text: &str) {
        let written = self.bars.suspend(|| {
            let mut out = anstream::stdout().lock();
            writeln!(out, "{text}").and_then(|()| out.flush())
        });
        if let Err(error) = written
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            self.broken.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
        }
    }

    /// As data, without a line end of its own.
    pub fn data_raw(&self, text: &str) {
        let text = text.strip_suffix('\n').unwrap_or(text);
        self.data(text);
    }

    /// The error that data could not be written with, if any.
    pub fn take_broken(&self) -> Option<io::Error> {
        self.broken.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }

    /// What goes on; not shown with `--quiet`.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            self.error_line(text);
        }
    }

    pub fn warning(&self, text: &str) {
        self.error_line(&format!("{} {text}", "warning:".yellow().bold()));
    }

    /// What to do next.
    pub fn hint(&self, text: &str) {
        self.error_line(&format!("{} {text}", "hint:".cyan().bold()));
    }

    /// A failed command, once.
    pub fn failure(&self, failure: &Failure) {
        self.error_line(&format!("{} {}", "error:".red().bold(), failure.message));
        for cause in &failure.causes {
            self.error_line(&format!("  caused by: {cause}"));
        }
        for hint in &failure.hints {
            self.hint(hint);
        }
    }

    fn error_line(&self, text: &str) {
        self.bars.suspend(|| {
            // Nowhere to report a failure to write here.
            let _ = writeln!(anstream::stderr(), "{text}");
        });
    }
}
