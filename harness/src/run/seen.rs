//! An object of any kind as a watch tells of it.

use std::borrow::Cow;
use std::fmt::Formatter;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::{ApiResource, DynamicResourceScope};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

/// The whole object, without `managedFields`: noise for people, never part of a signature, and a third of the bytes. Read once, where
/// kube's `DynamicObject` is read, buffered, sorted into types and written again.
#[derive(Clone, Debug)]
pub struct Seen {
    pub object: Map<String, Value>,
    /// What the watcher itself asks for.
    metadata: ObjectMeta,
}

impl Seen {
    pub fn namespace(&self) -> Option<&str> {
        self.metadata.namespace.as_deref()
    }
}

impl<'de> Deserialize<'de> for Seen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = deserializer.deserialize_map(ObjectVisitor)?;
        let text = |field: &str| object.get("metadata").and_then(|metadata| metadata.get(field)?.as_str()).map(str::to_owned);
        let metadata = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            uid: text("uid"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        Ok(Seen { object, metadata })
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Map<String, Value>;

    fn expecting(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = if key == "metadata" { Value::Object(entries.next_value::<Metadata>()?.0) } else { entries.next_value()? };
            object.insert(key, value);
        }
        Ok(object)
    }
}

struct Metadata(Map<String, Value>);

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MetadataVisitor).map(Metadata)
    }
}

struct MetadataVisitor;

impl<'de> Visitor<'de> for MetadataVisitor {
    type Value = Map<String, Value>;

    fn expecting(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("metadata of an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut metadata = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if key == "managedFields" {
                entries.next_value::<IgnoredAny>()?;
            } else {
                metadata.insert(key, entries.next_value()?);
            }
        }
        Ok(metadata)
    }
}

impl Resource for Seen {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use kube::core::{ObjectList, WatchEvent};

    use super::*;

    const POD: &str = r#"{ "metadata": { "name": "a", "managedFields": [{ "manager": "x" }], "namespace": "shop", "labels": { "app": "shop" },
        "resourceVersion": "7", "uid": "1" }, "spec": { "nodeName": "n" } }"#;

    #[test]
    fn lists_and_watches_are_read_whole_but_for_managed_fields() {
        let list: ObjectList<Seen> =
            serde_json::from_str(&format!(r#"{{ "kind": "PodList", "apiVersion": "v1", "items": [{POD}] }}"#)).unwrap();
        let WatchEvent::Modified(told) = serde_json::from_str(&format!(r#"{{ "type": "MODIFIED", "object": {POD} }}"#)).unwrap() else {
            panic!("another event");
        };
        let mut expected: Map<String, Value> = serde_json::from_str(POD).unwrap();
        expected["metadata"].as_object_mut().unwrap().remove("managedFields");
        let seen: [&Seen; 2] = [&list.items[0], &told];
        for seen in seen {
            assert_eq!(seen.object, expected);
            assert_eq!((seen.namespace(), seen.metadata.resource_version.as_deref()), (Some("shop"), Some("7")));
        }
    }
}
