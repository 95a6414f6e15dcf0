//! Changing some settings and leaving the rest: JSON merge patches (RFC 7396) and `path=value` assignments.

use serde_json::Value;

use super::Config;
use crate::Error;

impl Config {
    /// These settings with a JSON merge patch (RFC 7396) applied: `null` puts a key back to its default.
    pub fn merged(&self, patch: &Value) -> Result<Config, Error> {
        let mut tree = self.as_json()?;
        merge(&mut tree, patch);
        Config::from_json(tree, "(patch)")
    }

    /// These settings with assignments applied in order, e.g. `("server.keepalive_idle_timeout", "2s")` or
    /// `("routes.0.response.latency", "1s")`. Values are read as YAML, so `null`, `true`, `[a, b]` and `{a: 1}` work.
    pub fn assigned<'a>(&self, assignments: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Config, Error> {
        let mut tree = self.as_json()?;
        let mut paths = Vec::new();
        for (path, text) in assignments {
            let value = parse_value(text).map_err(|reason| Error::Change { path: path.to_owned(), reason })?;
            assign(&mut tree, path, value).map_err(|reason| Error::Change { path: path.to_owned(), reason })?;
            paths.push(path);
        }
        Config::from_json(tree, &paths.join(", "))
    }

    /// Refuses the changes that a running backend cannot follow.
    pub(crate) fn check_switch(&self, next: &Config) -> Result<(), Error> {
        if self.server.health_listen != next.server.health_listen {
            return Err(Error::NeedsRestart { path: "server.health_listen" });
        }
        if self.admin != next.admin {
            return Err(Error::NeedsRestart { path: "admin" });
        }
        Ok(())
    }

    pub(crate) fn from_json(tree: Value, path: &str) -> Result<Config, Error> {
        let config: Config =
            serde_json::from_value(tree).map_err(|error| Error::Change { path: path.to_owned(), reason: error.to_string() })?;
        config.validate()?;
        Ok(config)
    }

    fn as_json(&self) -> Result<Value, Error> {
        serde_json::to_value(self).map_err(|error| Error::Change { path: String::new(), reason: error.to_string() })
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// A YAML value; text that is no YAML (`a: b: c`) is taken as it is.
fn parse_value(text: &str) -> Result<Value, String> {
    if text.trim().is_empty() {
        return Err("the value is empty; write `null` to put the key back to its default".to_owned());
    }
    Ok(serde_saphyr::from_str::<Value>(text).unwrap_or_else(|_| Value::String(text.to_owned())))
}

fn assign(tree: &mut Value, path: &str, value: Value) -> Result<(), String> {
    let mut target = tree;
    let mut keys = path.split('.').peekable();
    while let Some(key) = keys.next() {
        let last = keys.peek().is_none();
        target = match target {
            Value::Array(items) => {
                let length = items.len();
                let index: usize = key.parse().map_err(|_| format!("`{key}` is not the number of a list entry"))?;
                // One past the end appends, so that a first route can be added.
                if index == length {
                    items.push(Value::Object(serde_json::Map::new()));
                }
                if last && value.is_null() {
                    items.remove(index.min(length));
                    return Ok(());
                }
                items.get_mut(index).ok_or_else(|| format!("the list has {length} entries; `{key}` is beyond its end"))?
            }
            Value::Object(map) => {
                if last && value.is_null() {
                    map.remove(key);
                    return Ok(());
                }
                map.entry(key).or_insert_with(|| Value::Object(serde_json::Map::new()))
            }
            _ => return Err(format!("`{key}` is inside of a value that has no keys")),
        };
    }
    *target = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Latency;
    use std::time::Duration;

    #[test]
    fn an_assignment_changes_one_key_and_no_other() {
        let before = Config::from_yaml("name: shop\nserver: {keepalive_idle_timeout: 75s, backlog: 7}", "test").unwrap();
        let after = before.assigned([("server.keepalive_idle_timeout", "2s")]).unwrap();
        let mut wanted = before.clone();
        wanted.server.keepalive_idle_timeout = Some(Duration::from_secs(2));
        assert_eq!(after, wanted);
        assert_eq!(after.assigned([("server.keepalive_idle_timeout", "null")]).unwrap().server.keepalive_idle_timeout, None);
    }

    #[test]
    fn a_route_can_be_added_changed_and_removed_by_its_number() {
        let config = Config::default().assigned([("routes.0.path", "/slow"), ("routes.0.response.latency", "1s")]).unwrap();
        assert_eq!(config.routes[0].response.latency, Some(Latency::Fixed(Duration::from_secs(1))));
        let config = config.assigned([("routes.0.response.latency", "{uniform: {min: 1ms, max: 2ms}}")]).unwrap();
        assert!(matches!(config.routes[0].response.latency, Some(Latency::Uniform { .. })));
        assert_eq!(config.assigned([("routes.0", "null")]).unwrap(), Config::default());
    }

    #[test]
    fn a_merge_patch_follows_rfc_7396() {
        let config = Config::from_yaml("response: {status: 201, body: hello}", "test").unwrap();
        let patched = config.merged(&serde_json::json!({"response": {"status": null, "latency": "5ms"}})).unwrap();
        assert_eq!(patched.response.status, None);
        assert_eq!(patched.response.body.as_deref(), Some("hello"));
        assert_eq!(patched.response.latency, Some(Latency::Fixed(Duration::from_millis(5))));
    }

    #[test]
    fn mistakes_name_the_path() {
        for (path, value) in [("server.keepalive", "2s"), ("server.listen", "nowhere"), ("routes.3.path", "/x"), ("response.status", "7")] {
            let error = Config::default().assigned([(path, value)]).unwrap_err().to_string();
            assert!(error.contains(path) || error.contains("status"), "{error}");
        }
    }
}
