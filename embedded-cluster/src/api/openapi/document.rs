//! The document of one group version.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::super::discovery;
use super::super::kinds::Kind;
use super::super::status::Refusal;
use super::schemas::{self, Schemas};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// # Errors
/// 404 for a group version that is not served.
pub(super) fn document(kinds: &[Arc<Kind>], group: &str, version: &str) -> Result<String, Refusal> {
    let ours: Vec<&Arc<Kind>> = kinds.iter().filter(|kind| kind.resource.group == group && kind.resource.version == version).collect();
    let reviews = || {
        discovery::ANSWERED.iter().filter(|answered| answered.group == group && answered.version == version).map(|answered| answered.kind)
    };
    if ours.is_empty() && reviews().next().is_none() {
        return Err(Refusal::no_such_resource());
    }
    let unpacked = schemas::unpack()?;
    let schemas = Schemas::read(&unpacked);
    let mut paths = Map::new();
    let mut wanted: Vec<String> = reviews().filter_map(|kind| schemas.name_of(group, version, kind).map(str::to_owned)).collect();
    let mut own: BTreeMap<String, String> = BTreeMap::new();
    for kind in ours {
        let name = schema_name(&schemas, kind);
        if let Some(schema) = super::super::custom::open_api(kind) {
            let (schema, list) = custom_schemas(kind, &name, schema);
            wanted.extend(schemas::references(&schema).chain(schemas::references(&list)).map(str::to_owned));
            own.insert(format!("{name}List"), list);
            own.insert(name.clone(), schema);
        } else {
            wanted.extend([name.clone(), format!("{name}List")]);
        }
        for sub in &kind.subresources {
            let (_, other) = sub.discovery();
            wanted.extend(other.and_then(|(group, version, kind)| schemas.name_of(group, version, kind)).map(str::to_owned));
        }
        wanted.extend([format!("{META}.Status"), format!("{META}.DeleteOptions")]);
        let (collection, object) = operations(kind, &name);
        let url = url(kind);
        paths.insert(url.clone(), collection);
        paths.insert(format!("{url}/{{name}}"), object);
    }
    let shared = schemas.closure(wanted.iter().map(String::as_str));
    let all = shared.iter().map(|(name, text)| (*name, *text)).chain(own.iter().map(|(name, text)| (name.as_str(), text.as_str())));
    let mut text = format!(
        "{{\"openapi\":\"3.0.0\",\"info\":{{\"title\":\"Kubernetes\",\"version\":\"unversioned\"}},\"paths\":{},\"components\":{{\"schemas\":{{",
        Value::Object(paths)
    );
    for (index, (name, schema)) in all.enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(&format!("\"{name}\":{schema}"));
    }
    text.push_str("}}}");
    Ok(text)
}

/// The published name of a built-in kind's schema; for others kube-apiserver makes it from the group.
fn schema_name(schemas: &Schemas, kind: &Kind) -> String {
    let resource = &kind.resource;
    match schemas.name_of(&resource.group, &resource.version, &resource.kind) {
        Some(name) => name.to_owned(),
        None => {
            let group: Vec<&str> = resource.group.rsplit('.').collect();
            format!("{}.{}.{}", group.join("."), resource.version, resource.kind)
        }
    }
}

/// The schemas of a custom resource and of its list.
fn custom_schemas(kind: &Kind, name: &str, mut schema: Value) -> (String, String) {
    let resource = &kind.resource;
    let gvk = |kind: &str| json!([{"group": resource.group, "version": resource.version, "kind": kind}]);
    let refer =
        |to: &str, description: &str| json!({"description": description, "allOf": [{"$ref": format!("#/components/schemas/{to}")}]});
    schema["properties"]["metadata"] = refer(
        &format!("{META}.ObjectMeta"),
        "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
    );
    schema["x-kubernetes-group-version-kind"] = gvk(&resource.kind);
    let properties = &schema["properties"];
    let list = json!({
        "description": format!("{} is a list of {}", kind.list_kind(), resource.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": properties["apiVersion"],
            "items": {"type": "array", "items": {"$ref": format!("#/components/schemas/{name}")},
                "description": format!("List of {}.", resource.plural)},
            "kind": properties["kind"],
            "metadata": refer(&format!("{META}.ListMeta"), "Standard list metadata."),
        },
        "x-kubernetes-group-version-kind": gvk(&kind.list_kind()),
    });
    (schema.to_string(), list.to_string())
}

/// The path of a kind's objects, without their name.
fn url(kind: &Kind) -> String {
    let resource = &kind.resource;
    let root = if resource.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", resource.group) };
    let namespace = if kind.is_namespaced() { "/namespaces/{namespace}" } else { "" };
    format!("{root}/{}{namespace}/{}", resource.version, resource.plural)
}

/// What can be done to the collection and to an object. kubectl looks at the patch operation: does the server take
/// `fieldValidation`, and so validate by itself? Which patches does it take?
fn operations(kind: &Kind, schema_name: &str) -> (Value, Value) {
    let resource = &kind.resource;
    let gvk = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
    let parameter = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    let writing = ["dryRun", "fieldManager", "fieldValidation"].map(parameter);
    let patching = ["dryRun", "fieldManager", "fieldValidation", "force"].map(parameter);
    let listing = [
        "allowWatchBookmarks",
        "continue",
        "fieldSelector",
        "labelSelector",
        "limit",
        "resourceVersion",
        "resourceVersionMatch",
        "sendInitialEvents",
        "timeoutSeconds",
        "watch",
    ]
    .map(parameter);
    let schema = |name: &str| json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{name}")}}});
    let (one, list, status) = (schema(schema_name), schema(&format!("{schema_name}List")), schema(&format!("{META}.Status")));
    let operation = |verb: &str, action: &str, parameters: &[Value], answer: &Value| {
        json!({
            "operationId": format!("{verb}{}{}{}", title(&resource.group), title(&resource.version), resource.kind),
            "parameters": parameters,
            "responses": {"200": {"description": "OK", "content": answer}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk,
        })
    };
    let mut create = operation("create", "post", &writing, &one);
    create["requestBody"] = json!({"required": true, "content": one});
    let mut replace = operation("replace", "put", &writing, &one);
    replace["requestBody"] = json!({"required": true, "content": one});
    let mut patch = operation("patch", "patch", &patching, &one);
    let mut media = vec!["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"];
    if kind.custom.is_none() {
        media.push("application/strategic-merge-patch+json");
    }
    let any = json!({"schema": {"$ref": format!("#/components/schemas/{META}.Patch")}});
    patch["requestBody"] =
        json!({"required": true, "content": media.into_iter().map(|media| (media.to_owned(), any.clone())).collect::<Map<_, _>>()});
    let collection = json!({"get": operation("list", "list", &listing, &list), "post": create,
        "delete": operation("deletecollection", "deletecollection", &listing, &status)});
    let object = json!({"get": operation("read", "get", &[], &one), "put": replace, "patch": patch,
        "delete": operation("delete", "delete", &["dryRun", "gracePeriodSeconds", "propagationPolicy"].map(parameter), &status)});
    (collection, object)
}

/// `networking.k8s.io` → `Networking`
fn title(text: &str) -> String {
    let first = text.split('.').next().unwrap_or_default();
    let first = if first.is_empty() { "core" } else { first };
    let mut letters = first.chars();
    letters.next().map(|letter| letter.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}
