//! `events.jsonl`: one event a line, appended as it happens, so that a run that was killed leaves all it had seen.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::event::{Event, EventKind, SCHEMA};

#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum EventFileError {
    #[error("cannot write {path}: {source}")]
    #[diagnostic(help("choose another folder with --out, or make room on the disk"))]
    Write { path: PathBuf, source: std::io::Error },
    #[error("cannot read {path}: {source}")]
    #[diagnostic(help("name a folder that an earlier `gatelab run --out DIR` wrote"))]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}, line {line}: not an event: {source}")]
    #[diagnostic(help("the file was cut off or edited, or written by another version of gatelab"))]
    Parse { path: PathBuf, line: usize, source: serde_json::Error },
    #[error("{path} does not begin with a session-started event")]
    #[diagnostic(help("is this an events.jsonl that gatelab wrote?"))]
    NoHeader { path: PathBuf },
    #[error("{path} has schema {found}; this gatelab reads schema {SCHEMA}")]
    #[diagnostic(help("render it with the version of gatelab that wrote it"))]
    Schema { path: PathBuf, found: u32 },
}

/// Appends events to a file, each at once.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventWriter {
    /// Creates or empties the file.
    pub fn create(path: &Path) -> Result<Self, EventFileError> {
        let file = File::create(path).map_err(|source| EventFileError::Write { path: path.to_owned(), source })?;
        Ok(EventWriter { path: path.to_owned(), file: BufWriter::new(file) })
    }

    /// Writes one event as one line and hands it to the kernel.
    pub fn write(&mut self, event: &Event) -> Result<(), EventFileError> {
        let failed = |source| EventFileError::Write { path: self.path.clone(), source };
        serde_json::to_writer(&mut self.file, event).map_err(|error| failed(error.into()))?;
        self.file.write_all(b"\n").map_err(failed)?;
        self.file.flush().map_err(failed)
    }
}

/// Reads a file of events, one at a time. A last line that was cut off (the run was killed while it wrote) is left out.
#[derive(Debug)]
pub struct EventReader {
    path: PathBuf,
    lines: std::io::Lines<BufReader<File>>,
    line: usize,
    begun: bool,
}

impl EventReader {
    /// `path` is the file, or the folder that it is in.
    pub fn open(path: &Path) -> Result<Self, EventFileError> {
        let path = if path.is_dir() { path.join("events.jsonl") } else { path.to_owned() };
        let file = File::open(&path).map_err(|source| EventFileError::Read { path: path.clone(), source })?;
        Ok(EventReader { path, lines: BufReader::new(file).lines(), line: 0, begun: false })
    }

    /// The next line that is not empty.
    fn next_line(&mut self) -> Option<Result<String, EventFileError>> {
        loop {
            let line = self.lines.next()?;
            self.line += 1;
            match line {
                Ok(line) if line.trim().is_empty() => {}
                line => return Some(line.map_err(|source| EventFileError::Read { path: self.path.clone(), source })),
            }
        }
    }

    fn next_event(&mut self) -> Option<Result<Event, EventFileError>> {
        let line = match self.next_line()? {
            Ok(line) => line,
            Err(error) => return Some(Err(error)),
        };
        let at = self.line;
        Some(match serde_json::from_str::<Event>(&line) {
            Ok(event) if self.begun => Ok(event),
            Ok(event) => self.check_header(&event).map(|()| event),
            // What was cut off is the last line, and never the first.
            Err(_) if self.begun && self.next_line().is_none() => return None,
            Err(source) => Err(EventFileError::Parse { path: self.path.clone(), line: at, source }),
        })
    }

    fn check_header(&self, event: &Event) -> Result<(), EventFileError> {
        match &event.event {
            EventKind::SessionStarted { schema, .. } if *schema == SCHEMA => Ok(()),
            EventKind::SessionStarted { schema, .. } => Err(EventFileError::Schema { path: self.path.clone(), found: *schema }),
            _ => Err(EventFileError::NoHeader { path: self.path.clone() }),
        }
    }
}

impl Iterator for EventReader {
    type Item = Result<Event, EventFileError>;

    /// After an error nothing that comes is worth reading.
    fn next(&mut self) -> Option<Self::Item> {
        let event = match self.next_event() {
            None if !self.begun => Err(EventFileError::NoHeader { path: self.path.clone() }),
            None => return None,
            Some(event) => event,
        };
        self.begun = true;
        Some(event)
    }
}
