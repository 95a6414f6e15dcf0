//! The usual annotations of ingress-nginx and Contour, and the lab's own for what those have no name for.

use super::{Annotations, Settings};
use crate::GatewayKind;

/// An annotation whose value cannot be used; the controllers ignore it and so does the agent, with an Event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("annotation {annotation}: {mistake}")]
pub struct AnnotationProblem {
    pub annotation: String,
    pub mistake: String,
}

/// What an Ingress sets for its backends.
pub fn ingress_overrides(kind: GatewayKind, annotations: &Annotations) -> (Settings, Vec<AnnotationProblem>) {
    let _ = (kind, annotations);
    (Settings::default(), Vec::new())
}

/// What a Service sets for itself (Contour reads the upstream's protocol there), for the given port's name and number.
pub fn service_overrides(
    kind: GatewayKind,
    annotations: &Annotations,
    port_name: Option<&str>,
    port: u16,
) -> (Settings, Vec<AnnotationProblem>) {
    let _ = (kind, annotations, port_name, port);
    (Settings::default(), Vec::new())
}
