//! Create, update, patch and delete.

use std::sync::Arc;

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::kinds::{Kind, Sub};
use super::patch::Patch;
use super::read::{self, Selection};
use super::respond::{self, Body};
use super::route::Target;
use super::router::Call;
use super::status::Refusal;
use super::{admission, authorization, body, convert, fields, patch, validation};
use crate::store::{DeleteOptions, Fault, random_suffix};

pub(super) fn create(call: &Call, target: &Target) -> Result<Response<Body>, Refusal> {
    let kind = &target.kind;
    if kind.is_namespaced() && target.namespace.is_none() {
        return Err(Refusal::method_not_allowed());
    }
    let given = body::object(call, kind)?;
    let mut warnings = Vec::new();
    let created = create_object(call, target, given, &mut warnings)?;
    let mut response = read::one(call, kind, &created, StatusCode::CREATED)?;
    respond::warn(&mut response, &warnings);
    Ok(response)
}

fn create_object(call: &Call, target: &Target, given: Value, warnings: &mut Vec<String>) -> Result<Arc<Value>, Refusal> {
    let kind = &target.kind;
    let mut object = body::typed(call, kind, given, warnings)?;
    check_namespace(target, &object)?;
    admission::namespace_exists(&call.state.store, target)?;
    clear_system_fields(kind, &mut object);
    let operation = fields::Write { manager: call.field_manager(), sub: None };
    let generate = object["metadata"]["name"].as_str().is_none_or(str::is_empty);
    let prefix = object["metadata"]["generateName"].as_str().unwrap_or_default().to_owned();
    if generate && prefix.is_empty() {
        return Err(Refusal::invalid(
            kind,
            "",
            &[super::status::FieldError::required("metadata.name", "name or generateName is required")],
        ));
    }
    // A generated name that is taken is tried again, as kube-apiserver does since 1.30.
    let mut found = Vec::new();
    for attempt in 0.. {
        if generate {
            object["metadata"]["name"] = format!("{prefix}{}", random_suffix()).into();
        }
        let mut complete = convert::incoming(kind, object.clone());
        crate::store::apply_defaults(&kind.storage, &mut complete);
        // What admission adds is nobody's: kube-apiserver notes the managers before it.
        if object["metadata"]["managedFields"].is_null() {
            fields::written(&operation, None, &mut complete, kind);
        }
        admission::admit(&call.state.store, kind, target.namespace(), &mut complete)?;
        validation::check(kind, &complete, None, &mut found)?;
        authorization::check_escalation(&call.state.store, &call.identity, kind, target.namespace(), &complete, None)?;
        match call.state.store.create_or_try(&kind.storage, target.namespace(), complete, call.dry_run()?) {
            Err(fault) if generate && fault.reason == crate::store::Reason::AlreadyExists && attempt < 8 => {}
            Err(fault) => return Err(named_refusal(fault, kind, &object)),
            Ok(created) => {
                warnings.append(&mut found);
                return Ok(created);
            }
        }
    }
    Err(Refusal::internal("no free generated name"))
}

fn named_refusal(fault: Fault, kind: &Kind, object: &Value) -> Refusal {
    Refusal::from(fault).about(kind, object["metadata"]["name"].as_str())
}

/// What a client may not set on a new object.
fn clear_system_fields(kind: &Kind, object: &mut Value) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for field in
            ["uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink"]
        {
            metadata.remove(field);
        }
    }
    // Nodes report their own status with their first registration.
    let keeps_status = !kind.has(Sub::Status) || kind.is("", "nodes");
    if !keeps_status && let Some(object) = object.as_object_mut() {
        object.remove("status");
    }
}

fn check_namespace(target: &Target, object: &Value) -> Result<(), Refusal> {
    let given = object["metadata"]["namespace"].as_str().unwrap_or_default();
    if !given.is_empty() && Some(given) != target.namespace() && target.kind.is_namespaced() {
        return Err(Refusal::bad_request("the namespace of the provided object does not match the namespace sent on the request"));
    }
    Ok(())
}

pub(super) fn update(call: &Call, target: &Target) -> Result<Response<Body>, Refusal> {
    let kind = &target.kind;
    let name = target.object_name()?;
    let given = body::object(call, kind)?;
    let mut warnings = Vec::new();
    let object = body::typed(call, kind, given, &mut warnings)?;
    check_namespace(target, &object)?;
    let given_name = object["metadata"]["name"].as_str().unwrap_or_default();
    if given_name != name {
        let message = format!("the name of the object ({given_name}) does not match the name on the URL ({name})");
        return Err(Refusal::bad_request(message));
    }
    let operation = fields::Write { manager: call.field_manager(), sub: target.sub };
    let mut found = Vec::new();
    let stored = change(call, target, name, |current| {
        let next = convert::incoming(kind, object.clone());
        replace(kind, target.sub, current, next, Some(&operation), &mut found)
    });
    let stored = stored.map_err(|refusal: Refusal| refusal.about(kind, Some(name)))?;
    warnings.append(&mut found);
    let mut response = read::one(call, kind, &stored, StatusCode::OK)?;
    respond::warn(&mut response, &warnings);
    Ok(response)
}

/// Changes a stored object; who changes a role must have what it grants.
fn change(
    call: &Call,
    target: &Target,
    name: &str,
    mut change: impl FnMut(&mut Value) -> Result<(), Refusal>,
) -> Result<Arc<Value>, Refusal> {
    let (store, kind, namespace) = (&call.state.store, &target.kind, target.namespace());
    let dry_run = call.dry_run()?;
    if kind.resource.group != "rbac.authorization.k8s.io" {
        return store.modify_or_try(&kind.storage, namespace, name, dry_run, change);
    }
    // The check reads other objects, which a change in progress cannot: so it is tried first, and made only when the
    // object is still the one that was checked.
    let before = store.get(&kind.storage, namespace, name).map_err(Refusal::from)?;
    let tried = store.modify_or_try(&kind.storage, namespace, name, true, &mut change)?;
    authorization::check_escalation(store, &call.identity, kind, namespace, &tried, Some(&before))?;
    store.modify_or_try(&kind.storage, namespace, name, dry_run, |current| {
        if current["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"] {
            let message = format!(
                "Operation cannot be fulfilled on {} \"{name}\": the object has been modified; please apply your changes to the latest version and try again",
                kind.qualified_plural()
            );
            return Err(Refusal::new(409, "Conflict", message));
        }
        change(current)
    })
}

/// Turns `current` into what an update by `next` makes of it: the subresource's part only, defaults filled in, checked.
pub(super) fn replace(
    kind: &Kind,
    sub: Option<Sub>,
    current: &mut Value,
    mut next: Value,
    operation: Option<&fields::Write>,
    warnings: &mut Vec<String>,
) -> Result<(), Refusal> {
    if let (Some(given), Some(actual)) = (next["metadata"]["uid"].as_str(), current["metadata"]["uid"].as_str())
        && !given.is_empty()
        && given != actual
    {
        let name = current["metadata"]["name"].as_str().unwrap_or_default();
        let place = current["metadata"]["namespace"].as_str().map(|namespace| format!("{namespace}/")).unwrap_or_default();
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": StorageError: invalid object, Code: 4, Key: /registry/{}/{place}{name}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {given}, UID in object meta: {actual}",
            kind.qualified_plural(),
            kind.resource.plural,
        );
        return Err(Refusal::new(409, "Conflict", message));
    }
    let old = current.clone();
    match sub {
        Some(Sub::Status) => {
            let mut merged = old.clone();
            merged["status"] = next["status"].take();
            merged["metadata"]["resourceVersion"] = next["metadata"]["resourceVersion"].take();
            keep_managed_fields(&mut merged, &next);
            next = merged;
        }
        Some(Sub::EphemeralContainers) => {
            let mut merged = old.clone();
            merged["spec"]["ephemeralContainers"] = next["spec"]["ephemeralContainers"].take();
            merged["metadata"]["resourceVersion"] = next["metadata"]["resourceVersion"].take();
            keep_managed_fields(&mut merged, &next);
            next = merged;
        }
        _ => {
            if kind.has(Sub::Status) {
                match old.get("status") {
                    Some(status) => next["status"] = status.clone(),
                    None => drop(next.as_object_mut().and_then(|object| object.remove("status"))),
                }
            }
            crate::store::keep_allocated(&kind.storage, &old, &mut next);
            crate::store::apply_defaults(&kind.storage, &mut next);
        }
    }
    next["apiVersion"] = old["apiVersion"].clone();
    next["kind"] = old["kind"].clone();
    // A finalizer can be taken away from an object that is being deleted, but none can be added.
    validation::check(kind, &next, Some(&old), warnings)?;
    crate::store::keep_system_metadata(&old, &mut next);
    if let Some(operation) = operation {
        fields::written(operation, Some(&old), &mut next, kind);
    }
    *current = next;
    Ok(())
}

fn keep_managed_fields(merged: &mut Value, next: &Value) {
    if let Some(managed) = next["metadata"].get("managedFields") {
        merged["metadata"]["managedFields"] = managed.clone();
    }
}

pub(super) fn patch(call: &Call, target: &Target) -> Result<Response<Body>, Refusal> {
    let kind = &target.kind;
    let name = target.object_name()?;
    let patch = Patch::read(call, kind)?;
    let (mut warnings, mut found) = (Vec::new(), Vec::new());
    let outcome = change(call, target, name, |current| {
        let shown = convert::outgoing(kind, &Arc::new(current.clone()));
        let patched = patch.apply(call, target, &shown)?;
        let next = body::typed(call, kind, patched.object, &mut warnings).map_err(|refusal| patch.does_not_fit(refusal))?;
        check_identity(kind, current, &next)?;
        let operation = fields::Write { manager: call.field_manager(), sub: target.sub };
        let next = convert::incoming(kind, next);
        replace(kind, target.sub, current, next, (!patched.fields_are_managed).then_some(&operation), &mut found)
    });
    let (stored, code) = match outcome {
        Err(refusal) if refusal.code == 404 && refusal.details.is_none() => match patch::creation(call, target, &patch)? {
            Some(object) => (authorized_creation(call, target, object, &mut warnings)?, StatusCode::CREATED),
            None => return Err(Refusal::not_found(kind, name)),
        },
        Err(refusal) => return Err(refusal),
        Ok(stored) => {
            warnings.append(&mut found);
            (stored, StatusCode::OK)
        }
    };
    let mut response = read::one(call, kind, &stored, code)?;
    respond::warn(&mut response, &warnings);
    Ok(response)
}

/// Applying to nothing creates, which is a permission of its own.
fn authorized_creation(call: &Call, target: &Target, object: Value, warnings: &mut Vec<String>) -> Result<Arc<Value>, Refusal> {
    let asked = authorization::Attributes {
        verb: "create".to_owned(),
        path: String::new(),
        group: target.kind.resource.group.clone(),
        resource: target.kind.resource.plural.clone(),
        subresource: String::new(),
        namespace: target.namespace.clone(),
        name: target.name.clone().unwrap_or_default(),
    };
    authorization::authorize(&call.state.store, &call.identity, &asked)?;
    create_object(call, target, object, warnings)
}

/// A patch may not rename, nor make another kind of it.
fn check_identity(kind: &Kind, current: &Value, next: &Value) -> Result<(), Refusal> {
    let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if name(current) != name(next) {
        return Err(Refusal::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            name(next),
            name(current)
        )));
    }
    if let Some(given) = next["kind"].as_str()
        && given != kind.resource.kind
    {
        return Err(Refusal::bad_request(format!("{given} is not a {}", kind.resource.kind)));
    }
    Ok(())
}

/// Options of a deletion: the body's, else the query's.
fn delete_options(call: &Call) -> Result<(DeleteOptions, bool), Refusal> {
    let given = if call.body.is_empty() { json!({}) } else { body::parse(call)? };
    if !given.is_object() {
        return Err(Refusal::bad_request("couldn't get version/kind; json parse error: DeleteOptions must be an object"));
    }
    let text = |value: &Value| value.as_str().filter(|s| !s.is_empty()).map(str::to_owned);
    let mut policy = text(&given["propagationPolicy"]).or_else(|| call.query.get("propagationPolicy").map(str::to_owned));
    let orphan = given["orphanDependents"].as_bool().or_else(|| call.query.get("orphanDependents").map(|v| v == "true"));
    if policy.is_none() && orphan == Some(true) {
        policy = Some("Orphan".to_owned());
    }
    if let Some(policy) = &policy
        && !matches!(policy.as_str(), "Background" | "Foreground" | "Orphan")
    {
        return Err(Refusal::new(
            422,
            "Invalid",
            format!(
                "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Invalid value: \"{policy}\": supported values: \"Background\", \"Foreground\", \"Orphan\", \"nil\""
            ),
        ));
    }
    let options = DeleteOptions {
        grace_period_seconds: match given["gracePeriodSeconds"].as_i64() {
            Some(seconds) => Some(seconds),
            None => call.query.number("gracePeriodSeconds")?,
        },
        uid: text(&given["preconditions"]["uid"]),
        resource_version: text(&given["preconditions"]["resourceVersion"]),
        propagation_policy: policy,
    };
    let dry_run = call.dry_run()? || given["dryRun"].as_array().is_some_and(|list| !list.is_empty());
    Ok((options, dry_run))
}

pub(super) fn delete(call: &Call, target: &Target) -> Result<Response<Body>, Refusal> {
    let kind = &target.kind;
    let name = target.object_name()?;
    let (options, dry_run) = delete_options(call)?;
    if kind.is("", "namespaces") && matches!(name, "default" | "kube-system" | "kube-public" | "kube-node-lease") {
        return Err(Refusal::new(403, "Forbidden", format!("namespaces \"{name}\" is forbidden: this namespace may not be deleted")));
    }
    let (object, gone) =
        call.state.store.delete_or_try(&kind.storage, target.namespace(), name, &options, dry_run).map_err(Refusal::from)?;
    if gone && !dry_run && kind.is("apiextensions.k8s.io", "customresourcedefinitions") {
        super::custom::delete_objects(&call.state.store, &object);
    }
    // kube-apiserver's strategies with ReturnDeletedObject; all others answer a finished deletion with a Status.
    let returns_object = kind.resource.group.is_empty()
        && matches!(
            kind.resource.plural.as_str(),
            "pods" | "services" | "serviceaccounts" | "persistentvolumeclaims" | "persistentvolumes" | "resourcequotas"
        );
    if returns_object || !gone {
        return read::one(call, kind, &object, StatusCode::OK);
    }
    let mut details = json!({"name": name, "group": kind.resource.group, "kind": kind.resource.plural, "uid": object["metadata"]["uid"]});
    if kind.resource.group.is_empty()
        && let Some(details) = details.as_object_mut()
    {
        details.remove("group");
    }
    Ok(respond::json(
        StatusCode::OK,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}),
    ))
}

pub(super) fn delete_collection(call: &Call, target: &Target) -> Result<Response<Body>, Refusal> {
    let kind = &target.kind;
    if kind.is_namespaced() && target.namespace.is_none() || kind.is("", "namespaces") {
        return Err(Refusal::method_not_allowed());
    }
    let selection = Selection::of(call, kind)?;
    let (options, dry_run) = delete_options(call)?;
    let store = &call.state.store;
    let list = store.list(&kind.storage, target.namespace());
    let mut deleted = Vec::new();
    for object in list.items.iter().filter(|object| selection.matches(object)) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        match store.delete_or_try(&kind.storage, target.namespace(), name, &options, dry_run) {
            Ok((object, _)) => deleted.push((*convert::outgoing(kind, &object)).clone()),
            // Gone meanwhile: that is what was asked for.
            Err(fault) if fault.reason == crate::store::Reason::NotFound => {}
            Err(fault) => return Err(Refusal::from(fault)),
        }
    }
    let metadata = json!({"resourceVersion": store.resource_version().to_string()});
    let body = json!({"kind": kind.list_kind(), "apiVersion": kind.resource.api_version(), "metadata": metadata, "items": deleted});
    Ok(respond::json(StatusCode::OK, &body))
}
