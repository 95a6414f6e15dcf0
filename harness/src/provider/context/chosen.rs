//! Which cluster is meant, and whether faults may be put into it.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use kube::config::Kubeconfig;

use crate::kubernetes::KubernetesError;
use crate::provider::ProviderError;
use crate::provider::kind::KindError;
use crate::provider::named_image::NamedImageError;

/// Contexts that the tools for local clusters write begin like this. The lab breaks Services, Ingresses and pods, and puts an
/// ingress controller into the cluster; nobody wants that elsewhere by a slip of the hand.
const LABS: [&str; 10] = [
    "gatelab-",
    "kind-",
    "minikube",
    "k3d-",
    "docker-desktop",
    "rancher-desktop",
    "orbstack",
    "colima",
    "microk8s",
    "kubernetes-admin@kind",
];

#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    #[error("no kubeconfig can be read: {0}")]
    NoKubeconfig(String),
    #[error("there is no context `{name}` in your kubeconfig; there are: {known}")]
    Unknown { name: String, known: String },
    #[error("context `{name}` does not look like a lab: nothing was done there")]
    NotALab { name: String },
    #[error("{what} is in the cluster already, and no lab has made it")]
    InTheWay { what: String },
    #[error("a lab of `gatelab up` is in the cluster ({mark})")]
    Occupied { mark: String },
    #[error("another gatelab works in this cluster")]
    Busy,
    #[error("{what}: {}: {source}", .path.display())]
    File { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Kubernetes(#[from] KubernetesError),
    #[error("loading images: {0}")]
    Images(#[from] KindError),
    #[error(transparent)]
    NamedImage(#[from] NamedImageError),
    #[error("there is no cluster to run in: it has not been prepared")]
    NotPrepared,
}

impl ContextError {
    /// What to do, for people.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            ContextError::NoKubeconfig(_) => "set KUBECONFIG, or write ~/.kube/config",
            ContextError::Unknown { .. } => "`kubectl config get-contexts` lists them",
            ContextError::NotALab { .. } => {
                "scenarios break Services, Ingresses and pods on purpose; if this cluster is there for that, add --any-context"
            }
            ContextError::InTheWay { .. } => "scenarios speak of their namespaces by name: use a cluster that has none of these",
            ContextError::Occupied { .. } => "`gatelab down NAME` takes it away",
            ContextError::Busy => "one run at a time: wait for the other to end",
            ContextError::Images(error) => return error.hint(),
            ContextError::NamedImage(error) => return error.hint(),
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

impl From<ContextError> for ProviderError {
    fn from(error: ContextError) -> Self {
        ProviderError {
            provider: "context".into(),
            detail: error.to_string(),
            // What the cluster refuses once it may grant later; all else will fail again.
            hopeless: !matches!(error, ContextError::Kubernetes(_)),
            hints: error.hint().into_iter().collect(),
        }
    }
}

/// A context that may be used.
#[derive(Clone, Debug)]
pub struct Chosen {
    pub name: String,
    kubeconfig: Kubeconfig,
}

impl Chosen {
    /// Finds the context where kubectl looks for it. `any`: also when it does not look like a lab.
    ///
    /// # Errors
    /// When there is no such context, or it is refused.
    pub fn find(name: &str, any: bool) -> Result<Self, ContextError> {
        let kubeconfig = Kubeconfig::read().map_err(|error| ContextError::NoKubeconfig(error.to_string()))?;
        Self::of(kubeconfig, name, any)
    }

    fn of(mut kubeconfig: Kubeconfig, name: &str, any: bool) -> Result<Self, ContextError> {
        if !kubeconfig.contexts.iter().any(|context| context.name == name) {
            let known = kubeconfig.contexts.iter().map(|context| context.name.clone()).collect::<Vec<_>>().join(", ");
            return Err(ContextError::Unknown { name: name.to_owned(), known });
        }
        if !any && !LABS.iter().any(|lab| name.starts_with(lab)) {
            return Err(ContextError::NotALab { name: name.to_owned() });
        }
        kubeconfig.contexts.retain(|context| context.name == name);
        let wanted = kubeconfig.contexts.first().and_then(|context| context.context.clone());
        if let Some(wanted) = wanted {
            kubeconfig.clusters.retain(|cluster| cluster.name == wanted.cluster);
            kubeconfig.auth_infos.retain(|user| Some(&user.name) == wanted.user.as_ref());
        }
        kubeconfig.current_context = Some(name.to_owned());
        Ok(Chosen { name: name.to_owned(), kubeconfig })
    }

    /// A file of the lab's own with this context and no other: later changes of the user's do not lead it elsewhere.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), ContextError> {
        let failed = |source| ContextError::File { what: "the lab's kubeconfig", path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        }
        // JSON is YAML.
        let text = serde_json::to_vec(&self.kubeconfig).map_err(|error| failed(error.into()))?;
        let _ = fs::remove_file(path);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        file.write_all(&text).map_err(failed)
    }

    /// As part of a file's name.
    pub fn file_name(&self) -> String {
        self.name.chars().map(|character| if character.is_ascii_alphanumeric() || character == '-' { character } else { '_' }).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn kubeconfig() -> Kubeconfig {
        let entry = |name: &str| {
            format!(
                "{{\"name\":\"{name}\",\"cluster\":{{\"server\":\"https://{name}:6443\"}},\"user\":{{\"token\":\"secret-of-{name}\"}},\
                 \"context\":{{\"cluster\":\"{name}\",\"user\":\"{name}\"}}}}"
            )
        };
        let all = ["kind-mine", "production"].map(entry).join(",");
        let text = format!("{{\"clusters\":[{all}],\"users\":[{all}],\"contexts\":[{all}],\"current-context\":\"production\"}}");
        Kubeconfig::from_yaml(&text).unwrap()
    }

    #[test]
    fn only_what_looks_like_a_lab_is_taken_unless_told_otherwise() {
        assert!(matches!(Chosen::of(kubeconfig(), "production", false), Err(ContextError::NotALab { .. })));
        assert_eq!(Chosen::of(kubeconfig(), "production", true).unwrap().name, "production");
        assert_eq!(Chosen::of(kubeconfig(), "kind-mine", false).unwrap().name, "kind-mine");
        let error = Chosen::of(kubeconfig(), "kind-other", true).unwrap_err();
        assert!(error.to_string().contains("kind-mine, production"), "{error}");
        assert!(ContextError::NotALab { name: String::new() }.hint().unwrap().contains("--any-context"));
    }

    #[test]
    fn the_lab_s_file_is_private_and_knows_no_other_cluster() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("made/kubeconfig");
        Chosen::of(kubeconfig(), "kind-mine", false).unwrap().write(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("secret-of-kind-mine") && !text.contains("production"), "{text}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Kubeconfig::read_from(&path).unwrap().current_context.as_deref(), Some("kind-mine"));
    }
}
