//! Label and field selectors.

use serde_json::Value;

use super::kinds::Kind;
use super::status::Refusal;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    NotExists,
    Greater(i64),
    Less(i64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
}

/// A parsed label selector; the empty one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LabelSelector(Vec<Requirement>);

impl LabelSelector {
    /// # Errors
    /// 400 with kube-apiserver's wording when the text is no selector.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let refuse = |detail: String| Refusal::bad_request(format!("unable to parse requirement: {detail}"));
        split_outside_parentheses(text)
            .into_iter()
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| requirement(part).map_err(refuse))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.0.iter().all(|requirement| {
            let value = labels.get(&requirement.key).and_then(Value::as_str);
            match &requirement.operator {
                Operator::In(values) => value.is_some_and(|v| values.iter().any(|w| w == v)),
                Operator::NotIn(values) => value.is_none_or(|v| values.iter().all(|w| w != v)),
                Operator::Exists => value.is_some(),
                Operator::NotExists => value.is_none(),
                Operator::Greater(than) => value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v > *than),
                Operator::Less(than) => value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v < *than),
            }
        })
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_u32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn requirement(part: &str) -> Result<Requirement, String> {
    if let Some(key) = part.strip_prefix('!') {
        return Ok(Requirement { key: label_key(key)?, operator: Operator::NotExists });
    }
    let key_end = part.find(|c: char| c.is_whitespace() || "=!<>(),".contains(c)).unwrap_or(part.len());
    let key = label_key(&part[..key_end])?;
    let rest = part[key_end..].trim();
    let number = |text: &str| {
        text.trim().parse::<i64>().map_err(|_| format!("for 'Gt', 'Lt' operators, the value must be an integer: \"{}\"", text.trim()))
    };
    let operator = if rest.is_empty() {
        Operator::Exists
    } else if let Some(value) = rest.strip_prefix("!=") {
        Operator::NotIn(vec![label_value(value)?])
    } else if let Some(value) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
        Operator::In(vec![label_value(value)?])
    } else if let Some(value) = rest.strip_prefix('>') {
        Operator::Greater(number(value)?)
    } else if let Some(value) = rest.strip_prefix('<') {
        Operator::Less(number(value)?)
    } else if let Some(set) = rest.strip_prefix("notin") {
        Operator::NotIn(values(set)?)
    } else if let Some(set) = rest.strip_prefix("in") {
        Operator::In(values(set)?)
    } else {
        return Err(format!("found '{rest}', expected: in, notin, =, ==, !=, gt, lt"));
    };
    Ok(Requirement { key, operator })
}

fn values(set: &str) -> Result<Vec<String>, String> {
    let inner =
        set.trim().strip_prefix('(').and_then(|s| s.strip_suffix(')')).ok_or_else(|| format!("found '{}', expected: '('", set.trim()))?;
    inner.split(',').map(label_value).collect()
}

fn label_key(key: &str) -> Result<String, String> {
    let key = key.trim();
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(p, n)| (Some(p), n));
    let good_prefix = prefix.is_none_or(|p| !p.is_empty() && p.len() <= 253 && !p.contains('/'));
    if good_prefix && !name.is_empty() && name.len() <= 63 && is_qualified(name) {
        Ok(key.to_owned())
    } else {
        Err(format!("found '{key}', expected: identifier"))
    }
}

fn label_value(value: &str) -> Result<String, String> {
    let value = value.trim();
    if value.len() <= 63 && (value.is_empty() || is_qualified(value)) {
        Ok(value.to_owned())
    } else {
        Err(format!(
            "values[0][]: Invalid value: \"{value}\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
        ))
    }
}

fn is_qualified(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.chars().all(inner) && edge(text.chars().next()) && edge(text.chars().next_back())
}

/// A parsed field selector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldSelector(Vec<(String, bool, String)>);

impl FieldSelector {
    /// # Errors
    /// 400 when the text is no selector or names a field that the kind does not index.
    pub fn parse(text: &str, kind: &Kind) -> Result<Self, Refusal> {
        let mut terms = Vec::new();
        for part in split_unescaped(text) {
            if part.trim().is_empty() {
                continue;
            }
            let (field, wanted, value) =
                term(&part).ok_or_else(|| Refusal::bad_request(format!("invalid selector: '{text}'; can't understand '{part}'")))?;
            if !kind.selectable(&field) {
                return Err(Refusal::bad_request(format!("field label not supported: {field}")));
            }
            terms.push((field, wanted, value));
        }
        Ok(Self(terms))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(field, wanted, value)| (field_text(object, field) == *value) == *wanted)
    }
}

fn split_unescaped(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        if c == ',' && !escaped {
            parts.push(String::new());
            continue;
        }
        escaped = c == '\\' && !escaped;
        if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    parts
}

fn term(part: &str) -> Option<(String, bool, String)> {
    let (field, wanted, value) = if let Some((field, value)) = part.split_once("!=") {
        (field, false, value)
    } else if let Some((field, value)) = part.split_once("==") {
        (field, true, value)
    } else {
        let (field, value) = part.split_once('=')?;
        (field, true, value)
    };
    let mut plain = String::new();
    let mut escaped = false;
    for c in value.chars() {
        if c == '\\' && !escaped {
            escaped = true;
        } else {
            plain.push(c);
            escaped = false;
        }
    }
    Some((field.trim().to_owned(), wanted, plain))
}

/// The value of a selectable field as text; absent fields are empty, as in Go.
fn field_text(object: &Value, field: &str) -> String {
    let field = match field {
        "source" => "source.component",
        "reportingComponent" | "reportingController" => "reportingComponent",
        "status.podIPs" => "status.podIP",
        other => other,
    };
    // events.k8s.io names what core calls involvedObject; stored events are core events.
    let field = field.strip_prefix("regarding.").map_or_else(|| field.to_owned(), |rest| format!("involvedObject.{rest}"));
    let mut at = object;
    for step in field.split('.') {
        at = &at[step];
    }
    match (at, field.as_str()) {
        (Value::String(text), _) => text.clone(),
        (Value::Null, "spec.unschedulable" | "spec.hostNetwork") => "false".to_owned(),
        (Value::Null, "status.replicas" | "status.successful") => "0".to_owned(),
        (Value::Null, _) => String::new(),
        (other, _) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn labelled(pairs: &[(&str, &str)]) -> Value {
        json!({"metadata": {"labels": pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect::<serde_json::Map<_, _>>()}})
    }

    #[rstest::rstest]
    #[case("app=web", true)]
    #[case("app==web", true)]
    #[case("app!=web", false)]
    #[case("app in (api, web)", true)]
    #[case("app notin (api,web)", false)]
    #[case("app", true)]
    #[case("!app", false)]
    #[case("!other", true)]
    #[case("other!=x", true)]
    #[case("other notin (x)", true)]
    #[case("rank>3", true)]
    #[case("rank<3", false)]
    #[case("app=web,rank", true)]
    #[case("app=web,!rank", false)]
    #[case("app.kubernetes.io/name=shop", true)]
    #[case("", true)]
    fn label_selectors_select_as_documented(#[case] selector: &str, #[case] expected: bool) {
        let object = labelled(&[("app", "web"), ("rank", "7"), ("app.kubernetes.io/name", "shop")]);
        assert_eq!(LabelSelector::parse(selector).unwrap().matches(&object), expected, "{selector}");
    }

    #[rstest::rstest]
    #[case("a b")]
    #[case("=x")]
    #[case("a in x")]
    #[case("a in (x")]
    #[case("a=-x")]
    #[case("a>b")]
    #[case("-a")]
    fn malformed_label_selectors_are_bad_requests(#[case] selector: &str) {
        assert_eq!(LabelSelector::parse(selector).unwrap_err().code, 400, "{selector}");
    }

    #[test]
    fn field_selectors_read_fields_and_refuse_unknown_ones() {
        let kind = super::super::kinds::builtin("", "v1", "pods").unwrap();
        let pod = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}});
        let matches = |text: &str| FieldSelector::parse(text, &kind).unwrap().matches(&pod);
        assert!(matches("status.phase=Running,spec.nodeName!=n2"));
        assert!(!matches("status.phase!=Running"));
        assert!(matches("status.nominatedNodeName="));
        let refusal = FieldSelector::parse("spec.colour=red", &kind).unwrap_err();
        assert_eq!(refusal.message, "field label not supported: spec.colour");
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in ".*") {
            let _ = LabelSelector::parse(&text);
            let kind = super::super::kinds::builtin("", "v1", "pods").unwrap();
            let _ = FieldSelector::parse(&text, &kind);
        }

        #[test]
        fn equality_and_its_negation_split_all_objects(key in "[a-z]{1,8}", wanted in "[a-z0-9]{0,8}", actual in "[a-z0-9]{0,8}") {
            let object = labelled(&[(&key, &actual)]);
            let equal = LabelSelector::parse(&format!("{key}={wanted}")).unwrap().matches(&object);
            let different = LabelSelector::parse(&format!("{key} notin ({wanted})")).unwrap().matches(&object);
            prop_assert_eq!(equal, wanted == actual);
            prop_assert_eq!(equal, !different);
        }
    }
}
