//! Containers as processes: what the kubelet asks of a container runtime (the shape of Kubernetes' CRI), carried out
//! with namespaces of the kernel.

mod images;
mod interface;
pub(crate) mod namespaces;

pub use images::{Image, Images};
pub use interface::{
    ContainerId, ContainerRuntime, ContainerSpec, ExecProcess, ExecSpec, ExitStatus, ImageInfo, Mount, RuntimeError, Sandbox, SandboxSpec,
    TerminalSize,
};
pub use namespaces::{NamespaceRuntime, Reaper, RuntimeConfig};
