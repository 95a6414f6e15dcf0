//! One connection from accept to close: TLS, hyper, and a watch over both that can take the socket away from hyper.

mod activity;
mod answer;
mod body;
mod driver;
mod grpc;
mod observed;
mod service;
mod socket;
mod track;
mod websocket;

pub(crate) use activity::Activity;
pub(crate) use socket::{Role, serve};
