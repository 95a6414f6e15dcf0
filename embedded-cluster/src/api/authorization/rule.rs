//! One rule of a role (`rbac/v1.PolicyRule`).

use serde_json::{Value, json};

use super::attributes::Attributes;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rule {
    pub verbs: Vec<String>,
    pub groups: Vec<String>,
    pub resources: Vec<String>,
    pub names: Vec<String>,
    pub paths: Vec<String>,
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|entry| entry == "*" || entry == wanted)
}

impl Rule {
    pub fn of(value: &Value) -> Self {
        let list = |field: &str| value[field].as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect();
        Self {
            verbs: list("verbs"),
            groups: list("apiGroups"),
            resources: list("resources"),
            names: list("resourceNames"),
            paths: list("nonResourceURLs"),
        }
    }

    /// As a rule in the answer to a SelfSubjectRulesReview.
    pub fn resource_rule(&self) -> Value {
        let mut rule = json!({"verbs": self.verbs, "apiGroups": self.groups, "resources": self.resources});
        if !self.names.is_empty() {
            rule["resourceNames"] = json!(self.names);
        }
        rule
    }

    /// `rbac.RuleAllows`
    pub fn allows(&self, asked: &Attributes) -> bool {
        if !has(&self.verbs, &asked.verb) {
            return false;
        }
        if !asked.is_resource() {
            return self.allows_path(&asked.path);
        }
        has(&self.groups, &asked.group)
            && self.allows_resource(&asked.resource, &asked.subresource)
            && (self.names.is_empty() || self.names.contains(&asked.name))
    }

    fn allows_path(&self, path: &str) -> bool {
        self.paths.iter().any(|allowed| match allowed.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix.trim_end_matches('*')),
            None => allowed == path,
        })
    }

    fn allows_resource(&self, resource: &str, subresource: &str) -> bool {
        let full = if subresource.is_empty() { resource.to_owned() } else { format!("{resource}/{subresource}") };
        has(&self.resources, &full)
            || !subresource.is_empty() && self.resources.iter().any(|allowed| allowed.strip_prefix("*/") == Some(subresource))
    }

    /// Cut into rules of one verb, one group, one resource and at most one name, or one verb and one path.
    pub fn pieces(&self) -> Vec<Self> {
        let one = |text: &String| vec![text.clone()];
        let mut pieces = Vec::new();
        for group in &self.groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    let piece = Self { verbs: one(verb), groups: one(group), resources: one(resource), ..Self::default() };
                    if self.names.is_empty() {
                        pieces.push(piece);
                    } else {
                        pieces.extend(self.names.iter().map(|name| Self { names: one(name), ..piece.clone() }));
                    }
                }
            }
        }
        for path in &self.paths {
            pieces.extend(self.verbs.iter().map(|verb| Self { verbs: one(verb), paths: one(path), ..Self::default() }));
        }
        pieces
    }

    /// Whether who has this rule has all of a piece (`validation.ruleCovers`).
    pub fn covers(&self, piece: &Self) -> bool {
        let covers = |mine: &[String], theirs: &[String]| theirs.iter().all(|entry| has(mine, entry));
        let resources = || {
            covers(&self.resources, &piece.resources)
                || piece.resources.iter().all(|entry| match entry.split_once('/') {
                    Some((_, subresource)) => self.resources.iter().any(|mine| mine.strip_prefix("*/") == Some(subresource)),
                    None => false,
                })
        };
        let names = || self.names.is_empty() || !piece.names.is_empty() && piece.names.iter().all(|name| self.names.contains(name));
        let paths = || piece.paths.iter().all(|path| self.allows_path(path));
        if !covers(&self.verbs, &piece.verbs) {
            return false;
        }
        if piece.paths.is_empty() { covers(&self.groups, &piece.groups) && resources() && names() } else { paths() }
    }

    /// `{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}`, as rbac's `CompactString`.
    pub fn compact(&self) -> String {
        let quoted = |list: &[String]| list.iter().map(|entry| format!("\"{entry}\"")).collect::<Vec<_>>().join(" ");
        let parts: Vec<String> = [
            ("APIGroups", &self.groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.paths),
            ("ResourceNames", &self.names),
            ("Verbs", &self.verbs),
        ]
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(name, list)| format!("{name}:[{}]", quoted(list)))
        .collect();
        format!("{{{}}}", parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(value: Value) -> Rule {
        Rule::of(&value)
    }

    fn asks(verb: &str, resource: &str, subresource: &str, name: &str) -> Attributes {
        Attributes {
            verb: verb.to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            name: name.to_owned(),
            ..Attributes::default()
        }
    }

    #[test]
    fn subresources_are_permissions_of_their_own() {
        let pods = rule(json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}));
        assert!(pods.allows(&asks("get", "pods", "", "a")));
        assert!(!pods.allows(&asks("get", "pods", "log", "a")), "logs need pods/log");
        assert!(!pods.allows(&asks("list", "pods", "", "")));
        let scale = rule(json!({"apiGroups": ["*"], "resources": ["*/scale"], "verbs": ["*"]}));
        assert!(scale.allows(&asks("patch", "deployments", "scale", "a")));
        assert!(!scale.allows(&asks("patch", "deployments", "", "a")));
    }

    #[test]
    fn names_do_not_allow_lists_and_other_groups_are_other_resources() {
        let one = rule(json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list"], "resourceNames": ["tls"]}));
        assert!(one.allows(&asks("get", "secrets", "", "tls")));
        assert!(!one.allows(&asks("get", "secrets", "", "other")));
        assert!(!one.allows(&asks("list", "secrets", "", "")));
        let apps = rule(json!({"apiGroups": ["apps"], "resources": ["*"], "verbs": ["*"]}));
        assert!(!apps.allows(&asks("get", "pods", "", "a")));
    }

    #[test]
    fn paths_match_by_prefix_only_with_a_star() {
        let path = |path: &str| Attributes { verb: "get".to_owned(), path: path.to_owned(), ..Attributes::default() };
        let rule = rule(json!({"nonResourceURLs": ["/api", "/apis/*"], "verbs": ["get"]}));
        assert!(rule.allows(&path("/api")) && rule.allows(&path("/apis/apps")));
        assert!(!rule.allows(&path("/api/v1")) && !rule.allows(&path("/metrics")));
    }
}
