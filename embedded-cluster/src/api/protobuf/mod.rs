//! Request bodies in Kubernetes' protobuf encoding, which kubectl 1.32 and later sends for `create`, `debug` and reviews.
//!
//! An envelope (`k8s\0`, then `runtime.Unknown`) holds the message. Messages are read into the JSON form by a table of
//! field numbers ([`schema`]); what the table does not know is refused, never dropped.

mod schema;
mod wire;

use serde_json::{Map, Value};

use super::status::Refusal;
use schema::{Field, Name, Type};
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
    let name = schema::of_kind(&api_version, &kind)
        .ok_or_else(|| refuse(format!("messages of type {api_version}, Kind={kind} are not known here; send JSON")))?;
    let mut object = message(name, raw, DEPTH).map_err(&refuse)?;
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(object))
}

fn message(name: Name, bytes: &[u8], depth: usize) -> Result<Map<String, Value>, String> {
    let depth = depth.checked_sub(1).ok_or("it is nested too deeply")?;
    let mut object = Map::new();
    let fields = schema::fields(name).unwrap_or_default();
    let name = name.1;
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
            Type::Texts => Value::Array(Vec::new()),
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
        Type::Time => return Ok(time(bytes(scalar)?)?.map(|time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into())),
        Type::MicroTime => return Ok(time(bytes(scalar)?)?.map(|time| time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string().into())),
        Type::Json => {
            let mut json = None;
            for entry in Reader::new(bytes(scalar)?) {
                if let (1, scalar) = entry? {
                    json = Some(serde_json::from_slice(bytes(&scalar)?).map_err(|error| format!("no JSON: {error}"))?);
                }
            }
            return Ok(json);
        }
        Type::Texts => {
            let mut texts = Vec::new();
            for entry in Reader::new(bytes(scalar)?) {
                if let (1, scalar) = entry? {
                    texts.push(Value::from(string(bytes(&scalar)?)?));
                }
            }
            texts.into()
        }
        Type::Message | Type::Inline => Value::Object(message(field.of, bytes(scalar)?, depth)?),
    }))
}

/// `None` when it is not set: the zero time has no seconds.
fn time(message: &[u8]) -> Result<Option<jiff::Timestamp>, String> {
    let (mut seconds, mut nanoseconds) = (None, 0);
    for entry in Reader::new(message) {
        match entry? {
            (1, scalar) => seconds = Some(integer(&scalar)?),
            (2, scalar) => nanoseconds = integer(&scalar)?,
            _ => {}
        }
    }
    let Some(seconds) = seconds else { return Ok(None) };
    let nanoseconds = i32::try_from(nanoseconds).map_err(|error| error.to_string())?;
    jiff::Timestamp::new(seconds, nanoseconds).map(Some).map_err(|error| error.to_string())
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

    fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let type_meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &type_meta), field(2, raw)].concat()
    }

    #[test]
    fn a_config_map_is_read() {
        let metadata = [field(1, b"settings"), field(2, b""), field(8, b"")].concat();
        let entry = [field(1, b"key"), field(2, b"value")].concat();
        let body = envelope("v1", "ConfigMap", &[field(1, &metadata), field(2, &entry)].concat());
        assert_eq!(
            decode(&body).unwrap(),
            json!({"metadata": {"name": "settings"}, "data": {"key": "value"}, "apiVersion": "v1", "kind": "ConfigMap"})
        );
    }

    /// Kubernetes' own objects with every field set: a field that is missing in the table, or read as another type, shows here.
    #[test]
    fn every_field_of_every_kind_is_read() {
        use base64::Engine as _;
        let packed = include_bytes!("../../../tests/published/kubernetes-api-v0.34.4-roundtrip.json.deflate");
        let mut text = vec![0; 1 << 20];
        let length = miniz_oxide::inflate::decompress_slice_iter_to_slice(&mut text, std::iter::once(&packed[..]), false, false).unwrap();
        let published: Value = serde_json::from_slice(&text[..length]).unwrap();
        let published = published.as_array().unwrap();
        assert!(published.len() > 50);
        for object in published {
            let kind = format!("{} {}", object["json"]["apiVersion"], object["json"]["kind"]);
            let body = base64::engine::general_purpose::STANDARD.decode(object["pb"].as_str().unwrap()).unwrap();
            let read = decode(&body).unwrap_or_else(|refusal| panic!("{kind}: {}", refusal.message));
            assert_eq!(read, object["json"], "{kind}");
        }
    }

    #[test]
    fn unknown_fields_and_types_are_refused_not_dropped() {
        let refusal = decode(&envelope("v1", "ConfigMap", &field(9, b"x"))).unwrap_err();
        assert!(refusal.message.contains("field 9 of ConfigMap is not known here"), "{}", refusal.message);
        assert_eq!(decode(&envelope("v1", "Colour", &field(1, b"x"))).unwrap_err().code, 400);
        assert_eq!(decode(b"{}").unwrap_err().code, 400);
    }

    #[test]
    fn zero_of_a_pointer_is_kept() {
        // DeploymentSpec.replicas is *int32: an explicit 0 means none.
        let body = envelope("apps/v1", "Deployment", &field(2, &[1 << 3, 0]));
        assert_eq!(decode(&body).unwrap()["spec"], json!({"replicas": 0}));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
            let _ = decode(&[MAGIC.to_vec(), bytes.clone()].concat());
            if bytes.len() < 100 {
                let _ = decode(&envelope("apps/v1", "Deployment", &bytes));
            }
        }
    }
}
