//! A line of a gateway's log that a scenario expects, by the keys of that gateway's vocabulary (`gateways`, each gateway's folder).

use std::collections::BTreeMap;
use std::fmt;

use gateways::{FieldValue, Fields as LineFields, Form, GatewayKind, log_keys};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::bound::Bound;
use super::decode::{Decode, Fields};
use super::expect::Errno;
use super::problem::Problems;
use super::text::TextMatch;
use super::yaml::Node;

/// A line of a gateway's log, in that gateway's own vocabulary. Every key that is given has to hold for the same line.
#[derive(Clone, Debug, PartialEq)]
pub struct LogExpectation {
    /// By the key's name.
    pub wanted: BTreeMap<&'static str, Wanted>,
    /// Probe whose requests the lines are about. Without it: any.
    pub of: Option<String>,
    /// How many lines, or of how many of the probe's requests when `of` is given. Without it: at least one.
    pub count: Option<Bound>,
}

/// What a key of a line has to hold.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Wanted {
    Status(u16),
    Errno(Errno),
    Text(TextMatch),
    Word(String),
    Sequence(Vec<String>),
    Set(Vec<String>),
}

impl Wanted {
    fn decode(form: Form, node: &Node, problems: &mut Problems) -> Option<Self> {
        match form {
            Form::Status => u16::decode(node, problems).map(Wanted::Status),
            Form::Errno => Errno::decode(node, problems).map(Wanted::Errno),
            Form::Text => TextMatch::decode(node, problems).map(Wanted::Text),
            Form::Word => String::decode(node, problems).map(Wanted::Word),
            Form::Sequence => Vec::decode(node, problems).map(Wanted::Sequence),
            Form::Set => Vec::decode(node, problems).map(Wanted::Set),
        }
    }

    pub fn matches(&self, value: &FieldValue) -> bool {
        fn sorted(words: &[String]) -> Vec<&String> {
            let mut sorted: Vec<&String> = words.iter().collect();
            sorted.sort();
            sorted.dedup();
            sorted
        }
        match (self, value) {
            (Wanted::Status(wanted), FieldValue::Number(seen)) => i64::from(*wanted) == *seen,
            (Wanted::Errno(wanted), FieldValue::Number(seen)) => i64::from(wanted.0) == *seen,
            (Wanted::Text(wanted), FieldValue::Text(seen)) => wanted.matches(seen),
            (Wanted::Word(wanted), FieldValue::Text(seen)) => wanted == seen,
            (Wanted::Sequence(wanted), FieldValue::Words(seen)) => wanted == seen,
            (Wanted::Set(wanted), FieldValue::Words(seen)) => sorted(wanted) == sorted(seen),
            _ => false,
        }
    }

    /// As a line would say it, as far as the rule tells.
    fn as_seen(&self) -> FieldValue {
        match self {
            Wanted::Status(status) => FieldValue::Number((*status).into()),
            Wanted::Errno(errno) => FieldValue::Number(errno.0.into()),
            Wanted::Text(text) => {
                let rules = &text.0;
                let said = [&rules.equals, &rules.contains, &rules.prefix, &rules.like].into_iter().flatten().next();
                FieldValue::Text(said.map_or_else(String::new, |text| text.trim_matches('*').trim().to_owned()))
            }
            Wanted::Word(word) => FieldValue::Text(word.clone()),
            Wanted::Sequence(words) | Wanted::Set(words) => FieldValue::Words(words.clone()),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wanted::Status(status) => write!(f, "{status}"),
            Wanted::Errno(errno) => f.write_str(&errno.name()),
            Wanted::Text(text) => write!(f, "{text}"),
            Wanted::Word(word) => f.write_str(word),
            Wanted::Sequence(words) => f.write_str(&words.join(", ")),
            Wanted::Set(words) if words.is_empty() => f.write_str("-"),
            Wanted::Set(words) => f.write_str(&words.join(",")),
        }
    }
}

impl LogExpectation {
    /// The line in a few words, as the gateway marks lines that it has written; `None` where nothing beyond a status is asked for.
    pub fn mark(&self, gateway: GatewayKind) -> Option<String> {
        let mut fields = LineFields::default();
        for (key, wanted) in &self.wanted {
            fields.insert(key, wanted.as_seen());
        }
        gateway.mark(&fields)
    }
}

impl Decode for LogExpectation {
    fn decode(node: &Node, problems: &mut Problems) -> Option<Self> {
        let keys = log_keys();
        let known: Vec<&str> = keys.iter().map(|key| key.name).chain(["of", "count"]).collect();
        let mut fields = Fields::open(node, "a log expectation", &known, problems)?;
        // All are read before giving up, so that the mistakes of all are told.
        let mut wanted = Some(BTreeMap::new());
        for key in keys {
            if let Some(node) = fields.node(key.name) {
                let read = Wanted::decode(key.form, node, problems);
                wanted = wanted.zip(read).map(|(mut wanted, read)| {
                    wanted.insert(key.name, read);
                    wanted
                });
            }
        }
        let of = fields.field("of", problems);
        let count = fields.field("count", problems);
        Some(LogExpectation { wanted: wanted?, of: of?, count: count? })
    }
}

impl Serialize for LogExpectation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for key in log_keys() {
            map.serialize_entry(key.name, &self.wanted.get(key.name))?;
        }
        map.serialize_entry("of", &self.of)?;
        map.serialize_entry("count", &self.count)?;
        map.end()
    }
}

/// The keys that every line has.
#[derive(JsonSchema)]
#[allow(dead_code)]
struct EveryLine {
    /// Probe whose requests the lines are about. Without it: any.
    of: Option<String>,
    /// How many lines, or of how many of the probe's requests when `of` is given. Without it: at least one.
    count: Option<Bound>,
}

impl JsonSchema for LogExpectation {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "LogExpectation".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut properties = serde_json::Map::new();
        for key in log_keys() {
            let mut schema = match key.form {
                Form::Status => generator.subschema_for::<Option<u16>>(),
                Form::Errno => generator.subschema_for::<Option<Errno>>(),
                Form::Text => generator.subschema_for::<Option<TextMatch>>(),
                Form::Word => generator.subschema_for::<Option<String>>(),
                Form::Sequence | Form::Set => generator.subschema_for::<Option<Vec<String>>>(),
            };
            schema.insert("description".to_owned(), key.meaning.into());
            properties.insert(key.name.to_owned(), schema.to_value());
        }
        let every = EveryLine::json_schema(generator).to_value();
        properties.extend(every["properties"].as_object().cloned().unwrap_or_default());
        schemars::json_schema!({
            "description": "A line of a gateway's log, in that gateway's own vocabulary. Every key that is given has to hold for the same line.",
            "type": "object",
            "properties": properties,
            "additionalProperties": false,
        })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::scenario::problem::source;

    fn read(yaml: &str) -> LogExpectation {
        let source = source("test.yaml", yaml);
        let mut problems = Problems::of(source.clone());
        let read = LogExpectation::decode(&Node::documents(source.inner()).unwrap()[0], &mut problems);
        assert!(problems.into_sorted().is_empty());
        read.unwrap()
    }

    #[rstest]
    #[case("nginx", "{ errno: ECONNREFUSED, while: connecting to upstream }", Some("ECONNREFUSED while connecting to upstream"))]
    #[case("nginx", "{ while: { contains: connecting } }", Some("while connecting"))]
    #[case("nginx", "{ status: 502, upstream-status: ['502'] }", None)]
    #[case("envoy", "{ response-flags: [UF], response-code-details: { like: '*{connection_timeout}' } }", Some("UF (connection_timeout)"))]
    #[case("envoy", "{ response-flags: [] }", None)]
    #[case("haproxy", "{ termination-state: SC--, status: 503 }", Some("SC--"))]
    #[case("haproxy", "{ termination-state: '----' }", Some("----"))]
    #[case("traefik", "{ error: { like: 'dial tcp *: connect: connection refused' } }", Some("dial tcp *: connect: connection refused"))]
    fn what_is_expected_is_marked_as_what_is_seen(#[case] gateway: &str, #[case] yaml: &str, #[case] expected: Option<&str>) {
        assert_eq!(read(yaml).mark(gateway.parse().unwrap()).as_deref(), expected);
    }
}
