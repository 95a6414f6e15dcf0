//! What a path is rewritten to.

use serde::{Deserialize, Serialize};

/// A path that goes into configuration files as it is, so that it holds nothing that they would read as syntax of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RewriteTarget(String);

impl RewriteTarget {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RewriteTarget {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "/-._~".contains(c);
        if text.starts_with('/') && text.chars().all(plain) {
            Ok(Self(text))
        } else {
            Err(format!("`{text}` is no plain path; capture groups of regular expressions are not understood here"))
        }
    }
}

impl From<RewriteTarget> for String {
    fn from(target: RewriteTarget) -> Self {
        target.0
    }
}

/// A regular expression for a path as it is written.
pub(crate) fn pattern(path: &str) -> String {
    path.chars().flat_map(|c| (!c.is_ascii_alphanumeric() && !"/-_~%".contains(c)).then_some('\\').into_iter().chain([c])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_paths_are_taken() {
        for (text, plain) in [("/", true), ("/api/v1", true), ("", false), ("api", false), ("/$2", false), ("/; deny all", false)] {
            assert_eq!(RewriteTarget::try_from(text.to_owned()).is_ok(), plain, "{text:?}");
        }
        assert_eq!(pattern("/v1.0/a+b"), "/v1\\.0/a\\+b");
    }
}
