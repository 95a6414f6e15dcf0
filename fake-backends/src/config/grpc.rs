//! `grpc:` - answers to gRPC calls.

use serde::{Deserialize, Serialize};

/// A gRPC server that sends every unary call's message back, and answers `grpc.health.v1.Health/Check` by its readiness.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grpc {
    /// `grpc-status`; anything but 0 is sent in the headers, without a message.
    pub status: u8,
    /// `grpc-message`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
