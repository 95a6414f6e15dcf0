//! Request bodies in Kubernetes' protobuf encoding, which kubectl 1.32 and later sends for `create` and reviews.
//!
//! An envelope (`k8s\0`, then `runtime.Unknown`) holds the message. Messages are read into the JSON form by a table of
//! field numbers ([`schema`]); what the table does not know is refused, never dropped.

mod schema;
mod wire;

use serde_json::{Map, Value};

use super::status::Refusal;
use schema::{Field, Type};
use wire::{Reader, Scalar};

pub(super) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";
/// Deeper than any object; guards the stack.
const DEPTH: usize = 32;

/// # Errors
/// 400 when the bytes are no such message, or of a type or with a field that is not known here.
pub(super) fn decode(body: &[u8]) -> Result<Value, Refusal> {
    let refuse = |why: String| Refusal::bad_request(format!("cannot read the protobuf body: {why}"));
    let envelope = body.strip_prefix(MAGIC).ok_or_else(|| refuse("it does not begin with the Kubernetes prefix".to_owned()))?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Reader::new(envelope) {
        match field.map_err(&refuse)? {
            (1, Scalar::Bytes(type_meta)) => {
                for field in Reader::new(type_meta) {
                    match field.map_err(&refuse)? {
                        (1, Scalar::Bytes(text)) => api_version = string(text).map_err(&refuse)?,
                        (2, Scalar::Bytes(text)) => kind = string(text).map_err(&refuse)?,
                        _ => {}
                    }
                }
            }
            (2, Scalar::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let mut object = message(&kind, raw, DEPTH).map_err(&refuse)?;
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(object))
}

fn message(name: &str, bytes: &[u8], depth: usize) -> Result<Map<String, Value>, String> {
    let depth = depth.checked_sub(1).ok_or("it is nested too deeply")?;
    let mut object = Map::new();
    if bytes.is_empty() {
        return Ok(object);
    }
    let fields = schema::fields(name).ok_or_else(|| format!("messages of type {name} are not known here; send JSON"))?;
    for entry in Reader::new(bytes) {
        let (number, scalar) = entry?;
        let field = fields
            .iter()
            .find(|field| field.number == number)
            .ok_or_else(|| format!("field {number} of {name} is not known here; send JSON"))?;
        insert(&mut object, field, &scalar, depth).map_err(|why| format!("{name}.{}: {why}", field.name))?;
    }
    Ok(object)
}

fn insert(object: &mut Map<String, Value>, field: &Field, scalar: &Scalar<'_>, depth: usize) -> Result<(), String> {
    if field.kind == Type::Inline {
        object.extend(message(field.of, bytes(scalar)?, depth)?);
        return Ok(());
    }
    if field.map {
        // A map is a list of entries with key 1 and value 2.
        let (mut key, mut value) = (String::new(), None);
        for entry in Reader::new(bytes(scalar)?) {
            match entry? {
                (1, Scalar::Bytes(text)) => key = string(text)?,
                (2, scalar) => value = one(field, &scalar, depth)?,
                _ => {}
            }
        }
        let empty = || match field.kind {
            Type::Message => Value::Object(Map::new()),
            _ => Value::from(""),
        };
        let entries = object.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
        if let Some(entries) = entries.as_object_mut() {
            entries.insert(key, value.unwrap_or_else(empty));
        }
        return Ok(());
    }
    let value = one(field, scalar, depth)?;
    if field.list {
        let list = object.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
        if let (Some(list), Some(value)) = (list.as_array_mut(), value) {
            list.push(value);
        }
        return Ok(());
    }
    // Fields that are no pointers in Go are always sent; their zero values stand for absence (`omitempty`).
    let absent = match &value {
        None => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Number(number)) => number.as_i64() == Some(0),
        Some(Value::Bool(set)) => !set,
        Some(_) => false,
    };
    if let Some(value) = value
        && (field.pointer || !absent)
    {
        object.insert(field.name.to_owned(), value);
    }
    Ok(())
}

/// One value; `None` for a time that is not set.
fn one(field: &Field, scalar: &Scalar<'_>, depth: usize) -> Result<Option<Value>, String> {
    Ok(Some(match field.kind {
        Type::Text => string(bytes(scalar)?)?.into(),
        Type::Bytes => {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.encode(bytes(scalar)?).into()
        }
        Type::Integer => integer(scalar)?.into(),
        Type::Bool => (integer(scalar)? != 0).into(),
        Type::Quantity => {
            let mut text = String::new();
            for entry in Reader::new(bytes(scalar)?) {
                if let (1, Scalar::Bytes(value)) = entry? {
                    text = string(value)?;
                }
            }
            text.into()
        }
        Type::IntOrString => {
            let (mut is_text, mut number, mut text) = (false, 0, String::new());
            for entry in Reader::new(bytes(scalar)?) {
                match entry? {
                    (1, scalar) => is_text = integer(&scalar)? == 1,
                    (2, scalar) => number = integer(&scalar)?,
                    (3, scalar) => text = string(bytes(&scalar)?)?,
                    _ => {}
                }
            }
            if is_text { text.into() } else { number.into() }
        }
        Type::Time => {
            let (mut seconds, mut set) = (0, false);
            for entry in Reader::new(bytes(scalar)?) {
                if let (1, scalar) = entry? {
                    seconds = integer(&scalar)?;
                    set = true;
                }
            }
            let time = jiff::Timestamp::from_second(seconds).map_err(|error| error.to_string())?;
            return Ok(set.then(|| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into()));
        }
        Type::Message | Type::Inline => Value::Object(message(field.of, bytes(scalar)?, depth)?),
    }))
}

fn bytes<'a>(scalar: &Scalar<'a>) -> Result<&'a [u8], String> {
    match scalar {
        Scalar::Bytes(bytes) => Ok(bytes),
        Scalar::Number(_) => Err("a number where bytes are expected".to_owned()),
    }
}

/// Protobuf's `int32` and `int64` are two's complement in 64 bits.
fn integer(scalar: &Scalar<'_>) -> Result<i64, String> {
    match scalar {
        Scalar::Number(number) => Ok(number.cast_signed()),
        Scalar::Bytes(_) => Err("bytes where a number is expected".to_owned()),
    }
}

fn string(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "text that is no UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        out.extend_from_slice(content);
        out
    }

    fn envelope(kind: &str, raw: &[u8]) -> Vec<u8> {
        let type_meta = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &type_meta), field(2, raw)].concat()
    }

    #[test]
    fn a_config_map_is_read() {
        let metadata = [field(1, b"settings"), field(2, b""), field(8, b"")].concat();
        let entry = [field(1, b"key"), field(2, b"value")].concat();
        let body = envelope("ConfigMap", &[field(1, &metadata), field(2, &entry)].concat());
        assert_eq!(
            decode(&body).unwrap(),
            json!({"metadata": {"name": "settings"}, "data": {"key": "value"}, "apiVersion": "v1", "kind": "ConfigMap"})
        );
    }

    #[test]
    fn unknown_fields_and_types_are_refused_not_dropped() {
        let refusal = decode(&envelope("ConfigMap", &field(9, b"x"))).unwrap_err();
        assert!(refusal.message.contains("field 9 of ConfigMap is not known here"), "{}", refusal.message);
        assert_eq!(decode(&envelope("Colour", &field(1, b"x"))).unwrap_err().code, 400);
        assert_eq!(decode(b"{}").unwrap_err().code, 400);
    }

    #[test]
    fn zero_of_a_pointer_is_kept() {
        // DeploymentSpec.replicas is *int32: an explicit 0 means none.
        let body = envelope("Deployment", &field(2, &[1 << 3, 0]));
        assert_eq!(decode(&body).unwrap()["spec"], json!({"replicas": 0}));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
            let _ = decode(&[MAGIC.to_vec(), bytes.clone()].concat());
            if bytes.len() < 100 {
                let _ = decode(&envelope("Deployment", &bytes));
            }
        }
    }
}
