//! How text is matched: whole, in part, by its beginning or by a pattern with `*`.

use super::decode::{Decode, element, wrong_type};
use super::problem::{Mistake, Problems};
use super::yaml::{Node, Yaml};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;

element! {
    /// Every key that is given has to hold.
    pub struct TextRules ("a text expectation") {
        /// The whole text.
        pub equals: Option<String>,
        /// Somewhere in the text.
        pub contains: Option<String>,
        /// At its beginning.
        pub prefix: Option<String>,
        /// The whole text against a pattern in which `*` stands for anything.
        pub like: Option<String>,
        /// Not even in part.
        pub lacks: Option<String>,
    }
}

/// Text alone means the whole text; a mapping says how.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct TextMatch(pub TextRules);

impl TextMatch {
    pub fn matches(&self, text: &str) -> bool {
        let rules = &self.0;
        rules.equals.as_ref().is_none_or(|wanted| text == wanted)
            && rules.contains.as_ref().is_none_or(|wanted| text.contains(wanted))
            && rules.prefix.as_ref().is_none_or(|wanted| text.starts_with(wanted))
            && rules.like.as_ref().is_none_or(|wanted| like(wanted, text))
            && rules.lacks.as_ref().is_none_or(|unwanted| !text.contains(unwanted))
    }
}

/// Whether `text` is the pattern with something in place of each `*`.
fn like(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    let mut rest = rest;
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or(""),
            None => return false,
        }
    }
    rest.ends_with(last)
}

impl std::fmt::Display for TextMatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rules = &self.0;
        let parts = [
            ("", &rules.equals),
            ("contains ", &rules.contains),
            ("begins with ", &rules.prefix),
            ("is like ", &rules.like),
            ("lacks ", &rules.lacks),
        ];
        let said: Vec<String> = parts.iter().filter_map(|(how, text)| text.as_ref().map(|text| format!("{how}`{text}`"))).collect();
        f.write_str(&said.join(" and "))
    }
}

impl Decode for TextMatch {
    fn decode(node: &Node, problems: &mut Problems) -> Option<Self> {
        match &node.value {
            Yaml::String(text) => {
                Some(TextMatch(TextRules { equals: Some(text.clone()), contains: None, prefix: None, like: None, lacks: None }))
            }
            Yaml::Mapping(entries) if entries.is_empty() => {
                let mistake = Mistake::MissingKey { key: "contains".to_owned(), element: "a text expectation".to_owned() };
                problems.add(node.span, mistake);
                None
            }
            Yaml::Mapping(_) => TextRules::decode(node, problems).map(TextMatch),
            _ => {
                wrong_type(node, "text", problems);
                None
            }
        }
    }
}

impl JsonSchema for TextMatch {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TextMatch".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let rules = generator.subschema_for::<TextRules>();
        schemars::json_schema!({ "description": "The whole text, or a mapping that says how it is matched", "anyOf": [{ "type": "string" }, rules] })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::like;

    #[rstest]
    #[case("a*c", "abc", true)]
    #[case("a*c", "ac", true)]
    #[case("a*c", "abcd", false)]
    #[case("*timeout*", "upstream timeout reached", true)]
    #[case("abc", "abc", true)]
    #[case("abc", "abcd", false)]
    #[case("ab*ba", "aba", false)]
    #[case("*", "", true)]
    fn patterns(#[case] pattern: &str, #[case] text: &str, #[case] matches: bool) {
        assert_eq!(like(pattern, text), matches);
    }

    proptest! {
        #[test]
        fn a_text_is_like_itself_with_parts_left_out(head in "[a-zäß]{0,5}", middle in "[a-zäß]{0,5}", tail in "[a-zäß]{0,5}") {
            let text = format!("{head}{middle}{tail}");
            prop_assert!(like(&text, &text));
            let pattern = format!("{head}*{tail}");
            prop_assert!(like(&pattern, &text));
        }
    }
}
