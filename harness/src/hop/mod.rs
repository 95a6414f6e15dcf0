//! The hop test: client -> gateway, gateway -> Service, Service -> pod, inside the pod. Each leg is tried on its own, so that the
//! first one that does not do its part is where to look.
//!
//! * [`route`] finds out from objects which way a request should go, [`test`] goes it.

pub mod route;
pub mod test;

pub use route::{Endpoint, Route, Speech};
pub use test::{HopTest, first_failing};
