use std::{
    io,
    path::{Path, PathBuf},
};

use crate::GatewayKind;

/// Why a gateway could not be found or fetched, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("no folder to keep gateways in: none of GATELAB_CACHE, XDG_CACHE_HOME and HOME is set; set GATELAB_CACHE to a folder")]
    NoCacheFolder,
    #[error("cannot {attempt} {path}: {source}", path = path.display())]
    File { attempt: &'static str, path: PathBuf, source: io::Error },
    #[error("the disk is full under {path}; free some 300 MB there, or set GATELAB_CACHE to a folder with space", path = path.display())]
    DiskFull { path: PathBuf },
    #[error("{purpose} needs `{tool}`, which this machine does not have: {remedy}")]
    ToolMissing { tool: &'static str, purpose: &'static str, remedy: &'static str },
    #[error(
        "{tool} cannot reach the package index it is configured for; check the network and its configuration ({hint}). It said:\n{output}"
    )]
    IndexUnreachable { tool: &'static str, hint: &'static str, output: String },
    #[error("{tool} knows no package {package}; check that the index it is configured for has it. It said:\n{output}")]
    PackageMissing { tool: &'static str, package: String, output: String },
    #[error(
        "what came for {package} is not what was expected (checksum {expected}): nothing was kept; \
         the configured index serves another file, or something between changed it. The client said:\n{output}"
    )]
    HashMismatch { package: String, expected: String, output: String },
    #[error(
        "there is no {kind} for this machine's processor ({architecture}) in the package that the lab uses; \
         install {kind} yourself so that it is on PATH, or name its binary"
    )]
    WrongArchitecture { kind: GatewayKind, architecture: String },
    #[error(
        "{tool} has no {kind} {wanted}; it has {available}. \
         Any other build can be named by its path: --gateway {kind}@/path/to/{kind}"
    )]
    NoSuchVersion { tool: &'static str, kind: GatewayKind, wanted: String, available: String },
    #[error("{kind} comes as an image alone ({image}), which clusters of containers can run: --cluster kind, or context:NAME")]
    OnlyAnImage { kind: GatewayKind, image: &'static str },
    #[error("`{command}` failed ({status}):\n{output}")]
    CommandFailed { command: String, status: String, output: String },
    #[error("{path} cannot be run as {kind}: {reason}", path = path.display())]
    Unusable { kind: GatewayKind, path: PathBuf, reason: String },
    #[error("{path} is {kind} {version}, but the lab needs at least {minimum}; name a newer one, or let the lab fetch one", path = path.display())]
    TooOld { kind: GatewayKind, path: PathBuf, version: String, minimum: String },
    #[error("{path} needs shared libraries that neither this machine nor its packages have: {libraries}", path = path.display())]
    LibrariesMissing { path: PathBuf, libraries: String },
}

impl FetchError {
    /// A failed file operation; a full disk has its own remedy.
    pub(super) fn file(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::File { attempt, path, source },
        }
    }
}
