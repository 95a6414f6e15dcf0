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

/// Reads a file of events, one at a time.
#[derive(Debug)]
pub struct EventReader {
    path: PathBuf,
    lines: std::io::Lines<BufReader<File>>,
    line: usize,
}

impl EventReader {
    /// `path` is the file, or the folder that it is in.
    pub fn open(path: &Path) -> Result<Self, EventFileError> {
        let path = if path.is_dir() { path.join("events.jsonl") } else { path.to_owned() };
        let file = File::open(&path).map_err(|source| EventFileError::Read { path: path.clone(), source })?;
        Ok(EventReader { path, lines: BufReader::new(file).lines(), line: 0 })
    }

    /// Every event of the file. A last line that was cut off (the run was killed while it wrote) is left out.
    pub fn read_all(mut self) -> Result<Vec<Event>, EventFileError> {
        let mut events = Vec::new();
        let mut broken = None;
        while let Some(line) = self.lines.next() {
            self.line += 1;
            let line = line.map_err(|source| EventFileError::Read { path: self.path.clone(), source })?;
            if line.trim().is_empty() {
                continue;
            }
            if let Some(error) = broken.take() {
                return Err(error);
            }
            match serde_json::from_str::<Event>(&line) {
                Ok(event) => {
                    if events.is_empty() {
                        self.check_header(&event)?;
                    }
                    events.push(event);
                }
                Err(source) => broken = Some(EventFileError::Parse { path: self.path.clone(), line: self.line, source }),
            }
        }
        match (events.is_empty(), broken) {
            (true, Some(error)) => Err(error),
            (true, None) => Err(EventFileError::NoHeader { path: self.path }),
            (false, _) => Ok(events),
        }
    }

    fn check_header(&self, event: &Event) -> Result<(), EventFileError> {
        match &event.event {
            EventKind::SessionStarted { schema, .. } if *schema == SCHEMA => Ok(()),
            EventKind::SessionStarted { schema, .. } => Err(EventFileError::Schema { path: self.path.clone(), found: *schema }),
            _ => Err(EventFileError::NoHeader { path: self.path.clone() }),
        }
    }
}
