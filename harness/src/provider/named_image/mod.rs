//! Gateways out of images that a user names, in place of those that the lab packs: `--gateway-image nginx=registry/name:tag`.
//!
//! The lab's agent has to run in the same container, because it starts the gateway and reads its configuration back. An init container
//! copies it into a volume ([`guest`], [`elf`]), the gateway's container mounts that ([`placing`]), and before any run [`finding`]
//! looks whether the image can be had and where the gateway is in it.

pub mod elf;
pub mod finding;
pub mod guest;
pub mod placing;

use std::path::PathBuf;

use gateways::GatewayKind;

pub use finding::{NamedImageError, find_all};

/// What a user asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedImage {
    pub kind: GatewayKind,
    /// As a pod's `image` takes it.
    pub image: String,
    /// Named by the user: without it there is nothing to do. Else it is the one that the gateway comes as, and a cluster that cannot have
    /// it runs the others.
    pub by_user: bool,
}

/// A gateway that the cluster cannot run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingImage {
    pub kind: GatewayKind,
    pub reason: String,
}

/// What came of looking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    pub found: Vec<FoundImage>,
    pub missing: Vec<MissingImage>,
}

/// An image that the cluster has, and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundImage {
    pub named: NamedImage,
    /// As the gateway's binary says.
    pub version: String,
    /// Inside the image.
    pub binary: PathBuf,
}

impl FoundImage {
    /// Arguments of the agent behind `--gateway`.
    pub fn agent_arguments(&self) -> Vec<String> {
        vec!["--binary".to_owned(), self.binary.display().to_string()]
    }

    /// For reports: two images may hold one version.
    pub fn described(&self) -> String {
        format!("{} of {}", self.version, self.named.image)
    }
}
