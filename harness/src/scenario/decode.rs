//! From a YAML tree to typed elements, telling every mistake on the way instead of stopping at the first.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};

use super::problem::{Mistake, Problems, Span};
use super::yaml::{Node, Yaml};

/// What can be read from a YAML value. `None` means that a mistake was added.
pub trait Decode: Sized {
    fn decode(node: &Node, problems: &mut Problems) -> Option<Self>;

    /// What stands for a key that is left out; `None`: the key has to be there.
    fn absent() -> Option<Self> {
        None
    }
}

/// A value and where it stands. Two are equal when their values are.
#[derive(Clone, Debug, Default)]
pub struct Spanned<T> {
    pub value: T,
    pub span: Span,
}

impl<T: PartialEq> PartialEq for Spanned<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T> std::ops::Deref for Spanned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Serialize> Serialize for Spanned<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl<T: JsonSchema> JsonSchema for Spanned<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> std::borrow::Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl<T: Decode> Decode for Spanned<T> {
    fn decode(node: &Node, problems: &mut Problems) -> Option<Self> {
        T::decode(node, problems).map(|value| Spanned { value, span: node.start() })
    }
}

/// The keys of one mapping, taken one by one; what is left over at the end is unknown.
pub struct Fields<'a> {
    element: &'static str,
    entries: Vec<(&'a super::yaml::Key, &'a Node)>,
    span: Span,
}

impl<'a> Fields<'a> {
    /// `known`: every key that the element has, for the hint at an unknown one.
    pub fn open(node: &'a Node, element: &'static str, known: &[&str], problems: &mut Problems) -> Option<Self> {
        let Yaml::Mapping(entries) = &node.value else {
            wrong_type(node, "a mapping", problems);
            return None;
        };
        let known: Vec<String> = known.iter().map(|name| key_name(name)).collect();
        for (key, _) in entries {
            if !known.contains(&key.name) {
                let mistake = Mistake::UnknownKey { key: key.name.clone(), element: element.to_owned(), known: known.clone() };
                problems.add(key.span, mistake);
            }
        }
        let span = entries.first().map_or(node.span, |(key, _)| key.span);
        Some(Fields { element, entries: entries.iter().map(|(key, node)| (key, node)).collect(), span })
    }

    /// The value of a key that is given.
    pub fn node(&self, name: &str) -> Option<&'a Node> {
        let (_, node) = self.entries.iter().find(|(key, _)| key.name == name)?;
        // `key:` with nothing after it is a key left out, as everywhere in Kubernetes.
        Some(*node).filter(|node| node.value != Yaml::Null)
    }

    pub fn field<T: Decode>(&mut self, name: &str, problems: &mut Problems) -> Option<T> {
        let name = key_name(name);
        match self.entries.iter().find(|(key, _)| key.name == name) {
            // `key:` with nothing after it is a key left out, as everywhere in Kubernetes.
            Some((key, Node { value: Yaml::Null, .. })) => T::absent().or_else(|| {
                problems.add(key.span, Mistake::MissingKey { key: name, element: self.element.to_owned() });
                None
            }),
            Some((_, node)) => T::decode(node, problems),
            None => T::absent().or_else(|| {
                problems.add(self.span, Mistake::MissingKey { key: name, element: self.element.to_owned() });
                None
            }),
        }
    }
}

/// `read_timeout` and `r#while` as they are written in a file.
pub fn key_name(field: &str) -> String {
    field.trim_start_matches("r#").replace('_', "-")
}

/// `ConnectionRefused` as it is written in a file.
pub fn choice_name(variant: &str) -> String {
    let mut name = String::new();
    for letter in variant.chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

pub fn wrong_type(node: &Node, expected: &str, problems: &mut Problems) {
    problems.add(
        node.span,
        Mistake::WrongType {
            expected: expected.to_owned(),
            found: node.kind().to_owned(),
            quote: expected == "text" && matches!(node.value, Yaml::Bool(_) | Yaml::Integer(_) | Yaml::Float(_)),
        },
    );
}

/// Reads text that has a grammar of its own. `what`: `a duration`; `example`: one that is right.
pub fn parsed<T>(
    node: &Node,
    problems: &mut Problems,
    what: &str,
    example: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Option<T> {
    let text = match &node.value {
        Yaml::String(text) => text.clone(),
        Yaml::Integer(number) => number.to_string(),
        Yaml::Float(number) => number.to_string(),
        _ => {
            wrong_type(node, what, problems);
            return None;
        }
    };
    match parse(&text) {
        Ok(value) => Some(value),
        Err(reason) => {
            let mistake = Mistake::BadValue { value: text, what: what.to_owned(), reason, example: example.to_owned() };
            problems.add(node.span, mistake);
            None
        }
    }
}

impl Decode for String {
    fn decode(node: &Node, problems: &mut Problems) -> Option<Self> {
        match &node.value {
            Yaml::String(text) => Some(text.clone()),
            _ => {
                wrong_type(node, "text", problems);
                None
            }
        }
    }
}

impl Decode for bool {
    fn decode(node: &Node, problems: &mut Problems) -> Option<Self> {
        match node.value {
            Yaml::Bool(value) => Some(value),
            _ => {
                wrong_type(node, "true or false", problems);
                None
            }
        }
    }

    fn absent() -> Option<Self> {
        Some(false)
    }
}

macro_rules! decode_integer {
    ($($integer:ty),*) => { $(
        impl Decode for $integer {
            fn decode(node: &Node, problems: &mut Problems) -> Option<Self> {
                match node.value {
                    Yaml::Integer(value) => match <$integer>::try_from(value) {
                        Ok(value) => Some(value),
                        Err(_) => {
                            problems.add(node.span, Mistake::BadValue {
                                value: value.to_string(),
                                what: "a number that fits here".to_owned(),
                                reason: format!("the range is {} to {}", <$integer>::MIN, <$integer>::MAX),
                                example: "20".to_owned(),
                            });
                            None
                        }
                    },
                    _ => {
                        wrong_type(node, "a whole number", problems);
                        None
                    }
                }
            }
        }
    )* };
}

decode_integer!(u16, u32, i32);

impl Decode for f64 {
    fn decode(node: &Node, problems: &mut Problems) -> Option<Self> {
        match node.value {
            // Scenario numbers are small: 2^53 is far away.
            #[allow(clippy::cast_precision_loss)]
            Yaml::Integer(value) => Some(value as f64),
            Yaml::Float(value) => Some(value),
            _ => {
                wrong_type(node, "a number", problems);
                None
            }
        }
    }
}

/// Free-form: Kubernetes objects and whatever else is passed on as it stands.
impl Decode for serde_json::Value {
    fn decode(node: &Node, _: &mut Problems) -> Option<Self> {
        Some(node.to_json())
    }
}

impl<T: Decode> Decode for Option<T> {
    fn decode(node: &Node, problems: &mut Problems) -> Option<Self> {
        T::decode(node, problems).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: Decode> Decode for Box<T> {
    fn decode(node: &Node, problems: &mut Problems) -> Option<Self> {
        T::decode(node, problems).map(Box::new)
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(node: &Node, problems: &mut Problems) -> Option<Self> {
        let Yaml::Sequence(items) = &node.value else {
            wrong_type(node, "a list", problems);
            return None;
        };
        // Every item is read before giving up, so that the mistakes of all are told.
        let read: Vec<Option<T>> = items.iter().map(|item| T::decode(item, problems)).collect();
        read.into_iter().collect()
    }

    fn absent() -> Option<Self> {
        Some(Vec::new())
    }
}

impl<T: Decode> Decode for BTreeMap<String, T> {
    fn decode(node: &Node, problems: &mut Problems) -> Option<Self> {
        let Yaml::Mapping(entries) = &node.value else {
            wrong_type(node, "a mapping", problems);
            return None;
        };
        let read: Vec<Option<(String, T)>> =
            entries.iter().map(|(key, value)| T::decode(value, problems).map(|value| (key.name.clone(), value))).collect();
        read.into_iter().collect()
    }

    fn absent() -> Option<Self> {
        Some(BTreeMap::new())
    }
}

/// One of something, or a list of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        OneOrMany(Vec::new())
    }
}

impl<T> std::ops::Deref for OneOrMany<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Decode> Decode for OneOrMany<T> {
    fn decode(node: &Node, problems: &mut Problems) -> Option<Self> {
        match node.value {
            Yaml::Sequence(_) => Vec::decode(node, problems).map(OneOrMany),
            _ => T::decode(node, problems).map(|one| OneOrMany(vec![one])),
        }
    }

    fn absent() -> Option<Self> {
        Some(OneOrMany(Vec::new()))
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("OneOrMany{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        schemars::json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

/// A struct that is a mapping in the file: fields in snake case are keys in kebab case, `Option`, `Vec`, maps and `bool` may be
/// left out, every other key is required, unknown keys are mistakes.
macro_rules! element {
    (
        $(#[$meta:meta])*
        pub struct $name:ident ($what:literal) {
            $( $(#[$field_meta:meta])* pub $field:ident : $type:ty ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, schemars::JsonSchema)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields)]
        pub struct $name {
            $( $(#[$field_meta])* pub $field : $type ),*
        }

        impl $crate::scenario::decode::Decode for $name {
            fn decode(
                node: &$crate::scenario::yaml::Node,
                problems: &mut $crate::scenario::problem::Problems,
            ) -> Option<Self> {
                const KEYS: &[&str] = &[$( stringify!($field) ),*];
                let mut fields = $crate::scenario::decode::Fields::open(node, $what, KEYS, problems)?;
                // All are read before any `?`, so that the mistakes of all are told.
                $( let $field = fields.field::<$type>(stringify!($field), problems); )*
                Some($name { $( $field: $field? ),* })
            }
        }
    };
}
pub(crate) use element;

/// An enum that is a word in the file, in kebab case.
macro_rules! choice {
    (
        $(#[$meta:meta])*
        pub enum $name:ident ($what:literal) {
            $( $(#[$variant_meta:meta])* $variant:ident ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name {
            $( $(#[$variant_meta])* $variant ),*
        }

        impl $name {
            /// All of them, in the order of their declaration.
            pub const ALL: &'static [$name] = &[$( $name::$variant ),*];

            /// As written in a file.
            pub fn name(self) -> String {
                match self {
                    $( $name::$variant => $crate::scenario::decode::choice_name(stringify!($variant)) ),*
                }
            }
        }

        impl $crate::scenario::decode::Decode for $name {
            fn decode(
                node: &$crate::scenario::yaml::Node,
                problems: &mut $crate::scenario::problem::Problems,
            ) -> Option<Self> {
                let text = <String as $crate::scenario::decode::Decode>::decode(node, problems)?;
                let found = $name::ALL.iter().copied().find(|choice| choice.name() == text);
                if found.is_none() {
                    problems.add(node.span, $crate::scenario::problem::Mistake::UnknownChoice {
                        value: text,
                        what: $what.to_owned(),
                        choices: $name::ALL.iter().map(|choice| choice.name()).collect(),
                    });
                }
                found
            }
        }
    };
}
pub(crate) use choice;
