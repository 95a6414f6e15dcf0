//! Real clients against the API server: the `kube` crate and kubectl.

mod kube_crate;
mod kubectl;
mod lab;
