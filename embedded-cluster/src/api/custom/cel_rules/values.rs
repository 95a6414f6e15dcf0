//! Objects as values of CEL, typed by their schema (`UnstructuredToVal`).

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use cel::ExecutionError;
use cel::common::traits::{Adder, Container, Indexer, Iterable, Sizer, Zeroer};
use cel::common::types::{CelBool, CelBytes, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, Type};
use cel::common::value::{Builtin, BuiltinRef, CowVal, Val};
use serde_json::{Map, Value};

use super::library;
use super::shape::{escape, is_embedded, is_int_or_string, is_typed};

pub(super) type Boxed<'v> = Box<dyn Val + 'v>;

/// `is_resource`: an object with apiVersion, kind and metadata.
pub(super) fn to_cel<'v>(schema: &'v Value, value: &'v Value, is_resource: bool) -> Boxed<'v> {
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(bool) => Box::new(CelBool::from(*bool)),
        Value::Number(number) => {
            let wants_double = schema["type"] == "number" && !is_int_or_string(schema);
            match number.as_i64() {
                Some(int) if !wants_double => Box::new(CelInt::from(int)),
                _ => {
                    let double = number.as_f64().unwrap_or_default();
                    // `1.0` is an integer to JSON schemas.
                    let is_whole = schema["type"] == "integer" && double.fract() == 0.0 && double.abs() < 9e18;
                    if is_whole { Box::new(CelInt::from(double as i64)) } else { Box::new(CelDouble::from(double)) }
                }
            }
        }
        Value::String(text) => from_text(schema, text),
        Value::Array(items) => {
            let below = &schema["items"];
            let values: Vec<Boxed<'v>> = items.iter().map(|item| to_cel(below, item, is_embedded(below))).collect();
            let identity = Identity::of(schema);
            Box::new(SharedList { list: Arc::new(CelList::from(values)), identity })
        }
        Value::Object(map) => object(schema, map, is_resource),
    }
}

fn object<'v>(schema: &'v Value, map: &'v Map<String, Value>, is_resource: bool) -> Boxed<'v> {
    let mut fields = HashMap::with_capacity(map.len());
    let any = &schema["additionalProperties"];
    for (name, value) in map {
        if is_resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            let value = if name == "metadata" { metadata(value) } else { to_cel(&Value::Null, value, false) };
            fields.insert(CelMapKey::from(name.as_str()), value);
        } else if any.is_object() {
            fields.insert(CelMapKey::from(name.as_str()), to_cel(any, value, is_embedded(any)));
        } else if let Some(below) = schema["properties"].get(name).filter(|below| is_typed(below))
            && let Some(escaped) = escape(name)
        {
            let key = match escaped {
                Cow::Borrowed(name) => CelMapKey::from(name),
                Cow::Owned(name) => CelMapKey::from(name),
            };
            fields.insert(key, to_cel(below, value, is_embedded(below)));
        }
    }
    Box::new(SharedMap(Arc::new(CelMap::from(fields))))
}

fn metadata(value: &Value) -> Boxed<'_> {
    let mut fields: HashMap<CelMapKey<'_>, Boxed<'_>> = HashMap::new();
    for name in ["name", "generateName"] {
        if let Some(text) = value[name].as_str() {
            fields.insert(CelMapKey::from(name), Box::new(CelString::from(text)));
        }
    }
    Box::new(SharedMap(Arc::new(CelMap::from(fields))))
}

/// A text of a wrong format stays a text: the schema's own validation tells of it.
fn from_text<'v>(schema: &Value, text: &'v str) -> Boxed<'v> {
    let plain = || -> Boxed<'v> { Box::new(CelString::from(text)) };
    if is_int_or_string(schema) {
        return plain();
    }
    let read = |function: &str, text: String| library::convert(function, text).unwrap_or_else(plain);
    match schema["format"].as_str() {
        Some("date-time" | "datetime") => read("timestamp", text.to_owned()),
        Some("date") => read("timestamp", format!("{text}T00:00:00Z")),
        Some("duration") => read("duration", text.to_owned()),
        Some("byte") => match base64::engine::general_purpose::STANDARD.decode(text) {
            Ok(bytes) => Box::new(CelBytes::from(bytes)),
            Err(_) => plain(),
        },
        _ => plain(),
    }
}

/// When two items of a list are the same one (`x-kubernetes-list-type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identity<'v> {
    Position,
    Set,
    Keys(&'v Value),
}

impl<'v> Identity<'v> {
    fn of(schema: &'v Value) -> Self {
        match schema["x-kubernetes-list-type"].as_str() {
            Some("set") => Self::Set,
            Some("map") => Self::Keys(&schema["x-kubernetes-list-map-keys"]),
            _ => Self::Position,
        }
    }

    fn key(self, item: &dyn Val) -> String {
        match self {
            Self::Position | Self::Set => format!("{item:?}"),
            Self::Keys(keys) => {
                let map = item.downcast_ref::<CelMap>();
                let names = keys.as_array().into_iter().flatten().filter_map(Value::as_str);
                let values = names.map(|name| map.and_then(|map| map.inner().get(&CelMapKey::from(escape(name)?.into_owned()))));
                values.map(|value| format!("{value:?}\n")).collect()
            }
        }
    }
}

/// A list that is cheap to copy: comprehensions copy what they iterate over.
#[derive(Clone, Debug)]
pub(super) struct SharedList<'v> {
    list: Arc<CelList<'v>>,
    identity: Identity<'v>,
}

impl SharedList<'_> {
    /// Whether sets and maps hold the same in another order.
    fn is_same_set(&self, other: &CelList<'_>) -> bool {
        let theirs: HashMap<String, &Boxed<'_>> = other.inner().iter().map(|item| (self.identity.key(item.as_ref()), item)).collect();
        let has = |item: &Boxed<'_>| theirs.get(&self.identity.key(item.as_ref())).is_some_and(|other| item.equals(other.as_ref()));
        self.list.inner().len() == other.inner().len() && self.list.inner().iter().all(has)
    }
}

impl Val for SharedList<'_> {
    fn get_type(&self) -> &Type {
        self.list.get_type()
    }

    fn cel_type() -> &'static Type {
        <CelList<'_> as Val>::cel_type()
    }

    fn as_adder<'b, 'w>(&'b self) -> Option<&'b (dyn Adder + 'w)>
    where
        Self: 'w,
    {
        Some(self)
    }

    fn as_container(&self) -> Option<&dyn Container> {
        self.list.as_container()
    }

    fn as_indexer<'b, 'w>(&'b self) -> Option<&'b (dyn Indexer + 'w)>
    where
        Self: 'w,
    {
        self.list.as_indexer()
    }

    fn as_iterable<'b, 'w>(&'b self) -> Option<&'b (dyn Iterable + 'w)>
    where
        Self: 'w,
    {
        self.list.as_iterable()
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        self.list.as_sizer()
    }

    fn as_zeroer(&self) -> Option<&dyn Zeroer> {
        self.list.as_zeroer()
    }

    fn equals(&self, other: &dyn Val) -> bool {
        self.list.equals(other)
            || self.identity != Identity::Position && other.downcast_ref::<CelList>().is_some_and(|other| self.is_same_set(other))
    }

    fn clone_as_boxed<'w>(&self) -> Box<dyn Val + 'w>
    where
        Self: 'w,
    {
        Box::new(self.clone())
    }

    fn as_builtin<'b, 'w>(&'b self) -> BuiltinRef<'b, 'w>
    where
        Self: 'w,
    {
        BuiltinRef::List(&self.list)
    }

    fn into_builtin<'w>(self: Box<Self>) -> Option<Builtin<'w>>
    where
        Self: 'w,
    {
        Some(Builtin::List(CelList::clone(&self.list)))
    }
}

impl Adder for SharedList<'_> {
    /// Sets and maps are merged: what both have is there once, and the right one's counts.
    fn add<'b, 'w>(&'b self, rhs: &(dyn Val + 'w)) -> Result<CowVal<'b, 'w>, ExecutionError>
    where
        Self: 'w,
    {
        let Some(other) = rhs.downcast_ref::<CelList>().filter(|_| self.identity != Identity::Position) else {
            return self.list.add(rhs);
        };
        let key = |item: &Boxed<'_>| self.identity.key(item.as_ref());
        let mut merged: Vec<Boxed<'w>> = self.list.inner().iter().map(|item| item.clone_as_boxed()).collect();
        let mut places: HashMap<String, usize> = merged.iter().enumerate().map(|(place, item)| (key(item), place)).collect();
        for item in other.inner() {
            match places.get(&key(item)) {
                Some(place) => merged[*place] = item.clone_as_boxed(),
                None => {
                    places.insert(key(item), merged.len());
                    merged.push(item.clone_as_boxed());
                }
            }
        }
        Ok(CowVal::owned(CelList::from(merged)))
    }
}

/// An object or map that is cheap to copy.
#[derive(Clone, Debug)]
pub(super) struct SharedMap<'v>(Arc<CelMap<'v>>);

impl Val for SharedMap<'_> {
    fn get_type(&self) -> &Type {
        self.0.get_type()
    }

    fn cel_type() -> &'static Type {
        <CelMap<'_> as Val>::cel_type()
    }

    fn as_container(&self) -> Option<&dyn Container> {
        self.0.as_container()
    }

    fn as_indexer<'b, 'w>(&'b self) -> Option<&'b (dyn Indexer + 'w)>
    where
        Self: 'w,
    {
        self.0.as_indexer()
    }

    fn as_iterable<'b, 'w>(&'b self) -> Option<&'b (dyn Iterable + 'w)>
    where
        Self: 'w,
    {
        self.0.as_iterable()
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        self.0.as_sizer()
    }

    fn as_zeroer(&self) -> Option<&dyn Zeroer> {
        self.0.as_zeroer()
    }

    fn equals(&self, other: &dyn Val) -> bool {
        self.0.equals(other)
    }

    fn clone_as_boxed<'w>(&self) -> Box<dyn Val + 'w>
    where
        Self: 'w,
    {
        Box::new(self.clone())
    }

    fn as_builtin<'b, 'w>(&'b self) -> BuiltinRef<'b, 'w>
    where
        Self: 'w,
    {
        BuiltinRef::Map(&self.0)
    }

    fn into_builtin<'w>(self: Box<Self>) -> Option<Builtin<'w>>
    where
        Self: 'w,
    {
        Some(Builtin::Map(CelMap::clone(&self.0)))
    }
}
