//! What a client sees at its socket: bytes, FIN, RST, or nothing at all.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod admin;
mod bodies;
mod connections;
mod deliveries;
mod health;
mod idle;
mod journal;
mod protocols;
mod settings;
mod tls;
mod upstream;
mod wire;
