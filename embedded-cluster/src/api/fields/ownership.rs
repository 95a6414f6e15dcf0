//! The managers of an object, and what applies and other writes do to them.

use serde_json::{Value, json};

use super::super::kinds::{Kind, Sub};
use super::super::status::Refusal;
use super::merge;
use super::sets::{self, Path, Set};

/// kube-apiserver folds older update managers into one beyond this many.
const UPDATE_MANAGERS: usize = 10;
const ANCIENT: &str = "ancient-changes";

/// A write that is no apply.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub manager: String,
    pub sub: Option<Sub>,
}

#[derive(Clone, Debug, PartialEq)]
struct Owner {
    manager: String,
    applies: bool,
    sub: Option<String>,
    api_version: String,
    time: String,
    fields: Set,
}

impl Owner {
    fn is(&self, manager: &str, applies: bool, sub: Option<Sub>) -> bool {
        self.manager == manager && self.applies == applies && self.sub.as_deref() == sub.map(Sub::path)
    }

    fn display(&self) -> String {
        let mut text = format!("\"{}\"", self.manager);
        if let Some(sub) = &self.sub {
            text.push_str(&format!(" with subresource \"{sub}\""));
        }
        if !self.applies {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

fn decode(object: &Value) -> Vec<Owner> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    entries
        .filter(|entry| entry["fieldsV1"].is_object())
        .map(|entry| {
            let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
            Owner {
                manager: text("manager"),
                applies: entry["operation"] == "Apply",
                sub: entry["subresource"].as_str().filter(|s| !s.is_empty()).map(str::to_owned),
                api_version: text("apiVersion"),
                time: text("time"),
                fields: sets::decode(&entry["fieldsV1"]),
            }
        })
        .collect()
}

fn encode(object: &mut Value, mut owners: Vec<Owner>) {
    owners.retain(|owner| !owner.fields.is_empty());
    fold_old(&mut owners);
    // Appliers first, then by age, as kube-apiserver sorts them.
    owners.sort_by(|a, b| (!a.applies, &a.time, &a.manager).cmp(&(!b.applies, &b.time, &b.manager)));
    let entries: Vec<Value> = owners
        .iter()
        .map(|owner| {
            let mut entry = json!({
                "apiVersion": owner.api_version,
                "fieldsType": "FieldsV1",
                "fieldsV1": sets::encode(&owner.fields),
                "manager": owner.manager,
                "operation": if owner.applies { "Apply" } else { "Update" },
                "time": owner.time,
            });
            if let Some(sub) = &owner.sub {
                entry["subresource"] = sub.clone().into();
            }
            entry
        })
        .collect();
    if entries.is_empty() {
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("managedFields");
        }
    } else {
        object["metadata"]["managedFields"] = entries.into();
    }
}

/// Bounds the entries that ever new managers would leave.
fn fold_old(owners: &mut Vec<Owner>) {
    let updates = owners.iter().filter(|owner| !owner.applies).count();
    if updates <= UPDATE_MANAGERS {
        return;
    }
    let (mut rest, mut updaters): (Vec<_>, Vec<_>) = owners.drain(..).partition(|owner| owner.applies);
    updaters.sort_by(|a, b| a.time.cmp(&b.time));
    let recent = updaters.split_off(updates - UPDATE_MANAGERS + 1);
    if let Some(mut ancient) = updaters.pop() {
        ancient.fields.extend(updaters.into_iter().flat_map(|owner| owner.fields));
        ANCIENT.clone_into(&mut ancient.manager);
        rest.push(ancient);
    }
    rest.extend(recent);
    *owners = rest;
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Notes in `next` what the write changed: changed fields are the writer's now, vanished ones nobody's.
pub(crate) fn written(write: &Write, old: Option<&Value>, next: &mut Value, kind: &Kind) {
    let mut owners = decode(next);
    if owners.is_empty()
        && let Some(old) = old
    {
        owners = decode(old);
    }
    let present = sets::leaves(kind, next);
    let changed: Set = match old {
        None => present.clone(),
        Some(old) => present.iter().filter(|path| is_changed(old, next, path)).cloned().collect(),
    };
    for owner in &mut owners {
        let same = owner.is(&write.manager, false, write.sub);
        owner.fields.retain(|path| sets::lookup(next, path).is_some() && (same || !changed.contains(path)));
    }
    if !changed.is_empty() {
        let at = owners.iter().position(|owner| owner.is(&write.manager, false, write.sub));
        let mut owner = at.map(|at| owners.remove(at)).unwrap_or_else(|| Owner {
            manager: write.manager.clone(),
            applies: false,
            sub: write.sub.map(|sub| sub.path().to_owned()),
            api_version: String::new(),
            time: String::new(),
            fields: Set::new(),
        });
        // The fields are those of the stored form.
        owner.api_version = kind.storage.api_version();
        owner.time = now();
        owner.fields.extend(changed);
        owners.push(owner);
    }
    encode(next, owners);
}

fn is_changed(old: &Value, next: &Value, path: &Path) -> bool {
    let (before, after) = (sets::lookup(old, path), sets::lookup(next, path));
    // Of a keyed item only its existence is owned; its fields have paths of their own.
    let is_item = path.last().is_some_and(|last| !last.starts_with("f:"));
    if is_item { before.is_some() != after.is_some() } else { before != after }
}

/// Server-side apply of `config` by `manager`: the resulting object with its `managedFields`.
///
/// # Errors
/// 409 with a cause for each field that another manager set to another value, unless `force`.
pub(crate) fn apply(
    kind: &Kind,
    sub: Option<Sub>,
    manager: &str,
    force: bool,
    live: Option<&Value>,
    config: &Value,
) -> Result<Value, Refusal> {
    if config["metadata"]["managedFields"].as_array().is_some_and(|list| !list.is_empty()) {
        return Err(Refusal::bad_request("metadata.managedFields must be nil"));
    }
    let config = &scoped(kind, sub, config);
    // Compared as the type reads it, so that `1` and `"1"` of a quantity are the same.
    let mut typed = kind.round_trip.and_then(|round_trip| round_trip(config).ok()).unwrap_or_else(|| config.clone());
    super::super::body::only_given(config, &mut typed);
    let applied = sets::leaves(kind, &typed);
    let mut owners = live.map(decode).unwrap_or_default();
    let conflicts = conflicts(&owners, manager, sub, &applied, live.unwrap_or(&Value::Null), &typed);
    if !force && !conflicts.is_empty() {
        return Err(conflict_refusal(&owners, &conflicts));
    }
    for (at, path) in &conflicts {
        if let Some(owner) = owners.get_mut(*at) {
            owner.fields.remove(path);
        }
    }
    let at = owners.iter().position(|owner| owner.is(manager, true, sub));
    let previous = at.map(|at| owners.remove(at));

    let mut merged = live.cloned().unwrap_or_else(|| json!({}));
    merge::merge(kind, &mut Vec::new(), &mut merged, config);
    if let Some(previous) = &previous {
        let mut kept = applied.clone();
        kept.extend(owners.iter().flat_map(|owner| owner.fields.iter().cloned()));
        let removed: Set = previous.fields.difference(&kept).cloned().collect();
        merge::remove(&mut merged, &removed, &kept);
    }
    let unchanged = previous.as_ref().is_some_and(|previous| previous.fields == applied);
    owners.push(Owner {
        manager: manager.to_owned(),
        applies: true,
        sub: sub.map(|sub| sub.path().to_owned()),
        api_version: kind.resource.api_version(),
        time: previous.filter(|_| unchanged).map_or_else(now, |previous| previous.time),
        fields: applied,
    });
    encode(&mut merged, owners);
    Ok(merged)
}

/// The part of a configuration that an apply to the object or to a subresource is about.
fn scoped(kind: &Kind, sub: Option<Sub>, config: &Value) -> Value {
    let mut config = config.clone();
    if let Some(map) = config.as_object_mut() {
        match sub {
            Some(Sub::Status) => map.retain(|name, _| matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "status")),
            _ if kind.has(Sub::Status) => drop(map.remove("status")),
            _ => {}
        }
    }
    config
}

fn conflicts(owners: &[Owner], manager: &str, sub: Option<Sub>, applied: &Set, live: &Value, config: &Value) -> Vec<(usize, Path)> {
    let mut found = Vec::new();
    for (at, owner) in owners.iter().enumerate() {
        if owner.is(manager, true, sub) {
            continue;
        }
        for path in owner.fields.intersection(applied) {
            if is_changed(live, config, path) {
                found.push((at, path.clone()));
            }
        }
    }
    found
}

fn conflict_refusal(owners: &[Owner], conflicts: &[(usize, Path)]) -> Refusal {
    let name = |at: &usize| owners.get(*at).map(Owner::display).unwrap_or_default();
    let causes: Vec<Value> = conflicts
        .iter()
        .map(|(at, path)| {
            json!({"reason": "FieldManagerConflict", "message": format!("conflict with {}", name(at)), "field": sets::display(path)})
        })
        .collect();
    let message = match conflicts {
        [(at, path)] => format!("Apply failed with 1 conflict: conflict with {}: {}", name(at), sets::display(path)),
        many => {
            let mut message = format!("Apply failed with {} conflicts: ", many.len());
            let mut last = None;
            for (at, path) in many {
                if last != Some(at) {
                    let lead = if last.is_some() { "\n" } else { "" };
                    message.push_str(&format!("{lead}conflicts with {}:", name(at)));
                    last = Some(at);
                }
                message.push_str(&format!("\n- {}", sets::display(path)));
            }
            message
        }
    };
    let mut refusal = Refusal::new(409, "Conflict", message);
    refusal.details = Some(json!({"causes": causes}));
    refusal
}

#[cfg(test)]
mod tests {
    use super::super::super::kinds::builtin;
    use super::*;

    fn deployment(replicas: i64, image: &str) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"app": "web"}},
            "spec": {"replicas": replicas, "template": {"spec": {"containers": [{"name": "app", "image": image,
            "ports": [{"containerPort": 80}]}]}}}})
    }

    fn kind() -> std::sync::Arc<Kind> {
        builtin("apps", "v1", "deployments").unwrap()
    }

    #[test]
    fn sets_survive_their_encoding() {
        let set = sets::leaves(&kind(), &deployment(2, "a:1"));
        assert_eq!(sets::decode(&sets::encode(&set)), set);
        assert!(
            sets::encode(&set)["f:spec"]["f:template"]["f:spec"]["f:containers"]["k:{\"name\":\"app\"}"]["f:ports"]
                .get("k:{\"containerPort\":80,\"protocol\":\"TCP\"}")
                .is_some()
        );
    }

    #[test]
    fn another_managers_value_is_a_conflict_unless_forced() {
        let live = apply(&kind(), None, "first", false, None, &deployment(2, "a:1")).unwrap();
        let refusal = apply(&kind(), None, "second", false, Some(&live), &deployment(3, "a:1")).unwrap_err();
        assert_eq!(refusal.code, 409);
        assert_eq!(refusal.message, "Apply failed with 1 conflict: conflict with \"first\": .spec.replicas");
        assert_eq!(refusal.details.unwrap()["causes"][0]["field"], ".spec.replicas");

        let forced = apply(&kind(), None, "second", true, Some(&live), &deployment(3, "a:1")).unwrap();
        assert_eq!(forced["spec"]["replicas"], 3);
        let refusal = apply(&kind(), None, "first", false, Some(&forced), &deployment(2, "a:1")).unwrap_err();
        assert!(refusal.message.contains("\"second\": .spec.replicas"), "{}", refusal.message);
    }

    #[test]
    fn equal_values_are_shared_and_survive_one_owners_leaving() {
        let live = apply(&kind(), None, "first", false, None, &deployment(2, "a:1")).unwrap();
        let live = apply(&kind(), None, "second", false, Some(&live), &deployment(2, "a:1")).unwrap();
        let mut without = deployment(2, "a:1");
        without["spec"].as_object_mut().unwrap().remove("replicas");
        let live = apply(&kind(), None, "first", false, Some(&live), &without).unwrap();
        assert_eq!(live["spec"]["replicas"], 2);
        let live = apply(&kind(), None, "second", false, Some(&live), &without).unwrap();
        assert!(live["spec"].get("replicas").is_none(), "the last owner gave it up");
    }

    #[test]
    fn items_left_out_of_a_later_apply_are_removed() {
        let mut two = deployment(1, "a:1");
        two["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "side", "image": "s:1"}));
        let mut live = apply(&kind(), None, "m", false, None, &two).unwrap();
        // A default that nobody applied goes with its item.
        live["spec"]["template"]["spec"]["containers"][1]["imagePullPolicy"] = "Always".into();
        let live = apply(&kind(), None, "m", false, Some(&live), &deployment(1, "a:1")).unwrap();
        assert_eq!(live["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn applying_the_same_again_changes_nothing() {
        let live = apply(&kind(), None, "m", false, None, &deployment(1, "a:1")).unwrap();
        assert_eq!(apply(&kind(), None, "m", false, Some(&live), &deployment(1, "a:1")).unwrap(), live);
    }

    #[test]
    fn an_update_takes_ownership_of_what_it_changes() {
        let live = apply(&kind(), None, "m", false, None, &deployment(1, "a:1")).unwrap();
        let mut edited = live.clone();
        edited["spec"]["replicas"] = 5.into();
        written(&Write { manager: "kubectl-edit".into(), sub: None }, Some(&live), &mut edited, &kind());
        let refusal = apply(&kind(), None, "m", false, Some(&edited), &deployment(1, "a:1")).unwrap_err();
        assert!(refusal.message.contains("conflict with \"kubectl-edit\" using apps/v1: "), "{}", refusal.message);
        assert!(refusal.message.ends_with(": .spec.replicas"), "{}", refusal.message);
    }

    #[test]
    fn ever_new_managers_are_folded() {
        let mut object = json!({"metadata": {"name": "a"}, "data": {}});
        let kind = builtin("", "v1", "configmaps").unwrap();
        for n in 0..30 {
            let old = object.clone();
            object["data"][format!("k{n}")] = "v".into();
            written(&Write { manager: format!("m{n}"), sub: None }, Some(&old), &mut object, &kind);
        }
        assert!(object["metadata"]["managedFields"].as_array().unwrap().len() <= UPDATE_MANAGERS);
    }
}
