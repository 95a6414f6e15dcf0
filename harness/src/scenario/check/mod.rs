//! What is right by itself and wrong together: references to nothing, contradictions, expectations that show nothing, and
//! texts that give the answer away.

mod confusable;
mod leak;
mod references;
mod values;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::app::App;
use super::catalogue::Catalogue;
use super::model::Scenario;
use super::problem::{Problem, Problems};

/// All that can be said about one scenario. `app`: the one it names, when there is such a one.
pub fn scenario(scenario: &Scenario, path: &Path, app: Option<&App>, apps: &BTreeMap<String, Arc<App>>, problems: &mut Problems) {
    values::check(scenario, path, problems);
    references::check(scenario, app, apps, problems);
    leak::check(scenario, app, problems);
}

/// What only shows between scenarios.
pub fn catalogue(catalogue: &Catalogue) -> Vec<Problem> {
    confusable::check(catalogue)
}
