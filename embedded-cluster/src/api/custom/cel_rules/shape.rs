//! What expressions see of a schema: which fields there are, and by which names (`model.SchemaDeclType`, `cel.Escape`).

use std::borrow::Cow;

use serde_json::Value;

/// A schema node as the type of a value in an expression.
#[derive(Clone, Copy)]
pub(super) enum Shape<'s> {
    Schema {
        schema: &'s Value,
        /// The object itself, or one embedded in it: has apiVersion, kind and metadata whether or not the schema says so.
        is_resource: bool,
    },
    /// Of a resource: the name and what it is generated from, no more.
    Metadata,
    Text,
}

pub(super) enum Field<'s> {
    Known(Shape<'s>),
    /// Nobody can tell before there is an object.
    Dynamic,
    Undefined,
}

impl<'s> Shape<'s> {
    /// The type of what is below an object's property, a list's item, a map's value.
    pub fn of(schema: &'s Value) -> Option<Self> {
        is_typed(schema).then(|| Self::Schema { schema, is_resource: is_embedded(schema) })
    }

    /// Kind of value, `None` when it may be of several.
    pub fn type_name(self) -> Option<&'s str> {
        match self {
            Self::Schema { schema, .. } if is_int_or_string(schema) || schema["nullable"] == true => None,
            Self::Schema { schema, .. } => schema["type"].as_str(),
            Self::Metadata => Some("object"),
            Self::Text => Some("string"),
        }
    }

    pub fn is_map(self) -> bool {
        matches!(self, Self::Schema { schema, .. } if schema["additionalProperties"].is_object())
    }

    /// `self.name`, where the name is written as expressions write it.
    pub fn field(self, name: &str) -> Field<'s> {
        let known = |shape: Option<Self>| shape.map_or(Field::Undefined, Field::Known);
        match self {
            Self::Text => Field::Undefined,
            Self::Metadata if matches!(name, "name" | "generateName") => Field::Known(Self::Text),
            Self::Metadata => Field::Undefined,
            Self::Schema { is_resource: true, .. } if matches!(name, "apiVersion" | "kind") => Field::Known(Self::Text),
            Self::Schema { is_resource: true, .. } if name == "metadata" => Field::Known(Self::Metadata),
            Self::Schema { schema, .. } => {
                if is_int_or_string(schema) || schema["type"] != "object" {
                    return Field::Dynamic;
                }
                if self.is_map() {
                    return known(Self::of(&schema["additionalProperties"]));
                }
                let properties = schema["properties"].as_object();
                let property = properties.into_iter().flatten().find(|(property, _)| escape(property).as_deref() == Some(name));
                known(property.and_then(|(_, below)| Self::of(below)))
            }
        }
    }

    /// What `self.all(x, …)` and `self[0]` give; keys of a map are texts.
    pub fn item(self) -> Option<Self> {
        match self {
            Self::Schema { schema, .. } if schema["type"] == "array" => Self::of(&schema["items"]),
            _ => None,
        }
    }
}

pub(super) fn is_int_or_string(schema: &Value) -> bool {
    schema["x-kubernetes-int-or-string"] == true
}

pub(super) fn is_embedded(schema: &Value) -> bool {
    schema["x-kubernetes-embedded-resource"] == true
}

/// Fields of no type (`x-kubernetes-preserve-unknown-fields` alone) are not there for expressions.
pub(super) fn is_typed(schema: &Value) -> bool {
    is_int_or_string(schema) || schema["type"].is_string()
}

const RESERVED: [&str; 18] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
];

/// How an expression writes a property: `namespace` is `__namespace__`, `a-b` is `a__dash__b`. `None` when it cannot.
pub(super) fn escape(property: &str) -> Option<Cow<'_, str>> {
    if RESERVED.contains(&property) {
        return Some(format!("__{property}__").into());
    }
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/');
    if !property.chars().all(is_part) || property.is_empty() || property.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if !property.contains("__") && !property.contains(['.', '-', '/']) {
        return Some(property.into());
    }
    let escaped = property.replace("__", "__underscores__");
    Some(escaped.replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    // The examples of Kubernetes' documentation.
    #[rstest::rstest]
    #[case("namespace", Some("__namespace__"))]
    #[case("x-prop", Some("x__dash__prop"))]
    #[case("redact__d", Some("redact__underscores__d"))]
    #[case("a.b/c", Some("a__dot__b__slash__c"))]
    #[case("string", Some("string"))]
    #[case("$ref", None)]
    #[case("1st", None)]
    fn names_are_escaped(#[case] property: &str, #[case] escaped: Option<&str>) {
        assert_eq!(escape(property).as_deref(), escaped);
    }
}
