//! stub

use serde_json::Value;

use super::Column;
use super::super::kinds::Kind;

pub(super) struct Printer;

pub(super) fn printer(_kind: &Kind) -> Printer {
    Printer
}

impl Printer {
    pub fn cells(&self, object: &Value) -> Vec<Value> {
        vec![object["metadata"]["name"].clone(), object["metadata"]["creationTimestamp"].clone()]
    }

    pub fn columns(&self) -> Vec<Column> {
        vec![
            Column { name: "Name".into(), kind: "string", format: "name", priority: 0 },
            Column { name: "Created At".into(), kind: "date", format: "", priority: 0 },
        ]
    }
}
