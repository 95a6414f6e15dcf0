//! Field numbers of the messages that typed clients write: all of `messages.txt`, which `generate.py` makes of the published types.

use std::collections::HashMap;
use std::sync::LazyLock;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    Bytes,
    Integer,
    Bool,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    /// JSON in bytes: `RawExtension`, `FieldsV1`.
    Json,
    /// A list of texts that is a message: a map's value cannot be a list.
    Texts,
    Message,
    /// A message whose fields are the parent's in JSON.
    Inline,
}

/// A message's name, and the apiVersion that it belongs to; `meta` for those that all have.
pub(super) type Name = (&'static str, &'static str);

#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub number: u64,
    pub name: &'static str,
    pub kind: Type,
    /// The message's type.
    pub of: Name,
    pub list: bool,
    pub map: bool,
    /// A pointer in Go: sent only when set, so that zero is a value.
    pub pointer: bool,
}

/// Below a line `[apiVersion]`, a line a message: `Name: number field type, …`. A type is `text`, `bytes`, `int`, `bool`, `time`,
/// `microtime`, `quantity`, `intstr`, `json`, `list:text` or a message's name, with `apiVersion#` in front if it is of another;
/// before it `*` means a pointer, `[]` a list, `map:` a map of texts to it, `~` inline.
const MESSAGES: &str = include_str!("messages.txt");

/// Messages that every group version takes.
const META: &str = "meta";

static TABLE: LazyLock<HashMap<Name, Vec<Field>>> = LazyLock::new(|| {
    let mut group = META;
    let mut table = HashMap::new();
    for line in MESSAGES.lines() {
        if let Some(named) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            group = named;
        } else if let Some((name, fields)) = message(group, line) {
            table.insert((group, name), fields);
        }
    }
    table
});

pub(super) fn fields(message: Name) -> Option<&'static [Field]> {
    TABLE.get(&message).map(Vec::as_slice)
}

/// The message that a client calls by apiVersion and kind: `DeleteOptions` and the like are sent as of any group.
pub(super) fn of_kind(api_version: &str, kind: &str) -> Option<Name> {
    let find = |group: &str| TABLE.keys().copied().find(|(its, name)| *its == group && *name == kind);
    find(api_version).or_else(|| find(META))
}

fn message(group: &'static str, line: &'static str) -> Option<(&'static str, Vec<Field>)> {
    let (name, fields) = line.split_once(": ")?;
    Some((name, fields.split(", ").filter_map(|text| field(group, text)).collect()))
}

fn field(group: &'static str, text: &'static str) -> Option<Field> {
    let mut words = text.split(' ');
    let (number, name, written) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
    let (mut of, mut list, mut map, mut pointer, mut inline) = (written, false, false, false, false);
    for (prefix, flag) in [("~", &mut inline), ("*", &mut pointer), ("[]", &mut list), ("map:", &mut map)] {
        if let Some(rest) = of.strip_prefix(prefix) {
            *flag = true;
            of = rest;
        }
    }
    let kind = match of {
        _ if inline => Type::Inline,
        "text" => Type::Text,
        "bytes" => Type::Bytes,
        "int" => Type::Integer,
        "bool" => Type::Bool,
        "time" => Type::Time,
        "microtime" => Type::MicroTime,
        "quantity" => Type::Quantity,
        "intstr" => Type::IntOrString,
        "json" => Type::Json,
        "list:text" => Type::Texts,
        _ => Type::Message,
    };
    Some(Field { number, name, kind, of: of.split_once('#').unwrap_or((group, of)), list, map, pointer })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read_and_what_it_names_is_there() {
        let lines = MESSAGES.lines().filter(|line| line.contains(": ") && !line.starts_with('#'));
        assert_eq!(TABLE.len(), lines.clone().count());
        let written: usize = lines.map(|line| line.split(", ").count()).sum();
        assert_eq!(TABLE.values().map(Vec::len).sum::<usize>(), written);
        for (name, fields) in TABLE.iter() {
            let numbers: std::collections::BTreeSet<u64> = fields.iter().map(|f| f.number).collect();
            assert_eq!(numbers.len(), fields.len(), "{name:?}");
            for field in fields.iter().filter(|field| matches!(field.kind, Type::Message | Type::Inline)) {
                // Some, like EmptyDirVolumeSource's successors may be, have no field.
                assert!(TABLE.contains_key(&field.of), "{name:?}.{} is of {:?}", field.name, field.of);
            }
        }
    }
}
