//! Where clusters come from. The runner speaks to every one of them by its kubeconfig; a provider only makes it, takes it
//! away, gives it the lab's images, and says from where a gateway in it is reached.
//!
//! * [`attached`] is a cluster that runs already, [`context`] one that a context of the user's kubeconfig leads to, [`clearing`]
//!   takes away what was put into such a cluster;
//! * [`interface`] is what a provider does, [`embedded`] the one that needs nothing but the kernel, [`kind`] real Kubernetes in
//!   containers, for which [`images`] packs what pods run, unless [`named_image`] finds a gateway in an image that the user names.

pub mod attached;
pub mod clearing;
pub mod context;
pub mod embedded;
pub mod images;
pub mod interface;
pub mod kind;
pub mod named_image;

pub use attached::Attached;
pub use context::{Context, ContextOptions};
pub use embedded::Embedded;
pub use interface::{ClusterHandle, ClusterRequest, ClusterSetting, HostPorts, LabImage, Lifetime, Provider, ProviderError};
pub use kind::{Kind, KindOptions};
pub use named_image::{FoundImage, MissingImage, NamedImage};
