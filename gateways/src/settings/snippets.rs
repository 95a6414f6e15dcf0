//! Raw configuration, by gateway and by the places that each gateway's folder names.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeSeed, Error, MapAccess, Visitor},
};
use serde_json::Value;

use crate::GatewayKind;

/// A place in a gateway's configuration that takes raw configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SnippetPlace {
    pub name: &'static str,
    pub form: SnippetForm,
}

/// What raw configuration looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SnippetForm {
    /// Text, put in as it is; several add up, one behind the other.
    Lines,
    /// A partial object; a later one takes the place of an earlier one.
    Object,
}

/// Raw configuration for places in gateways' configurations: `{ nginx: { location: "gzip on;" } }`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Snippets(BTreeMap<GatewayKind, BTreeMap<&'static str, Snippet>>);

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
enum Snippet {
    Lines(String),
    Object(Value),
}

impl Snippets {
    /// Lines for one place.
    pub(crate) fn lines(&self, gateway: GatewayKind, place: &str) -> Option<&str> {
        match self.0.get(&gateway)?.get(place)? {
            Snippet::Lines(text) => Some(text),
            Snippet::Object(_) => None,
        }
    }

    /// The object for one place.
    pub(crate) fn object(&self, gateway: GatewayKind, place: &str) -> Option<&Value> {
        match self.0.get(&gateway)?.get(place)? {
            Snippet::Object(value) => Some(value),
            Snippet::Lines(_) => None,
        }
    }

    /// Adds lines behind those that are there.
    pub(crate) fn add(&mut self, gateway: GatewayKind, place: &'static str, lines: &str) {
        self.put(gateway, place, Snippet::Lines(lines.to_owned()));
    }

    pub(super) fn overlay(&mut self, added: &Self) {
        for (gateway, places) in &added.0 {
            for (place, snippet) in places {
                self.put(*gateway, place, snippet.clone());
            }
        }
    }

    fn put(&mut self, gateway: GatewayKind, place: &'static str, added: Snippet) {
        let places = self.0.entry(gateway).or_default();
        match (places.get_mut(place), added) {
            (Some(Snippet::Lines(text)), Snippet::Lines(added)) => {
                text.push('\n');
                text.push_str(&added);
            }
            (_, added) => drop(places.insert(place, added)),
        }
    }
}

impl<'de> Deserialize<'de> for Snippets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Gateways)
    }
}

fn unknown<E: Error>(key: &str, known: impl IntoIterator<Item = &'static str>) -> E {
    let known: Vec<String> = known.into_iter().map(|name| format!("`{name}`")).collect();
    E::custom(format_args!("unknown field `{key}`, expected one of {}", known.join(", ")))
}

struct Gateways;

impl<'de> Visitor<'de> for Gateways {
    type Value = Snippets;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("snippets by gateway")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut snippets = Snippets::default();
        while let Some(name) = map.next_key::<String>()? {
            let kind = GatewayKind::ALL.iter().find(|kind| kind.name() == name);
            let kind = kind.ok_or_else(|| unknown::<A::Error>(&name, GatewayKind::names()))?;
            let places = map.next_value_seed(Places(kind.adapter().facts().snippets))?;
            snippets.0.insert(*kind, places);
        }
        Ok(snippets)
    }
}

struct Places(&'static [SnippetPlace]);

impl<'de> DeserializeSeed<'de> for Places {
    type Value = BTreeMap<&'static str, Snippet>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Places {
    type Value = BTreeMap<&'static str, Snippet>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("snippets by place")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut places = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            let place = self.0.iter().find(|place| place.name == name);
            let place = place.ok_or_else(|| unknown::<A::Error>(&name, self.0.iter().map(|place| place.name)))?;
            let snippet = match place.form {
                SnippetForm::Lines => map.next_value::<Option<String>>()?.map(Snippet::Lines),
                SnippetForm::Object => map.next_value::<Option<Value>>()?.map(Snippet::Object),
            };
            places.extend(snippet.map(|snippet| (place.name, snippet)));
        }
        Ok(places)
    }
}

#[cfg(test)]
mod tests {
    use crate::Settings;

    #[test]
    fn lines_add_up_and_objects_replace_each_other() {
        for kind in crate::GatewayKind::ALL {
            for place in kind.adapter().facts().snippets {
                let of = |text: &str| {
                    let text = format!("snippets: {{ {kind}: {{ {}: {text} }} }}", place.name);
                    Settings::from_yaml(&text).unwrap().snippets.unwrap()
                };
                let one = |first: &str, second: &str| {
                    let mut snippets = of(first);
                    snippets.overlay(&of(second));
                    (snippets.lines(*kind, place.name).map(str::to_owned), snippets.object(*kind, place.name).map(ToString::to_string))
                };
                match place.form {
                    super::SnippetForm::Lines => assert_eq!(one("a;", "b;"), (Some("a;\nb;".to_owned()), None), "{kind}"),
                    super::SnippetForm::Object => assert_eq!(one("{a: 1}", "{b: 2}"), (None, Some("{\"b\":2}".to_owned())), "{kind}"),
                }
            }
        }
    }

    #[test]
    fn a_place_that_is_not_there_is_told_with_those_that_are() {
        let error = |text: &str| Settings::from_yaml(text).unwrap_err().to_string();
        let gateway = error("snippets: { ngnix: { http: x } }");
        assert!(gateway.contains("unknown field `ngnix`, expected one of `nginx`, "), "{gateway}");
        let place = error("snippets: { nginx: { htpp: x } }");
        assert!(place.contains("unknown field `htpp`, expected one of `main`, `http`, "), "{place}");
        assert!(place.contains("line 1"), "{place}");
    }
}
