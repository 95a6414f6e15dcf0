//! Server-side tables: what `kubectl get` prints.

mod columns;
mod custom;
mod network;
mod others;
mod pods;
mod text;
mod workloads;

use std::sync::Arc;

use serde_json::{Value, json};

use super::convert;
use super::kinds::Kind;

/// What a row carries besides its cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Include {
    None,
    Metadata,
    Object,
}

/// A column: name, type, format, description, priority (0: always shown, 1: only with `-o wide`).
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub name: String,
    pub kind: &'static str,
    pub format: &'static str,
    pub priority: i32,
}

pub(super) fn table(kind: &Kind, objects: &[Arc<Value>], include: Include, with_columns: bool, metadata: &Value) -> Value {
    let printer = columns::printer(kind);
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let mut row = json!({"cells": printer.cells(object)});
            match include {
                Include::None => {}
                Include::Metadata => row["object"] = convert::metadata_only(object),
                Include::Object => row["object"] = (**object).clone(),
            }
            row
        })
        .collect();
    let columns: Vec<Value> = printer
        .columns()
        .iter()
        .filter(|_| with_columns)
        .map(|c| json!({"name": c.name, "type": c.kind, "format": c.format, "description": "", "priority": c.priority}))
        .collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": columns, "rows": rows})
}
