//! Custom resources: the kinds that stored CustomResourceDefinitions add.

use std::sync::Arc;

use serde_json::Value;

use super::kinds::Kind;

/// One kind for each served version of a definition.
pub(super) fn kinds(definition: &Value) -> Vec<Arc<Kind>> {
    definition["spec"]["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|version| version["served"] == true)
        .filter_map(|version| Kind::custom(definition, version).map(Arc::new))
        .collect()
}

/// A custom object as it is stored.
///
/// # Errors
/// None so far: the definition's schema is not enforced.
pub(super) fn checked(_kind: &Kind, object: Value) -> Result<Value, super::status::Refusal> {
    Ok(object)
}
