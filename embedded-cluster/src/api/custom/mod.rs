//! Custom resources: the kinds that stored CustomResourceDefinitions add, and the schemas that rule their objects.

mod cel_rules;
mod formats;
mod schema;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use serde_json::Value;

use super::kinds::Kind;
use super::status::FieldError;
pub(super) use cel_rules::{Rules, definition_mistakes};

use crate::store::{DeleteOptions, Store};

/// Kinds by their definition's uid and generation: every request for a custom resource needs its kind, and a schema
/// may have hundreds of kilobytes.
type Known = HashMap<String, (u64, Vec<Arc<Kind>>)>;
static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

/// One kind for each served version of a definition.
pub(super) fn kinds(definition: &Value) -> Vec<Arc<Kind>> {
    let metadata = &definition["metadata"];
    let (Some(uid), Some(generation)) = (metadata["uid"].as_str(), metadata["generation"].as_u64()) else {
        return made(definition);
    };
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    match known.get(uid) {
        Some((of, kinds)) if *of == generation => kinds.clone(),
        _ => {
            let kinds = made(definition);
            known.insert(uid.to_owned(), (generation, kinds.clone()));
            kinds
        }
    }
}

fn made(definition: &Value) -> Vec<Arc<Kind>> {
    definition["spec"]["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|version| version["served"] == true)
        .filter_map(|version| Kind::custom(definition, version).map(Arc::new))
        .collect()
}

fn schema_of(kind: &Kind) -> Option<&Value> {
    kind.custom.as_ref().map(|version| &version["schema"]["openAPIV3Schema"]).filter(|schema| schema.is_object())
}

/// Takes out what the schema does not know, and fills in its defaults. Returns the paths that were taken out.
pub(super) fn prune(kind: &Kind, object: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    if let Some(schema) = schema_of(kind) {
        schema::prune(schema, object, "", true, &mut unknown);
        schema::set_defaults(schema, object);
    }
    unknown
}

/// Mistakes by the schema and its rules; `old` is what an update replaces. Warnings are of broken rules that the update
/// did not break.
pub(super) fn mistakes(kind: &Kind, object: &Value, old: Option<&Value>, warnings: &mut Vec<String>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let Some(schema) = schema_of(kind) else { return errors };
    schema::validate(schema, object, "", &mut errors);
    // Rules may rely on the schema: kube-apiserver's `hasBlockingErr`.
    let blocks = |error: &FieldError| {
        matches!(
            error.reason,
            "FieldValueNotSupported" | "FieldValueRequired" | "FieldValueTooLong" | "FieldValueTooMany" | "FieldValueTypeInvalid"
        )
    };
    if !kind.rules.are_in(schema) {
        return errors;
    }
    if errors.iter().any(blocks) {
        let detail =
            "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
        errors.push(FieldError::invalid("<nil>", &"null".into(), detail));
        return errors;
    }
    let found = cel_rules::evaluate(&kind.rules, schema, object, old);
    errors.extend(found.errors);
    warnings.extend(found.warnings);
    errors
}

/// The schema as OpenAPI documents show it: with the fields that every object has (`metadata` is added there).
pub(super) fn open_api(kind: &Kind) -> Option<Value> {
    let mut schema = schema_of(kind)?.clone();
    let text = |description: &str| serde_json::json!({"type": "string", "description": description});
    let properties = &mut schema["properties"];
    properties["apiVersion"] = text("APIVersion defines the versioned schema of this representation of an object.");
    properties["kind"] = text("Kind is a string value representing the REST resource this object represents.");
    Some(schema)
}

/// A definition that goes takes its objects along (kube-apiserver's `customresourcecleanup` finalizer does the same).
pub(super) fn delete_objects(store: &Store, definition: &Value) {
    let kind = kinds(definition).into_iter().next();
    if let Some(uid) = definition["metadata"]["uid"].as_str() {
        KNOWN.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
    let Some(kind) = kind else { return };
    for object in store.list(&kind.storage, None).items {
        let text = |field: &str| object["metadata"][field].as_str();
        if let Some(name) = text("name") {
            // Gone meanwhile is just as well.
            let _ = store.delete(&kind.storage, text("namespace"), name, &DeleteOptions::default());
        }
    }
}
