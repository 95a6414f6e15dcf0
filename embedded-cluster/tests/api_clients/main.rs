//! Real clients against the API server: the `kube` crate and kubectl.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a failure here is a failure of the test")]

mod authorization;
mod hostile;
mod kube_crate;
mod kube_runtime;
mod kubectl;
mod lab;
mod schemas;
