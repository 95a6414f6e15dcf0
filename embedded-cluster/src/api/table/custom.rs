//! Rows of custom resources: `additionalPrinterColumns` of their definition, or the age.

use serde_json::Value;

use super::Column;
use super::text::{age, name, since};

pub(super) struct Printer {
    columns: Vec<(Column, String)>,
}

impl Printer {
    /// `version` is an entry of a definition's `spec.versions`.
    pub fn new(version: &Value) -> Self {
        let given = version["additionalPrinterColumns"].as_array().into_iter().flatten();
        let mut columns: Vec<(Column, String)> = given
            .map(|column| {
                let text = |field: &str| column[field].as_str().unwrap_or_default().to_owned();
                let kind = match column["type"].as_str() {
                    Some("integer") => "integer",
                    Some("number") => "number",
                    Some("boolean") => "boolean",
                    Some("date") => "date",
                    _ => "string",
                };
                let priority = column["priority"].as_i64().and_then(|p| i32::try_from(p).ok()).unwrap_or(0);
                (Column { name: text("name"), kind, format: "", priority }, text("jsonPath"))
            })
            .collect();
        if columns.is_empty() {
            let age = Column { name: "Age".to_owned(), kind: "date", format: "", priority: 0 };
            columns.push((age, ".metadata.creationTimestamp".to_owned()));
        }
        Self { columns }
    }

    pub fn columns(&self) -> Vec<Column> {
        let name = Column { name: "Name".to_owned(), kind: "string", format: "name", priority: 0 };
        std::iter::once(name).chain(self.columns.iter().map(|(column, _)| column.clone())).collect()
    }

    pub fn cells(&self, object: &Value) -> Vec<Value> {
        let cells = self.columns.iter().map(|(column, path)| {
            if path == ".metadata.creationTimestamp" {
                return age(object);
            }
            match find(object, path) {
                Some(value) if column.kind == "date" => since(value).into(),
                // As kubectl shows HTTPRoutes' host names: `["shop.example"]`.
                Some(list @ (Value::Object(_) | Value::Array(_))) if column.kind == "string" => list.to_string().into(),
                Some(Value::Object(_) | Value::Array(_)) | None => Value::Null,
                Some(value) => value.clone(),
            }
        });
        std::iter::once(name(object)).chain(cells).collect()
    }
}

/// The JSON paths that printer columns use in practice: fields, indices, `[?(@.type=="Ready")]`, escaped dots.
fn find<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let mut at = object;
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(filter) = rest.strip_prefix("[?(@.") {
            let (condition, after) = filter.split_once(")]")?;
            let (field, wanted) = condition.split_once("==")?;
            let wanted = wanted.trim().trim_matches(['"', '\'']);
            at = at.as_array()?.iter().find(|item| item[field.trim()].as_str() == Some(wanted))?;
            rest = after;
        } else if let Some(index) = rest.strip_prefix('[') {
            let (index, after) = index.split_once(']')?;
            at = match index.parse::<usize>() {
                Ok(index) => at.get(index)?,
                Err(_) if index == "*" => at.get(0)?,
                Err(_) => at.get(index.trim_matches(['"', '\'']))?,
            };
            rest = after;
        } else {
            rest = rest.strip_prefix('.').unwrap_or(rest);
            let mut field = String::new();
            let mut escaped = false;
            let mut end = rest.len();
            for (index, c) in rest.char_indices() {
                match c {
                    '\\' if !escaped => escaped = true,
                    '.' | '[' if !escaped => {
                        end = index;
                        break;
                    }
                    c => {
                        field.push(c);
                        escaped = false;
                    }
                }
            }
            at = at.get(&field)?;
            rest = &rest[end..];
        }
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_of_published_definitions_are_found() {
        let object = json!({"spec": {"hosts": ["a", "b"]}, "status": {"conditions": [{"type": "Accepted", "status": "False"}, {"type": "Ready", "status": "True"}]},
            "metadata": {"labels": {"a.b/c": "d"}}});
        assert_eq!(find(&object, ".status.conditions[?(@.type==\"Ready\")].status"), Some(&json!("True")));
        assert_eq!(find(&object, ".spec.hosts[1]"), Some(&json!("b")));
        assert_eq!(find(&object, ".metadata.labels.a\\.b/c"), Some(&json!("d")));
        assert_eq!(find(&object, ".spec.absent.field"), None);
    }

    #[test]
    fn without_columns_there_is_the_age() {
        let printer = Printer::new(&json!({"name": "v1"}));
        let names: Vec<String> = printer.columns().into_iter().map(|c| c.name).collect();
        assert_eq!(names, ["Name", "Age"]);
    }
}
