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
