//! Kubernetes' schemas of the built-in kinds, unpacked for the moment in which they are asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use sha2::{Digest as _, Sha256};

use super::super::status::Refusal;

/// `embedded-cluster/openapi/README.md` says where they are from.
const PACKED: &[u8] = include_bytes!("../../../openapi/schemas.deflate");
/// Bytes; more than they take (715 KB) leave untouched pages, which cost nothing.
const ROOM: usize = 2 * 1024 * 1024;

const REFERENCE: &str = "\"#/components/schemas/";

struct Schema<'a> {
    /// Group, version, kind; all empty for schemas that are not of one kind.
    kind: [&'a str; 3],
    text: &'a str,
}

/// All schemas, as text: nothing needs to look into them but for references.
pub(super) struct Schemas<'a> {
    by_name: BTreeMap<&'a str, Schema<'a>>,
}

/// Another for every other set of schemas.
pub(super) fn digest() -> &'static [u8; 32] {
    static DIGEST: LazyLock<[u8; 32]> = LazyLock::new(|| Sha256::digest(PACKED).into());
    &DIGEST
}

/// The text that [`Schemas`] reads.
///
/// # Errors
/// 500 when the embedded data are damaged; a test reads them.
pub(super) fn unpack() -> Result<String, Refusal> {
    String::from_utf8(inflate(PACKED, ROOM)?).map_err(Refusal::internal)
}

/// Unpacks what takes at most `room` bytes.
pub(super) fn inflate(packed: &[u8], room: usize) -> Result<Vec<u8>, Refusal> {
    let mut bytes = vec![0; room];
    let length = miniz_oxide::inflate::decompress_slice_iter_to_slice(&mut bytes, std::iter::once(packed), false, false)
        .map_err(|status| Refusal::internal(format!("the OpenAPI schemas cannot be unpacked: {status:?}")))?;
    bytes.truncate(length);
    Ok(bytes)
}

impl<'a> Schemas<'a> {
    pub fn read(text: &'a str) -> Self {
        let schema = |line: &'a str| {
            let mut fields = line.splitn(5, '\t');
            let mut next = || fields.next();
            let (name, group, version, kind, text) = (next()?, next()?, next()?, next()?, next()?);
            Some((name, Schema { kind: [group, version, kind], text }))
        };
        Self { by_name: text.lines().filter_map(schema).collect() }
    }

    /// The name of a kind's schema.
    pub fn name_of(&self, group: &str, version: &str, kind: &str) -> Option<&'a str> {
        self.by_name.iter().find(|(_, schema)| schema.kind == [group, version, kind]).map(|(name, _)| *name)
    }

    /// The named schemas and all that they refer to, by name.
    pub fn closure<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> BTreeMap<&'a str, &'a str> {
        let mut wanted: Vec<&str> = names.into_iter().collect();
        let mut asked: BTreeSet<String> = BTreeSet::new();
        let mut found = BTreeMap::new();
        while let Some(name) = wanted.pop() {
            if !asked.insert(name.to_owned()) {
                continue;
            }
            if let Some((name, schema)) = self.by_name.get_key_value(name) {
                found.insert(*name, schema.text);
                wanted.extend(references(schema.text));
            }
        }
        found
    }
}

/// The names of the schemas that a text refers to.
pub(super) fn references(text: &str) -> impl Iterator<Item = &str> {
    text.split(REFERENCE).skip(1).filter_map(|rest| rest.split('"').next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_kind_has_a_schema_and_no_reference_leads_nowhere() {
        let text = unpack().unwrap();
        let schemas = Schemas::read(&text);
        for kind in crate::api::served_resources() {
            let name = schemas.name_of(&kind.group, &kind.version, &kind.kind);
            assert!(name.is_some(), "{kind:?}");
            assert!(schemas.name_of(&kind.group, &kind.version, &format!("{}List", kind.kind)).is_some(), "{kind:?}");
        }
        for (name, schema) in &schemas.by_name {
            let parsed: serde_json::Value = serde_json::from_str(schema.text).unwrap();
            assert!(parsed.is_object(), "{name}");
            for reference in references(schema.text) {
                assert!(schemas.by_name.contains_key(reference), "{name} refers to {reference}");
            }
        }
        let pod = schemas.closure([schemas.name_of("", "v1", "Pod").unwrap()]);
        assert!(pod.contains_key("io.k8s.api.core.v1.TCPSocketAction"), "a pod's probes");
        assert!(!pod.contains_key("io.k8s.api.core.v1.Service"));
    }

    /// What `api/patch/lists.rs` knows by heart must be what Kubernetes publishes.
    #[test]
    fn lists_are_merged_as_published() {
        use crate::api::kinds::{self, Kind};
        use crate::api::patch::lists::{self, Keys, ListRule};
        use serde_json::Value;

        struct Walk<'a> {
            schemas: BTreeMap<&'a str, Value>,
            wrong: BTreeSet<String>,
        }
        fn visit<'s>(walk: &Walk<'s>, kind: &Kind, path: &mut Vec<String>, schema: &Value, item: bool, wrong: &mut BTreeSet<String>) {
            let target = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str());
            let resolved = target.map(|target| &walk.schemas[target.trim_start_matches("#/components/schemas/")]);
            let names: Vec<&str> = path.iter().map(String::as_str).collect();
            let either = |field: &str| [Some(schema), resolved].into_iter().flatten().find_map(|s| s[field].as_str().map(str::to_owned));
            if schema["type"] == "array" {
                let mut keys: Vec<&str> =
                    schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                keys.sort_unstable();
                let published = match schema["x-kubernetes-list-type"].as_str() {
                    Some("map") => format!("map by {keys:?}"),
                    Some("set") => "set".to_owned(),
                    _ => "atomic".to_owned(),
                };
                let ours = match lists::rule(kind, &names) {
                    ListRule::Map(keys @ (Keys::Known(_) | Keys::Declared(_))) => format!("map by {:?}", keys.names()),
                    ListRule::Set => "set".to_owned(),
                    ListRule::Atomic => "atomic".to_owned(),
                };
                // Statuses are written by one controller each; some of their lists differ between the two merges.
                if published != ours && path.first().is_none_or(|first| first != "status") {
                    wrong.insert(format!("{} {}: published {published}, ours {ours}", kind.resource.kind, names.join(".")));
                }
                visit(walk, kind, path, &schema["items"], true, wrong);
                return;
            }
            let object = resolved.unwrap_or(schema);
            if object["properties"].is_object() {
                let atomic = either("x-kubernetes-map-type").as_deref() == Some("atomic");
                if !item && atomic != lists::is_atomic_map(kind, &names) && !names.is_empty() {
                    wrong.insert(format!("{} {}: atomic map {atomic}", kind.resource.kind, names.join(".")));
                }
            }
            for (name, below) in object["properties"].as_object().into_iter().flatten() {
                if path.len() < 14 && name != "managedFields" {
                    path.push(name.clone());
                    visit(walk, kind, path, below, false, wrong);
                    path.pop();
                }
            }
        }

        let text = unpack().unwrap();
        let schemas = Schemas::read(&text);
        let mut walk = Walk { schemas: BTreeMap::new(), wrong: BTreeSet::new() };
        for (name, schema) in &schemas.by_name {
            walk.schemas.insert(name, serde_json::from_str(schema.text).unwrap());
        }
        for kind in kinds::builtins().iter().filter(|kind| kind.resource.group != "apiextensions.k8s.io") {
            let name = schemas.name_of(&kind.resource.group, &kind.resource.version, &kind.resource.kind).unwrap();
            let mut wrong = BTreeSet::new();
            visit(&walk, kind, &mut Vec::new(), &walk.schemas[name], false, &mut wrong);
            walk.wrong.extend(wrong);
        }
        assert!(walk.wrong.is_empty(), "{:#?}", walk.wrong);
    }
}
