//! Nothing that a trainee sees names the answer: not the story or the hints, not the names, labels and images in the cluster.

use serde_json::Value;

use crate::scenario::app::App;
use crate::scenario::model::{Change, Scenario};
use crate::scenario::problem::{Mistake, Problem, Problems, Span};

/// Words that titles share with healthy manifests and that give nothing away.
const INNOCENT: &[&str] = &[
    // In the name of every other setting and annotation.
    "timeout",
    "service",
    "services",
    "pod",
    "pods",
    "port",
    "ports",
    "gateway",
    "backend",
    "application",
    "that",
    "this",
    "with",
    "from",
    "into",
    "before",
    "after",
    "their",
    "nothing",
    "while",
    "than",
    "does",
    "what",
    "http",
    "node",
    "name",
    "container",
    "answers",
    "still",
    "request",
    "requests",
    "speaks",
    "plain",
    "only",
    "every",
    "until",
    "time",
    "label",
    "labels",
    "deployment",
    "the",
    "for",
    "and",
    "not",
];

pub fn check(scenario: &Scenario, app: Option<&App>, problems: &mut Problems) {
    texts(scenario, problems);
    let mut words = telling_words(scenario);
    // Its own name is everywhere in an application, with and without the fault.
    words.retain(|word| app.is_none_or(|app| ![&app.name, &app.namespace].iter().any(|name| name.split('-').any(|part| part == word))));
    let changes = scenario.setup.iter().map(|setup| setup.value.clone()).chain([scenario.fault.value.clone(), scenario.fix.change()]);
    for change in changes.chain(scenario.probes.values().filter_map(|probe| probe.during.as_ref()).map(|during| during.value.clone())) {
        change_leaks(&change, &words, problems);
    }
    for manifest in app.into_iter().flat_map(|app| &app.manifests) {
        for (word, place) in leaks(&manifest.object, &words) {
            problems.add_elsewhere(Problem::new(Mistake::AnswerLeak { word, place }, &manifest.source, manifest.node.start()));
        }
    }
}

/// The story names neither the object at fault nor the field; hints may lead there but don't spell the field out.
fn texts(scenario: &Scenario, problems: &mut Problems) {
    let mut told: Vec<(&str, &str, Span)> = vec![("the story", &scenario.story.value, scenario.story.span)];
    told.extend(scenario.hints.iter().map(|hint| ("a hint", hint.value.as_str(), hint.span)));
    let object = scenario.cause.object.value.to_string();
    let mut answers = vec![object, scenario.id.value.clone()];
    if let Some(field) = &scenario.cause.field {
        answers.push(field.value.clone());
        answers.extend(field.value.rsplit('.').next().filter(|last| last.len() > 5).map(ToOwned::to_owned));
    }
    for (place, text, span) in told {
        let lower = text.to_lowercase();
        for answer in &answers {
            if lower.contains(&answer.to_lowercase()) {
                problems.add(span, Mistake::AnswerLeak { word: answer.clone(), place: place.to_owned() });
            }
        }
    }
}

/// The id, and every longer word of the id, title and tags that is not innocent.
fn telling_words(scenario: &Scenario) -> Vec<String> {
    let mut words = vec![scenario.id.value.to_lowercase()];
    let sources =
        [scenario.id.value.as_str(), scenario.title.value.as_str()].into_iter().chain(scenario.tags.iter().map(|tag| tag.value.as_str()));
    for text in sources {
        for word in text.split(|letter: char| !letter.is_alphanumeric()) {
            let word = word.to_lowercase();
            if word.len() >= 4 && !INNOCENT.contains(&word.as_str()) && !words.contains(&word) {
                words.push(word);
            }
        }
    }
    words
}

fn change_leaks(change: &Change, words: &[String], problems: &mut Problems) {
    for object in change.apply.iter().chain(&change.patch) {
        for (word, place) in leaks(object, words) {
            problems.add(object.span, Mistake::AnswerLeak { word, place });
        }
    }
}

/// Words in names, labels, annotations, images and environment of an object, with the place of each. Field names, ports and
/// commands are Kubernetes' or the program's own words.
fn leaks(object: &Value, words: &[String]) -> Vec<(String, String)> {
    let mut seen = Vec::new();
    texts_of(object, "", &mut seen);
    let mut found = Vec::new();
    for (place, text) in seen {
        let parts: Vec<String> = text.to_lowercase().split(|letter: char| !letter.is_alphanumeric()).map(ToOwned::to_owned).collect();
        for word in words {
            let hit = if word.contains('-') { text.to_lowercase().contains(word.as_str()) } else { parts.contains(word) };
            if hit {
                found.push((word.clone(), place.clone()));
            }
        }
    }
    found
}

/// Under `gatelab.dev/` an Ingress or Service takes any of the gateways' settings.
fn is_gateway_setting(key: &str) -> bool {
    let one = serde_json::Map::from_iter([(key.to_owned(), Value::Null)]);
    serde_json::from_value::<gateways::Settings>(one.into()).map_or_else(|error| !error.to_string().contains("unknown field"), |_| true)
}

fn texts_of(value: &Value, place: &str, seen: &mut Vec<(String, String)>) {
    let Value::Object(entries) = value else {
        if let Value::Array(items) = value {
            for (index, item) in items.iter().enumerate() {
                texts_of(item, &format!("{place}[{index}]"), seen);
            }
        }
        return;
    };
    for (key, item) in entries {
        let here = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
        match (key.as_str(), item) {
            ("labels" | "annotations" | "matchLabels", Value::Object(pairs)) => {
                for (name, text) in pairs {
                    // An annotation that a controller reads is configuration, and may be the very thing that is wrong.
                    if key == "annotations" && name.contains('/') && name.strip_prefix("gatelab.dev/").is_none_or(is_gateway_setting) {
                        continue;
                    }
                    seen.push((format!("{here}[{name}]"), format!("{name}={}", text.as_str().unwrap_or_default())));
                }
            }
            ("name" | "namespace" | "image" | "generateName", Value::String(text)) => seen.push((here, text.clone())),
            ("env", Value::Array(variables)) => {
                for variable in variables {
                    let name = variable["name"].as_str().unwrap_or_default();
                    let value = variable["value"].as_str().unwrap_or_default();
                    seen.push((format!("{here}[{name}]"), format!("{name}={value}")));
                }
            }
            _ => texts_of(item, &here, seen),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_may_stand_in_annotations_and_the_labs_own_words_may_not() {
        let words = ["rewrite".to_owned(), "lossy".to_owned()];
        let leaks = |name: &str| leaks(&json!({ "metadata": { "annotations": { name: "lossy" } } }), &words).len();
        for configuration in ["gatelab.dev/rewrite-target", "gatelab.dev/retries", "nginx.ingress.kubernetes.io/rewrite-target"] {
            assert_eq!(leaks(configuration), 0, "{configuration}");
        }
        assert_eq!(leaks("gatelab.dev/rewrite"), 2);
        assert_eq!(leaks("note"), 1);
    }
}
