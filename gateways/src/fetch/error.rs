use std::{io, path::PathBuf};

/// Why a gateway could not be found or fetched, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("no folder to keep gateways in: none of GATELAB_CACHE, XDG_CACHE_HOME and HOME is set; set GATELAB_CACHE to a folder")]
    NoCacheFolder,
    #[error("cannot {attempt} {path}: {source}", path = path.display())]
    File { attempt: &'static str, path: PathBuf, source: io::Error },
}
