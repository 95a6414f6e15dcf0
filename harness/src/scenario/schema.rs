//! JSON Schema of `scenario.yaml`, for editors. Checked in as `scenarios/scenario.schema.json`; a test holds the two together.

use super::model::Scenario;

/// The schema as the file holds it.
pub fn render() -> Result<String, serde_json::Error> {
    let mut schema = schemars::schema_for!(Scenario);
    schema.insert("title".to_owned(), "A scenario of gatelab".into());
    serde_json::to_string_pretty(&schema).map(|text| text + "\n")
}
