//! Defaults that kube-apiserver writes into objects when they are stored.

use serde_json::Value;

use super::Resource;

pub(crate) fn apply(_resource: &Resource, _object: &mut Value) {}
