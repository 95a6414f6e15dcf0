//! Envoy's response flags.

use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! response_flags {
    ($($(#[$meta:meta])* $variant:ident = $short:literal, $long:literal;)*) => {
        /// A response flag (`%RESPONSE_FLAGS%`); the list is Envoy's `stream_info/utility.h`, long names as in `%RESPONSE_FLAGS_LONG%`.
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ResponseFlag {
            $($(#[$meta])* $variant,)*
            /// A flag that this version of the lab does not know, as logged.
            Unknown(String),
        }

        impl ResponseFlag {
            /// Every known flag.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// As logged, e.g. `UF`.
            pub fn short(&self) -> &str {
                match self {
                    $(Self::$variant => $short,)*
                    Self::Unknown(flag) => flag,
                }
            }

            /// Envoy's long name, e.g. `UpstreamConnectionFailure`.
            pub fn long(&self) -> &str {
                match self {
                    $(Self::$variant => $long,)*
                    Self::Unknown(flag) => flag,
                }
            }

            /// From the short name (`UF`) or the long one (`UpstreamConnectionFailure`).
            pub fn from_name(name: &str) -> Self {
                match name {
                    $($short | $long => Self::$variant,)*
                    other => Self::Unknown(other.to_owned()),
                }
            }
        }
    };
}

response_flags! {
    FailedLocalHealthCheck = "LH", "FailedLocalHealthCheck";
    NoHealthyUpstream = "UH", "NoHealthyUpstream";
    UpstreamRequestTimeout = "UT", "UpstreamRequestTimeout";
    LocalReset = "LR", "LocalReset";
    UpstreamRemoteReset = "UR", "UpstreamRemoteReset";
    UpstreamConnectionFailure = "UF", "UpstreamConnectionFailure";
    UpstreamConnectionTermination = "UC", "UpstreamConnectionTermination";
    UpstreamOverflow = "UO", "UpstreamOverflow";
    NoRouteFound = "NR", "NoRouteFound";
    DelayInjected = "DI", "DelayInjected";
    FaultInjected = "FI", "FaultInjected";
    RateLimited = "RL", "RateLimited";
    UnauthorizedExternalService = "UAEX", "UnauthorizedExternalService";
    RateLimitServiceError = "RLSE", "RateLimitServiceError";
    DownstreamConnectionTermination = "DC", "DownstreamConnectionTermination";
    UpstreamRetryLimitExceeded = "URX", "UpstreamRetryLimitExceeded";
    StreamIdleTimeout = "SI", "StreamIdleTimeout";
    InvalidEnvoyRequestHeaders = "IH", "InvalidEnvoyRequestHeaders";
    DownstreamProtocolError = "DPE", "DownstreamProtocolError";
    UpstreamMaxStreamDurationReached = "UMSDR", "UpstreamMaxStreamDurationReached";
    ResponseFromCacheFilter = "RFCF", "ResponseFromCacheFilter";
    NoFilterConfigFound = "NFCF", "NoFilterConfigFound";
    DurationTimeout = "DT", "DurationTimeout";
    UpstreamProtocolError = "UPE", "UpstreamProtocolError";
    NoClusterFound = "NC", "NoClusterFound";
    OverloadManagerTerminated = "OM", "OverloadManagerTerminated";
    DnsResolutionFailed = "DF", "DnsResolutionFailed";
    DropOverload = "DO", "DropOverload";
    DownstreamRemoteReset = "DR", "DownstreamRemoteReset";
    UnconditionalDropOverload = "UDO", "UnconditionalDropOverload";
}

impl fmt::Display for ResponseFlag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.short())
    }
}

impl Serialize for ResponseFlag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.short())
    }
}
