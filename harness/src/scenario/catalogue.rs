//! All scenarios of a folder, with the applications that they break.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::app::App;
use super::check;
use super::decode::Decode;
use super::model::Scenario;
use super::problem::{Mistake, Problem, Problems, Source, Span, nearest, source};
use super::yaml::Node;

/// Folder of the applications, beside the scenarios.
const APPS: &str = "_apps";
const FILE: &str = "scenario.yaml";

#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum LoadError {
    #[error("cannot read {path}: {source}")]
    #[diagnostic(help("name a folder of scenarios, a scenario's folder or its scenario.yaml"))]
    Read { path: PathBuf, source: std::io::Error },
    #[error("there is no scenario in {path}")]
    #[diagnostic(help("a scenario is a folder with a {FILE}; `_apps` holds the applications"))]
    Empty { path: PathBuf },
    #[error("there is no scenario `{id}`{}", match near { Some(near) => format!("; did you mean `{near}`?"), None => String::new() })]
    #[diagnostic(help("`gatelab list` shows them all"))]
    Unknown { id: String, near: Option<String> },
}

/// A scenario with its source and the application that it breaks.
#[derive(Clone, Debug)]
pub struct Entry {
    pub scenario: Scenario,
    pub source: Source,
    pub path: PathBuf,
    pub app: Arc<App>,
}

/// What a folder holds. Files with mistakes are not among the entries.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    entries: BTreeMap<String, Arc<Entry>>,
}

impl Catalogue {
    /// Reads a folder of scenarios and returns every mistake in it.
    pub fn load(root: &Path) -> Result<(Self, Vec<Problem>), LoadError> {
        let mut folders: Vec<PathBuf> = read_folder(root)?;
        folders.retain(|path| path.join(FILE).is_file());
        if folders.is_empty() {
            return Err(LoadError::Empty { path: root.to_owned() });
        }
        Self::load_files(folders.iter().map(|folder| folder.join(FILE)), &root.join(APPS))
    }

    /// Reads what `path` names: a folder of scenarios, one scenario's folder or its file.
    pub fn load_path(path: &Path) -> Result<(Self, Vec<Problem>), LoadError> {
        let file = if path.join(FILE).is_file() { path.join(FILE) } else { path.to_owned() };
        if file.is_dir() {
            return Self::load(&file);
        }
        let folder = file.parent().unwrap_or(Path::new("."));
        let mut apps = folder.join("..").join(APPS);
        if !apps.is_dir() {
            apps = folder.join(APPS);
        }
        Self::load_files(std::iter::once(file.clone()), &apps)
    }

    fn load_files(files: impl Iterator<Item = PathBuf>, apps: &Path) -> Result<(Self, Vec<Problem>), LoadError> {
        let mut problems = Vec::new();
        let mut loaded: BTreeMap<String, Arc<App>> = BTreeMap::new();
        if apps.is_dir() {
            for folder in read_folder(apps)?.into_iter().filter(|path| path.is_dir()) {
                let (app, found) = App::load(&folder)?;
                problems.extend(found);
                loaded.insert(app.name.clone(), Arc::new(app));
            }
        }
        let mut catalogue = Catalogue::default();
        for path in files {
            let text = std::fs::read_to_string(&path).map_err(|source| LoadError::Read { path: path.clone(), source })?;
            let source = source(path.display().to_string(), text);
            let mut found = Problems::of(source.clone());
            if let Some(scenario) = read(&source, &mut found) {
                let app = loaded.get(&scenario.app.value).cloned();
                check::scenario(&scenario, &path, app.as_deref(), &loaded, &mut found);
                if let (Some(app), true) = (app, found.is_empty()) {
                    let entry = Entry { scenario, source: source.clone(), path, app };
                    catalogue.entries.insert(entry.scenario.id.value.clone(), Arc::new(entry));
                }
            }
            problems.extend(found.into_sorted());
        }
        problems.extend(check::catalogue(&catalogue));
        Ok((catalogue, problems))
    }

    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.values()
    }

    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    pub fn get(&self, id: &str) -> Result<Arc<Entry>, LoadError> {
        self.entries
            .get(id)
            .cloned()
            .ok_or_else(|| LoadError::Unknown { id: id.to_owned(), near: nearest(id, self.ids()).map(ToOwned::to_owned) })
    }
}

/// One file: syntax, then elements; every mistake is added.
pub fn read(source: &Source, problems: &mut Problems) -> Option<Scenario> {
    match Node::documents(source.inner()) {
        Err(error) => {
            problems.syntax(&error);
            None
        }
        Ok(documents) => match documents.as_slice() {
            [node] => Scenario::decode(node, problems),
            documents => {
                let span = documents.get(1).map_or(Span::default(), Node::start);
                problems.add(span, Mistake::Documents { found: documents.len() });
                None
            }
        },
    }
}

fn read_folder(path: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| LoadError::Read { path: path.to_owned(), source })?
        .into_iter()
        .map(|entry| entry.path())
        .collect();
    entries.sort();
    Ok(entries)
}
