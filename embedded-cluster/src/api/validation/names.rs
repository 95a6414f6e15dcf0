//! Names, labels and annotations.

use serde_json::Value;

use super::super::kinds::Kind;
use super::super::status::FieldError;
use super::{Errors, text};

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
/// kube-apiserver's `TotalAnnotationSizeLimitB`.
const ANNOTATIONS: usize = 256 * 1024;

pub(super) fn metadata(kind: &Kind, object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let metadata = &object["metadata"];
    let name = text(&metadata["name"]);
    if old.is_none() {
        let field = "metadata.name";
        match (kind.resource.group.as_str(), kind.resource.plural.as_str()) {
            ("", "namespaces") => check(name, field, is_label, LABEL, 63, errors),
            ("", "services") => check(name, field, is_label_1035, LABEL_1035, 63, errors),
            ("rbac.authorization.k8s.io", _) => path_segment(name, field, errors),
            _ => check(name, field, is_subdomain, SUBDOMAIN, 253, errors),
        }
    }
    labels(&metadata["labels"], "metadata.labels", errors);
    let mut size = 0;
    for (key, value) in metadata["annotations"].as_object().into_iter().flatten() {
        qualified_name(&key.to_lowercase(), key, "metadata.annotations", errors);
        size += key.len() + text(value).len();
    }
    if size > ANNOTATIONS {
        errors.push(FieldError {
            reason: "FieldValueTooLong",
            field: "metadata.annotations".to_owned(),
            message: format!("Too long: may not be more than {ANNOTATIONS} bytes"),
        });
    }
    for (index, owner) in super::items(&metadata["ownerReferences"]).enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if text(&owner[field]).is_empty() {
                let field = format!("metadata.ownerReferences[{index}].{field}");
                errors.push(FieldError::invalid(field, &"".into(), "must not be empty"));
            }
        }
    }
}

fn check(name: &str, field: &str, good: fn(&str) -> bool, why: &str, longest: usize, errors: &mut Errors) {
    if name.len() > longest {
        errors.push(FieldError::invalid(field, &name.into(), &format!("must be no more than {longest} characters")));
    }
    if !good(name) {
        errors.push(FieldError::invalid(field, &name.into(), why));
    }
}

fn path_segment(name: &str, field: &str, errors: &mut Errors) {
    if matches!(name, "." | "..") {
        errors.push(FieldError::invalid(field, &name.into(), &format!("may not be '{name}'")));
    }
    for part in ["/", "%"] {
        if name.contains(part) {
            errors.push(FieldError::invalid(field, &name.into(), &format!("may not contain '{part}'")));
        }
    }
}

pub(super) fn label(name: &str, field: String, errors: &mut Errors) {
    check(name, &field, is_label, LABEL, 63, errors);
}

pub(super) fn subdomain(name: &str, field: String, errors: &mut Errors) {
    check(name, &field, is_subdomain, SUBDOMAIN, 253, errors);
}

pub(super) fn labels(labels: &Value, field: &str, errors: &mut Errors) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        qualified_name(key, key, field, errors);
        let value = text(value);
        if value.len() > 63 {
            errors.push(FieldError::invalid(field, &value.into(), "must be no more than 63 characters"));
        } else if !value.is_empty() && !is_qualified(value) {
            errors.push(FieldError::invalid(field, &value.into(), LABEL_VALUE));
        }
    }
}

fn qualified_name(key: &str, shown: &str, field: &str, errors: &mut Errors) {
    if key.matches('/').count() > 1 {
        let why = format!(
            "a qualified {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
            QUALIFIED.replacen("part ", "", 1)
        );
        errors.push(FieldError::invalid(field, &shown.into(), &why));
        return;
    }
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if let Some(prefix) = prefix
        && !is_subdomain(prefix)
    {
        let why = if prefix.is_empty() { "prefix part must be non-empty".to_owned() } else { format!("prefix part {SUBDOMAIN}") };
        errors.push(FieldError::invalid(field, &shown.into(), &why));
    }
    if name.is_empty() {
        errors.push(FieldError::invalid(field, &shown.into(), "name part must be non-empty"));
    } else if name.len() > 63 {
        errors.push(FieldError::invalid(field, &shown.into(), "name part must be no more than 63 characters"));
    }
    if !is_qualified(name) {
        errors.push(FieldError::invalid(field, &shown.into(), QUALIFIED));
    }
}

/// IANA_SVC_NAME, as port names are.
pub(super) fn port_name(name: &str, field: String, errors: &mut Errors) {
    let mut why = Vec::new();
    if name.len() > 15 {
        why.push("must be no more than 15 characters");
    }
    if !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') || name.is_empty() {
        why.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    }
    if !name.chars().any(|c| c.is_ascii_lowercase()) {
        why.push("must contain at least one letter (a-z)");
    }
    if name.contains("--") {
        why.push("must not contain consecutive hyphens");
    }
    if name.starts_with('-') || name.ends_with('-') {
        why.push("must not begin or end with a hyphen");
    }
    errors.extend(why.into_iter().map(|why| FieldError::invalid(field.clone(), &name.into(), why)));
}

pub(super) fn config_key(key: &str, field: &str, errors: &mut Errors) {
    let good = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if !good || matches!(key, "." | "..") || key.len() > 253 {
        errors.push(FieldError::invalid(format!("{field}[{key}]"), &key.into(), CONFIG_KEY));
    }
}

pub(super) fn is_label(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty() && name.chars().all(inner) && !name.starts_with('-') && !name.ends_with('-')
}

fn is_label_1035(name: &str) -> bool {
    is_label(name) && name.starts_with(|c: char| c.is_ascii_lowercase())
}

pub(super) fn is_subdomain(name: &str) -> bool {
    !name.is_empty() && name.split('.').all(is_label)
}

fn is_qualified(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) && edge(name.chars().next()) && edge(name.chars().next_back())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case("web-1", true, true)]
    #[case("web.shop", false, true)]
    #[case("Web", false, false)]
    #[case("-web", false, false)]
    #[case("", false, false)]
    #[case("a..b", false, false)]
    fn names(#[case] name: &str, #[case] label: bool, #[case] subdomain: bool) {
        assert_eq!((is_label(name), is_subdomain(name)), (label, subdomain), "{name}");
    }
}
