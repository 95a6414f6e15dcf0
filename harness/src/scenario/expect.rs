//! What a scenario expects to be seen: at the client, in the gateway's log, in the application's journal, hop by hop, in the
//! objects, and in the order of things.

use std::collections::BTreeMap;

use gateways::GatewayKind;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;

use super::bound::Bound;
use super::decode::{Decode, Fields, OneOrMany, Spanned, choice, element, wrong_type};
use super::log::LogExpectation;
use super::model::Need;
use super::problem::{Mistake, Problems};
use super::text::TextMatch;
use super::time::Time;
use super::versions::Versions;
use super::yaml::{Node, Yaml};
use crate::signature::TimelineKind;

element! {
    /// What is expected of one gateway, beside what is expected of all.
    pub struct GatewayExpectation ("a gateway's expectation") {
        /// Why this gateway is left out. Nothing else may be given then.
        pub skip: Option<String>,
        /// What this gateway needs of the cluster, beside what all need.
        #[serde(default)]
        pub needs: Vec<Need>,
        /// Versions that this was observed with. A build of another version is skipped.
        pub versions: Option<Versions>,
        /// By probe.
        #[serde(default)]
        pub client: BTreeMap<String, Spanned<ClientExpectation>>,
        /// Lines of the gateway's own log.
        #[serde(default)]
        pub log: OneOrMany<Spanned<LogExpectation>>,
        /// The application's journal, by probe.
        #[serde(default)]
        pub backend: BTreeMap<String, Spanned<BackendExpectation>>,
        pub first_failing_hop: Option<Spanned<Hop>>,
        #[serde(default)]
        pub kubernetes: Vec<Spanned<ObjectExpectation>>,
        #[serde(default)]
        pub order: Vec<Spanned<OrderExpectation>>,
    }
}

impl GatewayExpectation {
    /// Nothing expected.
    pub fn empty() -> Self {
        GatewayExpectation {
            skip: None,
            needs: Vec::new(),
            versions: None,
            client: BTreeMap::new(),
            log: OneOrMany(Vec::new()),
            backend: BTreeMap::new(),
            first_failing_hop: None,
            kubernetes: Vec::new(),
            order: Vec::new(),
        }
    }
}

/// Under `expect`: a key for each gateway, and what holds for all of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Expect {
    /// By the gateway's name.
    pub gateways: BTreeMap<&'static str, Spanned<GatewayExpectation>>,
    pub client: BTreeMap<String, Spanned<ClientExpectation>>,
    pub backend: BTreeMap<String, Spanned<BackendExpectation>>,
    pub first_failing_hop: Option<Spanned<Hop>>,
    pub kubernetes: Vec<Spanned<ObjectExpectation>>,
    pub order: Vec<Spanned<OrderExpectation>>,
}

/// What holds for all gateways, as it is written and described.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct OfAll {
    #[serde(default)]
    client: BTreeMap<String, Spanned<ClientExpectation>>,
    #[serde(default)]
    backend: BTreeMap<String, Spanned<BackendExpectation>>,
    first_failing_hop: Option<Spanned<Hop>>,
    #[serde(default)]
    kubernetes: Vec<Spanned<ObjectExpectation>>,
    #[serde(default)]
    order: Vec<Spanned<OrderExpectation>>,
}

impl Decode for Expect {
    fn decode(node: &Node, problems: &mut Problems) -> Option<Self> {
        let names = GatewayKind::names();
        let known = [&names[..], &["client", "backend", "first-failing-hop", "kubernetes", "order"]].concat();
        let mut fields = Fields::open(node, "expect", &known, problems)?;
        // All are read before any `?`, so that the mistakes of all are told.
        let mut gateways = Some(BTreeMap::new());
        for name in names {
            let read = fields.field::<Option<Spanned<GatewayExpectation>>>(name, problems);
            gateways = gateways.zip(read).map(|(mut gateways, read)| {
                gateways.extend(read.map(|read| (name, read)));
                gateways
            });
        }
        let client = fields.field("client", problems);
        let backend = fields.field("backend", problems);
        let first_failing_hop = fields.field("first-failing-hop", problems);
        let kubernetes = fields.field("kubernetes", problems);
        let order = fields.field("order", problems);
        Some(Expect {
            gateways: gateways?,
            client: client?,
            backend: backend?,
            first_failing_hop: first_failing_hop?,
            kubernetes: kubernetes?,
            order: order?,
        })
    }
}

impl Serialize for Expect {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let of_all = OfAll {
            client: self.client.clone(),
            backend: self.backend.clone(),
            first_failing_hop: self.first_failing_hop.clone(),
            kubernetes: self.kubernetes.clone(),
            order: self.order.clone(),
        };
        let mut entries = serde_json::Map::new();
        for name in GatewayKind::names() {
            let own = serde_json::to_value(self.gateways.get(name)).map_err(serde::ser::Error::custom)?;
            entries.insert(name.to_owned(), own);
        }
        let of_all = serde_json::to_value(of_all).map_err(serde::ser::Error::custom)?;
        entries.extend(of_all.as_object().cloned().unwrap_or_default());
        entries.serialize(serializer)
    }
}

impl JsonSchema for Expect {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Expect".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut properties = serde_json::Map::new();
        for name in GatewayKind::names() {
            properties.insert(name.to_owned(), generator.subschema_for::<Option<Spanned<GatewayExpectation>>>().to_value());
        }
        let of_all = OfAll::json_schema(generator).to_value();
        properties.extend(of_all["properties"].as_object().cloned().unwrap_or_default());
        schemars::json_schema!({
            "description": "Under `expect`: a key for each gateway, and what holds for all of them.",
            "type": "object",
            "properties": properties,
            "additionalProperties": false,
        })
    }
}

element! {
    /// What a probe's requests meet. Keys that describe a response hold for every request of the probe; `failed` describes
    /// the failed ones alone.
    pub struct ClientExpectation ("a client expectation") {
        /// One status for all, or how many of each: `{ 502: ">0", 200: rest }`. Statuses that are not listed must not occur.
        pub status: Option<Spanned<StatusExpectation>>,
        /// How many requests end in which way when there is no response: `{ reset: ">0" }`.
        #[serde(default)]
        pub outcome: BTreeMap<String, Spanned<Bound>>,
        /// How many requests fail: no response, or a status of 400 or more.
        pub failures: Option<Spanned<Bound>>,
        pub made_by: Option<Spanned<Maker>>,
        /// Application (Service) that answered, as its response header says.
        pub served_by: Option<Spanned<String>>,
        /// Response headers by name in lower case.
        #[serde(default)]
        pub headers: BTreeMap<String, Spanned<TextMatch>>,
        pub body: Option<Spanned<TextMatch>>,
        /// No request takes longer.
        pub within: Option<Spanned<Time>>,
        /// No request takes less.
        pub at_least: Option<Spanned<Time>>,
        /// How many of the requests went over a connection to the gateway that had been used before.
        pub reused: Option<Spanned<Bound>>,
        /// gRPC: how the call ended; `none` where the response was none of gRPC.
        pub grpc_status: Option<Spanned<GrpcStatus>>,
        /// WebSocket: code of the other side's close frame; 1005: it held none; 1006: the connection ended without one.
        pub close_code: Option<Spanned<u32>>,
        /// WebSocket: how many got their message back.
        pub echoed: Option<Spanned<Bound>>,
        /// What holds for the failed requests alone.
        pub failed: Option<Spanned<ResponseExpectation>>,
        /// How many requests fail, by ranges of the swept gap.
        #[serde(default)]
        pub by_gap: Vec<Spanned<GapExpectation>>,
    }
}

element! {
    /// What responses look like.
    pub struct ResponseExpectation ("a response expectation") {
        pub made_by: Option<Spanned<Maker>>,
        pub served_by: Option<Spanned<String>>,
        #[serde(default)]
        pub headers: BTreeMap<String, Spanned<TextMatch>>,
        pub body: Option<Spanned<TextMatch>>,
        pub within: Option<Spanned<Time>>,
        pub at_least: Option<Spanned<Time>>,
        pub reused: Option<Spanned<Bound>>,
        pub grpc_status: Option<Spanned<GrpcStatus>>,
        pub close_code: Option<Spanned<u32>>,
    }
}

element! {
    /// Of the requests sent after gaps in a range, how many fail.
    pub struct GapExpectation ("a gap expectation") {
        pub from: Time,
        pub to: Time,
        pub failures: Bound,
    }
}

element! {
    /// What the application wrote down about a probe's requests.
    pub struct BackendExpectation ("a backend expectation") {
        /// How many of the probe's requests reached the application.
        pub requests_seen: Option<Spanned<Bound>>,
        /// How many of them reached the pods of each workload (of a Deployment: its name), where there are several tiers.
        #[serde(default)]
        pub seen_by: BTreeMap<String, Spanned<Bound>>,
        /// Path of every request that it saw, as it arrived: behind whatever the gateway rewrote.
        pub path: Option<Spanned<TextMatch>>,
        /// How many of those it saw ended in which way, in the backend's words.
        #[serde(default)]
        pub ended: BTreeMap<String, Spanned<Bound>>,
        /// How many entries of the journal that belong to no request (connections) ended in which way.
        #[serde(default)]
        pub connections: BTreeMap<String, Spanned<Bound>>,
    }
}

element! {
    /// An object of the cluster, or several, and what a field of each holds.
    pub struct ObjectExpectation ("an object expectation") {
        /// `Kind`, or `Kind/name`.
        pub object: ObjectName,
        /// Without it: the application's.
        pub namespace: Option<String>,
        pub selects: Option<Selection>,
        /// Steps joined by `.`; `[0]` takes an element, `[Ready]` the one whose type or name is that, `[*]` all.
        pub path: Option<String>,
        #[schemars(with = "Option<serde_json::Value>")]
        pub equals: Option<serde_json::Value>,
        #[schemars(with = "Option<serde_json::Value>")]
        pub not_equals: Option<serde_json::Value>,
        pub text: Option<TextMatch>,
        /// How many values the path leads to; without a path, how many objects there are.
        pub count: Option<Bound>,
        /// How many of the objects it must hold for. Without it: all, and at least one.
        pub holds_for: Option<Bound>,
    }
}

element! {
    /// Which objects of a kind are meant.
    pub struct Selection ("selects") {
        /// Those that belong to a Service: EndpointSlices by their label, Pods by its selector.
        pub service: Option<String>,
        #[serde(default)]
        pub labels: BTreeMap<String, String>,
        /// By path, as `kubectl get --field-selector` takes them: `{ reason: Unhealthy, involvedObject.kind: Pod }`.
        #[serde(default)]
        pub fields: BTreeMap<String, Spanned<String>>,
    }
}

element! {
    /// Failures that line up with something that happened to pods.
    pub struct OrderExpectation ("an order expectation") {
        /// Probe whose failures are meant.
        pub failures_of: String,
        pub line_up_with: OneOrMany<TimelineKind>,
        /// A failure lines up when such an event is at most so long before or after it.
        pub within: Time,
        /// How many of the failures line up. Without it: all.
        pub share: Option<Bound>,
    }
}

choice! {
    /// Who made an answer.
    pub enum Maker ("a maker of answers") {
        Gateway,
        Sidecar,
        Application,
        /// There was no answer.
        Nobody,
    }
}

/// Where a request can fail, outermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, JsonSchema)]
pub enum Hop {
    #[serde(rename = "client -> gateway")]
    ClientToGateway,
    #[serde(rename = "gateway -> service")]
    GatewayToService,
    #[serde(rename = "service -> pod")]
    ServiceToPod,
    #[serde(rename = "inside pod")]
    InsidePod,
    /// Every hop works.
    #[serde(rename = "none")]
    None,
}

impl Hop {
    pub const ALL: &'static [Hop] = &[Hop::ClientToGateway, Hop::GatewayToService, Hop::ServiceToPod, Hop::InsidePod, Hop::None];

    pub fn name(self) -> &'static str {
        match self {
            Hop::ClientToGateway => "client -> gateway",
            Hop::GatewayToService => "gateway -> service",
            Hop::ServiceToPod => "service -> pod",
            Hop::InsidePod => "inside pod",
            Hop::None => "none",
        }
    }
}

impl std::fmt::Display for Hop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Decode for Hop {
    fn decode(node: &Node, problems: &mut Problems) -> Option<Self> {
        let text = String::decode(node, problems)?;
        let found = Hop::ALL.iter().copied().find(|hop| hop.name() == text);
        if found.is_none() {
            let choices = Hop::ALL.iter().map(|hop| hop.name().to_owned()).collect();
            problems.add(node.span, Mistake::UnknownChoice { value: text, what: "a hop".to_owned(), choices });
        }
        found
    }
}

/// `Kind`, `Kind/name` or `Kind/namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    pub kind: String,
    pub namespace: Option<String>,
    pub name: Option<String>,
}

impl ObjectName {
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err("a part of it is empty".to_owned());
        }
        if !text.starts_with(|letter: char| letter.is_ascii_uppercase()) {
            return Err("a kind begins with a capital letter".to_owned());
        }
        let owned = |text: &str| Some(text.to_owned());
        match parts.as_slice() {
            [kind] => Ok(ObjectName { kind: (*kind).to_owned(), namespace: None, name: None }),
            [kind, name] => Ok(ObjectName { kind: (*kind).to_owned(), namespace: None, name: owned(name) }),
            [kind, namespace, name] => Ok(ObjectName { kind: (*kind).to_owned(), namespace: owned(namespace), name: owned(name) }),
            _ => Err("it has more than three parts".to_owned()),
        }
    }
}

impl std::fmt::Display for ObjectName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.kind)?;
        for part in [&self.namespace, &self.name].into_iter().flatten() {
            write!(f, "/{part}")?;
        }
        Ok(())
    }
}

impl Decode for ObjectName {
    fn decode(node: &Node, problems: &mut Problems) -> Option<Self> {
        super::decode::parsed(node, problems, "the name of an object", "Service/shop", ObjectName::parse)
    }
}

impl Serialize for ObjectName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for ObjectName {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ObjectName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "description": "Kind, Kind/name or Kind/namespace/name", "type": "string" })
    }
}

/// One status for every request, or how many requests meet which.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(into = "serde_json::Value")]
pub enum StatusExpectation {
    Every(u16),
    Mix(BTreeMap<u16, Bound>),
}

impl From<StatusExpectation> for serde_json::Value {
    fn from(status: StatusExpectation) -> Self {
        match status {
            StatusExpectation::Every(status) => status.into(),
            StatusExpectation::Mix(mix) => {
                mix.into_iter().map(|(status, bound)| (status.to_string(), serde_json::Value::from(bound.to_string()))).collect()
            }
        }
    }
}

impl Decode for StatusExpectation {
    fn decode(node: &Node, problems: &mut Problems) -> Option<Self> {
        let valid = |status: u16| (100..600).contains(&status);
        let bad = |value: String| Mistake::BadValue {
            value,
            what: "an HTTP status".to_owned(),
            reason: "statuses have three digits, from 100 to 599".to_owned(),
            example: "502".to_owned(),
        };
        match &node.value {
            Yaml::Integer(value) => match u16::try_from(*value).ok().filter(|status| valid(*status)) {
                Some(status) => Some(StatusExpectation::Every(status)),
                None => {
                    problems.add(node.span, bad(value.to_string()));
                    None
                }
            },
            Yaml::Mapping(entries) => {
                let mut mix = Some(BTreeMap::new());
                for (key, value) in entries {
                    let bound = Bound::decode(value, problems);
                    let status = key.name.parse().ok().filter(|status| valid(*status));
                    if status.is_none() {
                        problems.add(key.span, bad(key.name.clone()));
                    }
                    mix = match (mix, status, bound) {
                        (Some(mut mix), Some(status), Some(bound)) => {
                            mix.insert(status, bound);
                            Some(mix)
                        }
                        _ => None,
                    };
                }
                mix.map(StatusExpectation::Mix)
            }
            _ => {
                wrong_type(node, "a status, or a mapping of statuses to shares", problems);
                None
            }
        }
    }
}

impl JsonSchema for StatusExpectation {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "StatusExpectation".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let bound = generator.subschema_for::<Bound>();
        schemars::json_schema!({
            "description": "One status for every request, or how many meet which: { 502: \">0\", 200: rest }",
            "anyOf": [{ "type": "integer", "minimum": 100, "maximum": 599 }, { "type": "object", "additionalProperties": bound }]
        })
    }
}

/// How a gRPC call ended: number or name of gRPC's status codes, or that there was none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrpcStatus(pub Option<u16>);

/// gRPC's "Status codes and their use in gRPC", by number.
const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

impl GrpcStatus {
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(GrpcStatus(None));
        }
        let by_name = GRPC_STATUSES.iter().position(|name| *name == text);
        let number = by_name.or_else(|| text.parse().ok().filter(|number| *number < GRPC_STATUSES.len()));
        let number = number.and_then(|number| u16::try_from(number).ok());
        number.map(|number| GrpcStatus(Some(number))).ok_or_else(|| "gRPC has no such status".to_owned())
    }

    pub fn name(self) -> String {
        match self.0 {
            None => "none".to_owned(),
            Some(number) => GRPC_STATUSES.get(usize::from(number)).map_or_else(|| number.to_string(), |name| (*name).to_owned()),
        }
    }
}

impl Decode for GrpcStatus {
    fn decode(node: &Node, problems: &mut Problems) -> Option<Self> {
        super::decode::parsed(node, problems, "a gRPC status", "UNAVAILABLE", GrpcStatus::parse)
    }
}

impl Serialize for GrpcStatus {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name())
    }
}

impl JsonSchema for GrpcStatus {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "GrpcStatus".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "description": "Number or name of a gRPC status, or none: UNAVAILABLE, 14", "type": ["string", "integer"] })
    }
}

/// An errno by its number on Linux; a name is as good as the number, wording is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse::<i32>() {
            return match nix::errno::Errno::from_raw(number) {
                nix::errno::Errno::UnknownErrno => Err("Linux has no errno of that number".to_owned()),
                _ => Ok(Errno(number)),
            };
        }
        // Linux numbers its errnos from 1 to 133.
        (1..=133)
            .find(|number| format!("{:?}", nix::errno::Errno::from_raw(*number)) == text)
            .map(Errno)
            .ok_or_else(|| "Linux has no errno of that name".to_owned())
    }

    pub fn name(self) -> String {
        format!("{:?}", nix::errno::Errno::from_raw(self.0))
    }
}

impl Decode for Errno {
    fn decode(node: &Node, problems: &mut Problems) -> Option<Self> {
        super::decode::parsed(node, problems, "an errno", "ECONNREFUSED", Errno::parse)
    }
}

impl Serialize for Errno {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name())
    }
}

impl JsonSchema for Errno {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Errno".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "description": "Name or number of an errno of Linux: ECONNREFUSED, 111", "type": ["string", "integer"] })
    }
}
