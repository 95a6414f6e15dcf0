use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The gateways that the lab can put in front of an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GatewayKind {
    Nginx,
    Envoy,
    Haproxy,
    Traefik,
}

/// A name that is no gateway of the lab's.
#[derive(Debug, thiserror::Error)]
#[error("there is no gateway `{name}`; the lab has {}", GatewayKind::ALL.map(GatewayKind::name).join(", "))]
pub struct UnknownGateway {
    /// What was asked for.
    pub name: String,
}

impl GatewayKind {
    /// Every gateway, in the order in which reports list them.
    pub const ALL: [Self; 4] = [Self::Nginx, Self::Envoy, Self::Haproxy, Self::Traefik];

    /// The name used on the command line, in scenario files, labels and image names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Envoy => "envoy",
            Self::Haproxy => "haproxy",
            Self::Traefik => "traefik",
        }
    }

    /// `spec.controller` of the IngressClass: Traefik follows the API by itself and looks for its own (providerName in
    /// pkg/provider/kubernetes/ingress), for the others it is the agent's.
    pub const fn controller(self) -> &'static str {
        match self {
            Self::Nginx | Self::Envoy | Self::Haproxy => "gatelab.dev/gateway-agent",
            Self::Traefik => "traefik.io/ingress-controller",
        }
    }

    /// The well-known controller whose defaults and semantics the agent follows for this gateway.
    pub const fn follows(self) -> &'static str {
        match self {
            Self::Nginx => "ingress-nginx",
            Self::Envoy => "Contour",
            Self::Haproxy => "HAProxy Ingress",
            Self::Traefik => "Traefik's Helm chart",
        }
    }
}

impl fmt::Display for GatewayKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for GatewayKind {
    type Err = UnknownGateway;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| UnknownGateway { name: name.to_owned() })
    }
}
