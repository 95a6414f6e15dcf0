//! Starting one container: image, configuration, process, with the events that tell of it.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container as ContainerTemplate, ObjectReference, Pod};

use super::environment::expand;
use super::node::Kubelet;
use super::{quantity, resolv};
use crate::runtime::{ContainerId, ContainerSpec, ImageInfo, Mount, RuntimeError, SandboxSpec};

/// What is started, with everything looked up.
pub(super) struct Request {
    pub(super) template: ContainerTemplate,
    pub(super) env: Vec<(String, String)>,
    pub(super) mounts: Vec<Mount>,
    pub(super) log_path: PathBuf,
    pub(super) attempt: u32,
    /// The container whose processes it is to see (`targetContainerName`).
    pub(super) target: Option<ContainerId>,
}

pub(super) struct Started {
    pub(super) id: ContainerId,
    pub(super) image_id: String,
}

pub(super) enum StartError {
    /// No such image.
    Image(String),
    /// Something that the container's configuration names is not there.
    Configuration(String),
    CannotStart(String),
}

/// Tells by events how it went.
pub(super) async fn find_image(kubelet: &Kubelet, image: &str, about: &ObjectReference) -> Result<ImageInfo, StartError> {
    match kubelet.runtime.image(image).await {
        Ok(info) => {
            kubelet.recorder.normal(about, "Pulled", format!("Container image \"{image}\" already present on machine"));
            Ok(info)
        }
        Err(error) => {
            kubelet.recorder.normal(about, "Pulling", format!("Pulling image \"{image}\""));
            let detail = match &error {
                RuntimeError::ImageUnknown { detail, .. } => detail.clone(),
                other => other.to_string(),
            };
            let message = format!("failed to pull and unpack image \"{image}\": {detail}");
            kubelet.recorder.warning(about, "Failed", format!("Failed to pull image \"{image}\": {message}"));
            Err(StartError::Image(message))
        }
    }
}

pub(super) async fn start(kubelet: &Kubelet, pod: &Pod, request: Request, about: &ObjectReference) -> Result<Started, StartError> {
    let template = &request.template;
    let image = template.image.clone().unwrap_or_default();
    let info = find_image(kubelet, &image, about).await?;
    let spec = container_spec(&request, image);
    kubelet.recorder.normal(about, "Created", format!("Created container: {}", template.name));
    if let Some(folder) = request.log_path.parent()
        && let Err(error) = std::fs::create_dir_all(folder)
    {
        return Err(StartError::CannotStart(format!("failed to create the log folder {}: {error}", folder.display())));
    }
    match kubelet.runtime.start_container(pod.metadata.uid.as_deref().unwrap_or_default(), spec).await {
        Ok(id) => {
            kubelet.recorder.normal(about, "Started", format!("Started container {}", template.name));
            Ok(Started { id, image_id: info.id })
        }
        Err(RuntimeError::CannotStart { command, detail }) => Err(StartError::CannotStart(format!(
            "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable to start \
             container process: error during container init: exec: \"{command}\": {detail}"
        ))),
        Err(error) => Err(StartError::CannotStart(format!("failed to create containerd task: {error}"))),
    }
}

fn container_spec(request: &Request, image: String) -> ContainerSpec {
    let template = &request.template;
    let variables = request.env.iter().cloned().collect();
    let expanded = |list: &Option<Vec<String>>| list.iter().flatten().map(|text| expand(text, &variables)).collect();
    let security = template.security_context.clone().unwrap_or_default();
    let capabilities = security.capabilities.and_then(|c| c.add).unwrap_or_default();
    let limits = template.resources.as_ref().and_then(|r| r.limits.as_ref());
    ContainerSpec {
        name: template.name.clone(),
        image,
        command: expanded(&template.command),
        args: expanded(&template.args),
        env: request.env.clone(),
        working_dir: template.working_dir.as_ref().map(PathBuf::from),
        mounts: request.mounts.clone(),
        log_path: request.log_path.clone(),
        attempt: request.attempt,
        tty: template.tty.unwrap_or(false),
        stdin: template.stdin.unwrap_or(false),
        stdin_once: template.stdin_once.unwrap_or(false),
        pid_namespace_of: request.target.clone(),
        added_capabilities: capabilities.into_iter().map(|c| c.trim_start_matches("CAP_").to_owned()).collect(),
        memory_limit: limits.and_then(|l| l.get("memory")).and_then(quantity::bytes),
    }
}

pub(super) fn sandbox_spec(kubelet: &Kubelet, pod: &Pod) -> SandboxSpec {
    let spec = pod.spec.clone().unwrap_or_default();
    let name = pod.metadata.name.clone().unwrap_or_default();
    let aliases = spec
        .host_aliases
        .iter()
        .flatten()
        .filter_map(|alias| Some((alias.ip.parse::<Ipv4Addr>().ok()?, alias.hostnames.clone().unwrap_or_default())));
    let sysctls = spec.security_context.and_then(|security| security.sysctls).into_iter().flatten();
    SandboxSpec {
        pod_uid: pod.metadata.uid.clone().unwrap_or_default(),
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        hostname: spec.hostname.clone().unwrap_or_else(|| name.chars().take(63).collect()),
        pod_name: name,
        node: kubelet.node.name.clone(),
        resolv_conf: resolv::resolv_conf(pod, kubelet.settings.cluster_dns, &kubelet.settings.cluster_domain),
        host_aliases: aliases.collect(),
        sysctls: sysctls.map(|sysctl| (sysctl.name, sysctl.value)).collect(),
        host_network: (spec.host_network == Some(true)).then_some(kubelet.node.address),
    }
}
