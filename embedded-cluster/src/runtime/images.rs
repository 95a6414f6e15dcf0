//! What image names stand for: there are no image layers here, a name maps to a command and folders of this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::namespaces::DEFAULT_PATH;
use super::{ImageInfo, RuntimeError};

/// Where the lab's own executable is in every container.
pub const LAB_EXECUTABLE: &str = "/gatelab";

/// Where the folder of [`Images::with_tools`] is in every container.
const TOOLS: &str = "/opt/tools";

/// A stand-in for an OCI image: every container sees the system folders of this machine read-only; an image adds what
/// is run by default and further read-only folders.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Image {
    /// OCI `Entrypoint`: replaced by a container's `command`.
    pub entrypoint: Vec<String>,
    /// OCI `Cmd`: arguments used when the container gives neither `command` nor `args`.
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    /// Folder or file of the host -> absolute path in the container, read-only.
    pub mounts: Vec<(PathBuf, PathBuf)>,
}

impl Image {
    /// An image that runs `entrypoint`, found in the system folders of this machine.
    pub fn of_command<const N: usize>(entrypoint: [&str; N]) -> Self {
        Self { entrypoint: entrypoint.map(str::to_owned).to_vec(), ..Self::default() }
    }

    /// The given host folder, read-only at `target`.
    #[must_use]
    pub fn with_mount(mut self, source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        self.mounts.push((source.into(), target.into()));
        self
    }

    fn id(&self) -> String {
        let mut hash = Sha256::new();
        for part in self.entrypoint.iter().chain(&self.args) {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        for (name, value) in &self.env {
            hash.update(format!("{name}={value}\0").as_bytes());
        }
        for (source, target) in &self.mounts {
            hash.update(format!("{}:{}\0", source.display(), target.display()).as_bytes());
        }
        let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{digest}")
    }
}

/// The images a lab knows: its own, the usual tool images mapped to this machine's executables, and what the caller
/// added (which wins).
#[derive(Clone, Debug)]
pub struct Images(BTreeMap<String, Image>);

impl Images {
    /// The defaults with `additional` over them. Keys are names as manifests write them, with or without a tag; a key
    /// without a tag answers for every tag.
    pub fn with_defaults(additional: BTreeMap<String, Image>) -> Self {
        let mut images: BTreeMap<String, Image> = defaults().into_iter().map(|(name, image)| (canonical(name), image)).collect();
        images.extend(additional.into_iter().map(|(name, image)| (canonical(&name), image)));
        Self(images)
    }

    /// Puts the tools of a folder of this machine (executables in `bin`) into every container, behind the machine's own on
    /// PATH. In images that consist of busybox they come first, so that these behave as people know them.
    #[must_use]
    pub fn with_tools(mut self, folder: Option<&Path>) -> Self {
        let Some(folder) = folder else { return self };
        for (name, image) in &mut self.0 {
            image.mounts.push((folder.to_owned(), PathBuf::from(TOOLS)));
            let is_busybox = matches!(without_tag(name), "busybox" | "alpine");
            let path = if is_busybox { format!("{TOOLS}/bin:{DEFAULT_PATH}") } else { format!("{DEFAULT_PATH}:{TOOLS}/bin") };
            image.env.entry("PATH".to_owned()).or_insert(path);
        }
        self
    }

    /// # Errors
    /// `ImageUnknown`, with the names that would have been known.
    pub fn find(&self, name: &str) -> Result<&Image, RuntimeError> {
        let wanted = canonical(name);
        self.0.get(&wanted).or_else(|| self.0.get(without_tag(&wanted))).ok_or_else(|| RuntimeError::ImageUnknown {
            image: name.to_owned(),
            detail: format!(
                "not found: this cluster pulls nothing, it maps image names to executables of this machine; it knows {}",
                self.0.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
            ),
        })
    }

    pub(crate) fn info(&self, name: &str) -> Result<ImageInfo, RuntimeError> {
        let image = self.find(name)?;
        Ok(ImageInfo { id: image.id(), entrypoint: image.entrypoint.clone(), env: image.env.clone() })
    }
}

/// Entrypoints and commands as the images' Dockerfiles have them, where the tool is the same.
fn defaults() -> Vec<(&'static str, Image)> {
    let shell = || Image { args: vec!["sh".to_owned()], ..Image::default() };
    vec![
        ("gatelab/lab:dev", Image::of_command([LAB_EXECUTABLE])),
        ("busybox", shell()),
        ("alpine", Image { args: vec!["/bin/sh".to_owned()], ..Image::default() }),
        ("debian", Image { args: vec!["bash".to_owned()], ..Image::default() }),
        ("ubuntu", Image { args: vec!["/bin/bash".to_owned()], ..Image::default() }),
        ("nicolaka/netshoot", Image { args: vec!["bash".to_owned()], ..Image::default() }),
        // Its entrypoint runs what is given, and curl where that is an option or an address.
        (
            "curlimages/curl",
            Image::of_command([
                "sh",
                "-c",
                r#"if [ "${1#-}" != "$1" ] || [ -z "$(command -v "$1")" ]; then set -- curl "$@"; fi; exec "$@""#,
                "entrypoint.sh",
            ]),
        ),
        ("python", Image { args: vec!["python3".to_owned()], ..Image::default() }),
        ("registry.k8s.io/pause", Image::of_command(["sleep", "infinity"])),
    ]
}

/// `docker.io/library/busybox:1.36@sha256:…` and `busybox:1.36` name the same image.
fn canonical(name: &str) -> String {
    let name = name.split_once('@').map_or(name, |(name, _digest)| name);
    let name = name.strip_prefix("docker.io/").or_else(|| name.strip_prefix("index.docker.io/")).unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name).to_owned()
}

/// A colon before the last slash belongs to a registry's port, not to a tag.
fn without_tag(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((head, tag)) if !tag.contains('/') => head,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_image_are_one_image() {
        let images = Images::with_defaults(BTreeMap::new());
        for name in ["busybox", "busybox:1.36", "docker.io/library/busybox:1", "library/busybox", "busybox@sha256:00"] {
            assert_eq!(images.find(name).unwrap().args, ["sh"], "{name}");
        }
    }

    #[test]
    fn a_tag_given_in_the_key_is_required() {
        let key = "localhost:5000/gateway:1.28".to_owned();
        let images = Images::with_defaults(BTreeMap::from([(key.clone(), Image::of_command(["nginx"]))]));
        assert_eq!(images.find(&key).unwrap().entrypoint, ["nginx"]);
        let refused = images.find("localhost:5000/gateway:1.29").unwrap_err();
        assert!(refused.to_string().starts_with("failed to pull image \"localhost:5000/gateway:1.29\": not found"), "{refused}");
    }

    #[test]
    fn additions_win_over_defaults() {
        let images = Images::with_defaults(BTreeMap::from([("busybox".to_owned(), Image::of_command(["/mine"]))]));
        assert_eq!(images.info("busybox:latest").unwrap().entrypoint, ["/mine"]);
    }

    #[test]
    fn tools_are_behind_the_machines_own_but_in_busybox() {
        let images = Images::with_defaults(BTreeMap::new()).with_tools(Some(Path::new("/cache/tools")));
        let path = |name: &str| images.info(name).unwrap().env["PATH"].clone();
        assert!(path("busybox:1.36").starts_with("/opt/tools/bin:/usr/local/sbin:"));
        assert!(path("nicolaka/netshoot").ends_with(":/bin:/opt/tools/bin"));
        assert_eq!(images.find("gatelab/lab:dev").unwrap().mounts, [("/cache/tools".into(), "/opt/tools".into())]);
    }

    #[test]
    fn the_id_follows_the_content() {
        let plain = Image::of_command(["a", "b"]);
        assert_eq!(plain.id(), Image::of_command(["a", "b"]).id());
        assert_ne!(plain.id(), Image::of_command(["ab"]).id());
        assert_ne!(plain.id(), plain.clone().with_mount("/x", "/y").id());
    }
}
