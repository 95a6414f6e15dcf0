//! `websocket:` - what becomes of a WebSocket handshake, and of the connection after it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::optional_duration;

/// A WebSocket endpoint that sends every message back.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebSocket {
    /// Status for requests that ask for no upgrade: 426 by RFC 9110 section 15.5.22, 400 in many libraries; left out: they are answered
    /// as if there were no `websocket`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required: Option<u16>,
    /// A ping this often (RFC 6455 section 5.5.2); left out: never.
    #[serde(skip_serializing_if = "Option::is_none", with = "optional_duration")]
    pub ping_interval: Option<Duration>,
    /// Closes this long after the handshake; left out: never.
    #[serde(skip_serializing_if = "Option::is_none", with = "optional_duration")]
    pub close_after: Option<Duration>,
    /// Code of the close frame that `close_after` sends (RFC 6455 section 7.4); left out: the connection is closed without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close_code: Option<u16>,
}
