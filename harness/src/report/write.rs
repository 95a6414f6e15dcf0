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

/// Writes `report.json`, `junit.xml` and `report.html`; each is whole or not there.
pub fn write(folder: &Path, report: &Report) -> Result<Vec<PathBuf>, ReportError> {
    let render = |name, source: Box<dyn std::error::Error + Send + Sync>| ReportError::Render { name, source };
    let files = [
        ("report.json", json::render(report).map_err(|error| render("report.json", error.into()))?),
        ("junit.xml", junit::render(report).map_err(|error| render("junit.xml", error.into()))?),
        ("report.html", html::render(report).map_err(|error| render("report.html", error.into()))?),
    ];
    let mut written = Vec::new();
    for (name, text) in files {
        let path = folder.join(name);
        let temporary = folder.join(format!(".{name}.part"));
        let result = std::fs::write(&temporary, text).and_then(|()| std::fs::rename(&temporary, &path));
        if let Err(source) = result {
            let _ = std::fs::remove_file(&temporary);
            return Err(ReportError::Write { path, source });
        }
        written.push(path);
    }
    Ok(written)
}
