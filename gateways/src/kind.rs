use std::{cmp::Ordering, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::adapter::Adapter;

/// One of the gateways that the lab can put in front of an application. It is written as its name.
#[derive(Clone, Copy)]
pub struct GatewayKind(&'static dyn Adapter);

/// A name that is no gateway of the lab's.
#[derive(Debug, thiserror::Error)]
#[error("there is no gateway `{name}`; the lab has {}", GatewayKind::names().join(", "))]
pub struct UnknownGateway {
    /// What was asked for.
    pub name: String,
}

impl GatewayKind {
    /// For the registry, which makes the one value of each gateway.
    pub(crate) const fn of(adapter: &'static dyn Adapter) -> Self {
        Self(adapter)
    }

    pub(crate) fn adapter(self) -> &'static dyn Adapter {
        self.0
    }

    /// The names of all, in the order in which reports list them.
    pub fn names() -> Vec<&'static str> {
        Self::ALL.iter().map(|kind| kind.name()).collect()
    }

    /// The name used on the command line, in scenario files, labels and image names.
    pub fn name(self) -> &'static str {
        self.0.facts().name
    }

    /// The name as its makers write it.
    pub fn product(self) -> &'static str {
        self.0.facts().product
    }

    /// `spec.controller` of the IngressClass.
    pub fn controller(self) -> &'static str {
        self.0.controller()
    }

    /// The well-known controller whose defaults and semantics hold.
    pub fn follows(self) -> &'static str {
        self.0.facts().follows
    }

    /// The image that it comes as, where there is no binary to find or fetch.
    pub fn image(self) -> Option<&'static str> {
        self.0.image()
    }

    /// The package client that fetches it: `apt` or `pip`.
    pub fn package_client(self) -> &'static str {
        self.0.facts().package_client
    }

    fn position(self) -> usize {
        Self::ALL.iter().position(|kind| kind.name() == self.name()).unwrap_or(Self::ALL.len())
    }
}

impl PartialEq for GatewayKind {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for GatewayKind {}

impl Ord for GatewayKind {
    fn cmp(&self, other: &Self) -> Ordering {
        self.position().cmp(&other.position())
    }
}

impl PartialOrd for GatewayKind {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for GatewayKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.product())
    }
}

impl fmt::Display for GatewayKind {
    /// Padded as a format asks for it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for GatewayKind {
    type Err = UnknownGateway;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name).ok_or_else(|| UnknownGateway { name: name.to_owned() })
    }
}

impl Serialize for GatewayKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for GatewayKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_written_as_its_name() {
        for kind in GatewayKind::ALL {
            let text = serde_json::to_string(kind).unwrap();
            assert_eq!(text, format!("\"{kind}\""));
            assert_eq!(serde_json::from_str::<GatewayKind>(&text).unwrap(), *kind);
            assert_eq!(format!("{kind:<30}|").len(), 31);
        }
        let error = serde_json::from_str::<GatewayKind>("\"ngnix\"").unwrap_err().to_string();
        assert!(error.contains("no gateway `ngnix`; the lab has nginx, "), "{error}");
        assert!(GatewayKind::ALL.is_sorted() && GatewayKind::ALL.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
