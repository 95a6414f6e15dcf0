//! A network that requests may come from.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// An address, or a network by its prefix: `192.0.2.7`, `192.0.2.0/24`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    pub address: IpAddr,
    /// Bits.
    pub prefix: u8,
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let read = || {
            let (address, prefix) = text.split_once('/').map_or((text.as_str(), None), |(address, prefix)| (address, Some(prefix)));
            let address: IpAddr = address.trim().parse().ok()?;
            let longest = if address.is_ipv4() { 32 } else { 128 };
            let prefix = prefix.map_or(Some(longest), |prefix| prefix.trim().parse().ok())?;
            (prefix <= longest).then_some(Self { address, prefix })
        };
        read().ok_or_else(|| format!("`{text}` is no address and no network such as 192.0.2.0/24"))
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_networks_are_told_from_anything_else() {
        let read = |text: &str| Network::try_from(text.to_owned()).map(|network| network.to_string()).ok();
        assert_eq!(read("192.0.2.0/24").as_deref(), Some("192.0.2.0/24"));
        assert_eq!(read("192.0.2.7").as_deref(), Some("192.0.2.7/32"));
        assert_eq!(read("2001:db8::/32").as_deref(), Some("2001:db8::/32"));
        for wrong in ["", "192.0.2.0/33", "192.0.2.0/", "shop", "192.0.2.0/24; deny all"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
