//! What a gateway wrote into its pod's log, read by the gateway's own folder into one shape for all: a kind of line, and the fields that
//! the gateway's vocabulary has for it.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::GatewayKind;

/// One kind of lines of a gateway's log, and the keys by which an expectation describes such a line.
#[derive(Debug)]
pub struct LineKind {
    /// Unlike those of all other gateways.
    pub name: &'static str,
    pub keys: &'static [Key],
}

/// One key of a vocabulary. The same name has the same form wherever it is used.
#[derive(Debug)]
pub struct Key {
    /// As in a scenario.
    pub name: &'static str,
    pub form: Form,
    /// For the schema of scenarios.
    pub meaning: &'static str,
}

/// What a key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A status of HTTP.
    Status,
    /// An errno of Linux.
    Errno,
    /// Text, matched by a rule.
    Text,
    /// A word of few, matched whole.
    Word,
    /// Words in their order.
    Sequence,
    /// Words in any order.
    Set,
}

impl Key {
    /// The status that a line of an access log tells.
    pub const STATUS: Self = Self { name: "status", form: Form::Status, meaning: "Status in an access log line." };
}

/// A line of a log, as it was written.
#[derive(Debug, Clone, Copy)]
pub struct LogLine<'a> {
    pub text: &'a str,
    /// As the container runtime dated it.
    pub at: Option<Timestamp>,
}

/// A line of a gateway's log, read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogRecord {
    /// [`LineKind::name`]
    pub kind: String,
    /// The line is the one that is written for each request when it ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub of_request: bool,
    /// Status of the answer that came from behind the gateway, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<u16>,
    /// What an engineer remembers of it; `None` for lines that say nothing beyond a status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
    /// The line in short, for a person who looks for another one; `None` where nobody would take one for the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    #[serde(default)]
    pub fields: Fields,
}

/// Values of a line by [`Key::name`]; what the line does not say is not there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fields(BTreeMap<String, FieldValue>);

/// One value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FieldValue {
    /// Of a status or an errno.
    Number(i64),
    /// Of text or a word.
    Text(String),
    /// Of a sequence or a set.
    Words(Vec<String>),
}

impl Fields {
    pub fn get(&self, key: &str) -> Option<&FieldValue> {
        self.0.get(key)
    }

    pub fn insert(&mut self, key: &str, value: FieldValue) {
        self.0.insert(key.to_owned(), value);
    }

    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            FieldValue::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn number(&self, key: &str) -> Option<i64> {
        match self.get(key)? {
            FieldValue::Number(number) => Some(*number),
            _ => None,
        }
    }

    pub fn words(&self, key: &str) -> Option<&[String]> {
        match self.get(key)? {
            FieldValue::Words(words) => Some(words),
            _ => None,
        }
    }

    /// The name of the errno that a key holds.
    pub fn errno(&self, key: &str) -> Option<String> {
        let number = i32::try_from(self.number(key)?).ok()?;
        Some(format!("{:?}", nix::errno::Errno::from_raw(number)))
    }

    pub(crate) fn with_text(mut self, key: &str, text: Option<impl Into<String>>) -> Self {
        self.0.extend(text.map(|text| (key.to_owned(), FieldValue::Text(text.into()))));
        self
    }

    pub(crate) fn with_number(mut self, key: &str, number: Option<impl Into<i64>>) -> Self {
        self.0.extend(number.map(|number| (key.to_owned(), FieldValue::Number(number.into()))));
        self
    }

    pub(crate) fn with_words(mut self, key: &str, words: Vec<String>) -> Self {
        self.insert(key, FieldValue::Words(words));
        self
    }
}

/// Method and target of a request line; neither where it is none (garbage, a client that left, `<BADREQ>`).
pub(crate) fn method_and_target(request: &str) -> (Option<String>, Option<String>) {
    let mut words = request.split(' ');
    match (words.next(), words.next(), words.next()) {
        (Some(method), Some(target), Some(_)) => (Some(method.to_owned()), Some(target.to_owned())),
        _ => (None, None),
    }
}

/// A field of an access log that has a value.
pub(crate) fn present(text: &str) -> Option<String> {
    (!text.is_empty() && text != "-").then(|| text.to_owned())
}

/// The requests of an access log, by when they were under way: for joining lines that name no request to one.
#[derive(Debug)]
pub(crate) struct UnderWay<T> {
    requests: Vec<(RangeInclusive<Timestamp>, String, T)>,
}

impl<T> UnderWay<T> {
    /// A gateway writes a request's last line of another log and its access line at the same moment, but through two pipes, and dates
    /// neither finer than a millisecond.
    const TWO_PIPES: SignedDuration = SignedDuration::from_millis(100);

    /// Of requests that ended when their line was written: line, duration, id, and what tells it from others.
    pub fn of<'a>(ended: impl Iterator<Item = (&'a LogLine<'a>, Duration, String, T)>) -> Self {
        let range = |line: &LogLine, took: Duration| {
            let began = line.at?.checked_sub(SignedDuration::try_from(took).ok()? + Self::TWO_PIPES).ok()?;
            Some(began..=line.at?.checked_add(Self::TWO_PIPES).ok()?)
        };
        let mut requests: Vec<_> = ended.filter_map(|(line, took, id, told)| Some((range(line, took)?, id, told))).collect();
        requests.sort_by_key(|(range, ..)| *range.end());
        Self { requests }
    }

    fn place(&self, line: &LogLine<'_>, fits: impl Fn(&T) -> bool) -> Option<usize> {
        let at = line.at?;
        self.requests.iter().position(|(range, _, told)| range.contains(&at) && fits(told))
    }

    /// The request that was under way when a line was written; where several fit, the one that ended first.
    pub fn at(&self, line: &LogLine<'_>, fits: impl Fn(&T) -> bool) -> Option<String> {
        self.place(line, fits).map(|place| self.requests[place].1.clone())
    }

    /// The same, for one line alone.
    pub fn take(&mut self, line: &LogLine<'_>, fits: impl Fn(&T) -> bool) -> Option<String> {
        self.place(line, fits).map(|place| self.requests.remove(place).1)
    }
}

/// For grouping: lines of one kind with the same fields say the same.
impl fmt::Display for Fields {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(key, value)| write!(formatter, " {key}={value:?}"))
    }
}

/// A line that was read, and the request that it is about, where the line names it or can be joined to one that does.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadLine {
    pub record: LogRecord,
    /// `x-request-id`
    pub request_id: Option<String>,
}

/// Prefix of every line that the agent itself writes. Such a line is never a record, so that no expectation about a gateway can be
/// met by the lab's own words.
pub const AGENT_PREFIX: &str = "gateway-agent: ";

/// Reads the log of one pod of a gateway; `None` for lines that are not records (start-up chatter, the agent's own lines). All lines are
/// read together, because some are joined to others.
pub fn read_log(gateway: GatewayKind, lines: &[LogLine<'_>]) -> Vec<Option<ReadLine>> {
    let own: Vec<LogLine> = lines
        .iter()
        .map(|line| {
            let text = line.text.trim_end_matches(['\r', '\n']);
            LogLine { text: if text.starts_with(AGENT_PREFIX) { "" } else { text }, at: line.at }
        })
        .collect();
    let mut read = gateway.adapter().read_log(&own);
    for line in read.iter_mut().flatten() {
        line.record.mark = gateway.adapter().mark_of_seen(&line.record.fields);
    }
    read
}

/// The keys of all gateways' vocabularies, each once, in the order of the gateways; what they share is the last.
pub fn log_keys() -> Vec<&'static Key> {
    let mut keys: Vec<&'static Key> = Vec::new();
    for key in GatewayKind::ALL.iter().flat_map(|kind| kind.log_keys()) {
        if !keys.iter().any(|other| other.name == key.name) {
            keys.push(key);
        }
    }
    keys.sort_by_key(|key| key.name == Key::STATUS.name);
    keys
}

impl GatewayKind {
    /// The kinds of lines that its log has.
    pub fn vocabulary(self) -> &'static [LineKind] {
        self.adapter().facts().vocabulary
    }

    /// The keys of all kinds of lines.
    pub fn log_keys(self) -> impl Iterator<Item = &'static Key> {
        self.vocabulary().iter().flat_map(|line| line.keys)
    }

    /// A line that is expected, in the few words that an engineer remembers: `ECONNREFUSED while connecting to upstream`, `UF`, `SC--`;
    /// `None` for what says nothing beyond a status.
    pub fn mark(self, fields: &Fields) -> Option<String> {
        self.adapter().mark(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nginx::KIND as NGINX;

    #[test]
    fn the_agents_own_lines_are_never_records() {
        let error = "2026/11/21 04:41:58 [error] 1#1: *2 connect() failed (111: Connection refused) while connecting to upstream";
        let read = |text: &str| read_log(NGINX, &[LogLine { text, at: None }]).remove(0);
        assert_eq!(read(error).unwrap().record.mark.as_deref(), Some("ECONNREFUSED while connecting to upstream"));
        for kind in GatewayKind::ALL {
            let text = format!("{AGENT_PREFIX}{error}");
            assert_eq!(read_log(*kind, &[LogLine { text: &text, at: None }]), [None]);
        }
    }

    /// A scenario is read before anybody knows for which gateway a line stands.
    #[test]
    fn vocabularies_do_not_contradict_each_other() {
        let lines: Vec<&LineKind> = GatewayKind::ALL.iter().flat_map(|kind| kind.vocabulary()).collect();
        let keys = |line: &LineKind| line.keys.iter().map(|key| key.name).collect::<Vec<_>>();
        for line in &lines {
            // Two gateways that write one kind of line share its description.
            let first = lines.iter().find(|other| other.name == line.name).unwrap();
            assert_eq!(keys(first), keys(line), "`{}` is two kinds of lines", line.name);
        }
        for key in lines.iter().flat_map(|line| line.keys) {
            let first = log_keys().into_iter().find(|other| other.name == key.name).unwrap();
            assert_eq!(first.form, key.form, "`{}` means two things", key.name);
            assert!(!["of", "count"].contains(&key.name), "`{}` is every line's", key.name);
        }
        assert_eq!(log_keys().last().map(|key| key.name), Some("status"));
    }
}
