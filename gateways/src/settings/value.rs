//! Values as the controllers' annotations write them.

use std::time::Duration;

use super::Network;

/// Addresses and networks, with commas between them.
pub(crate) fn networks(value: &str) -> Result<Vec<Network>, String> {
    value.split(',').map(|network| Network::try_from(network.trim().to_owned())).collect()
}

pub(crate) fn seconds(value: &str) -> Result<Duration, String> {
    value.trim().parse().map(Duration::from_secs).map_err(|_| format!("`{value}` is no whole number of seconds"))
}

pub(crate) fn number(value: &str) -> Result<u32, String> {
    value.trim().parse().map_err(|_| format!("`{value}` is no whole number"))
}

pub(crate) fn switch(value: &str) -> Result<bool, String> {
    match value.trim() {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err(format!("`{value}` is neither `on` nor `off`")),
    }
}
