//! All reports into a folder.

use std::path::{Path, PathBuf};

use super::model::Report;
use super::{html, json, junit};

#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum ReportError {
    #[error("cannot write {path}: {source}")]
    #[diagnostic(help("make room on the disk, or choose another folder with --out; `gatelab report DIR` renders reports again"))]
    Write { path: PathBuf, source: std::io::Error },
    #[error("cannot render {name}: {source}")]
    #[diagnostic(help("this is a defect of gatelab; events.jsonl holds everything that was seen"))]
    Render { name: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
}

/// Writes `report.json`, `junit.xml` and `report.html`, each whole or not there. Returns the text of the first.
pub fn write(folder: &Path, report: &Report) -> Result<String, ReportError> {
    // Of a thousand runs each of the two takes seconds to render.
    let (json, html) = std::thread::scope(|threads| {
        let html = threads.spawn(|| put(folder, "report.html", html::render(report)));
        let json = put(folder, "report.json", json::render(report)).and_then(|json| {
            put(folder, "junit.xml", junit::render(report))?;
            Ok(json)
        });
        (json, html.join())
    });
    html.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    json
}

fn put(
    folder: &Path,
    name: &'static str,
    rendered: Result<String, impl std::error::Error + Send + Sync + 'static>,
) -> Result<String, ReportError> {
    let text = rendered.map_err(|error| ReportError::Render { name, source: error.into() })?;
    let path = folder.join(name);
    let temporary = folder.join(format!(".{name}.part"));
    if let Err(source) = std::fs::write(&temporary, &text).and_then(|()| std::fs::rename(&temporary, &path)) {
        let _ = std::fs::remove_file(&temporary);
        return Err(ReportError::Write { path, source });
    }
    Ok(text)
}
