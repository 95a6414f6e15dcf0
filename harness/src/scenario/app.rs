//! A healthy application: plain Kubernetes manifests in a folder.

use std::path::Path;

use serde_json::Value;

use super::catalogue::LoadError;
use super::problem::{Mistake, Problem, Problems, Source, Span, source};
use super::yaml::Node;
use crate::signature::object::CLUSTER_SCOPED;

/// The manifests of one folder under `_apps`.
#[derive(Clone, Debug)]
pub struct App {
    pub name: String,
    /// Of the Namespace among the manifests.
    pub namespace: String,
    pub manifests: Vec<Manifest>,
}

/// One object and where it stands.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub object: Value,
    pub node: Node,
    pub source: Source,
}

impl App {
    /// Reads every `*.yaml` of the folder, by name.
    pub fn load(folder: &Path) -> Result<(Self, Vec<Problem>), LoadError> {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|source| LoadError::Read { path: folder.to_owned(), source })?
            .into_iter()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml"))
            .collect();
        files.sort();
        let mut problems = Vec::new();
        let mut manifests = Vec::new();
        for path in &files {
            let text = std::fs::read_to_string(path).map_err(|source| LoadError::Read { path: path.clone(), source })?;
            let source = source(path.display().to_string(), text);
            let mut found = Problems::of(source.clone());
            match Node::documents(source.inner()) {
                Err(error) => found.syntax(&error),
                Ok(documents) => {
                    for node in documents {
                        check_identity(&node.to_json(), node.start(), &mut found);
                        manifests.push(Manifest { object: node.to_json(), node, source: source.clone() });
                    }
                }
            }
            problems.extend(found.into_sorted());
        }
        let namespace = manifests
            .iter()
            .find(|manifest| manifest.object["kind"] == "Namespace")
            .and_then(|manifest| manifest.object["metadata"]["name"].as_str())
            .unwrap_or(&name)
            .to_owned();
        // A Namespace has to be there before what is in it.
        manifests.sort_by_key(|manifest| manifest.object["kind"] != "Namespace");
        Ok((App { name, namespace, manifests }, problems))
    }
}

/// What every object has to have, whole or partial.
pub fn check_identity(object: &Value, span: Span, problems: &mut Problems) {
    for (path, key) in [(vec!["apiVersion"], "apiVersion"), (vec!["kind"], "kind"), (vec!["metadata", "name"], "metadata.name")] {
        let found = path.iter().try_fold(object, |value, step| value.get(step));
        if found.and_then(Value::as_str).is_none_or(str::is_empty) {
            problems.add(span, Mistake::MissingKey { key: key.to_owned(), element: "a Kubernetes object".to_owned() });
        }
    }
}

/// Names the namespace where an object of a kind that has one does not.
pub fn with_namespace(mut object: Value, namespace: &str) -> Value {
    let scoped = object["kind"].as_str().is_some_and(|kind| !CLUSTER_SCOPED.contains(&kind));
    if scoped && object["metadata"].is_object() && object["metadata"]["namespace"].is_null() {
        object["metadata"]["namespace"] = namespace.into();
    }
    object
}
