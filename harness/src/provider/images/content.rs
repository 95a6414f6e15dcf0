//! What the lab's images hold.

use std::path::{Path, PathBuf};

use gateways::GatewayBuild;

use super::archive::Image;
use super::layer::Layer;
use super::{ImageError, libraries};

/// Where containerd looks for a name without a host, so that manifests' `gatelab/lab:dev` is found.
const HOST: &str = "docker.io";

/// The lab's own image and one for each gateway, all on one common layer: `gatelab/lab:dev`, `gatelab/nginx:1.22.1` and, for
/// manifests that do not care about the version, `gatelab/nginx`.
///
/// # Errors
/// When a file or a library cannot be found.
pub fn lab_images(executable: &Path, builds: &[GatewayBuild]) -> Result<(Vec<Layer>, Vec<Image>), ImageError> {
    let lab = lab_layer(executable)?;
    let mut layers = vec![lab.clone()];
    let mut images = vec![image("gatelab/lab:dev".to_owned(), vec![0], vec!["/gatelab".to_owned()])];
    for build in builds {
        layers.push(gateway_layer(build)?.without(&lab));
        let own = layers.len() - 1;
        for name in [build.image(), format!("gatelab/{}:latest", build.kind)] {
            images.push(image(name, vec![0, own], vec!["/gatelab".to_owned()]));
        }
    }
    Ok((layers, images))
}

fn image(name: String, layers: Vec<usize>, entrypoint: Vec<String>) -> Image {
    Image { name: format!("{HOST}/{name}"), layers, entrypoint }
}

/// The `gatelab` binary, what starts it, and the folders and files that programs take for granted.
fn lab_layer(executable: &Path) -> Result<Layer, ImageError> {
    let mut layer = Layer::default();
    for (path, mode) in [("/tmp", 0o1777), ("/run", 0o755), ("/var/tmp", 0o1777), ("/var/log", 0o755), ("/root", 0o700)] {
        layer.folder(path, mode);
    }
    layer.text("/etc/passwd", "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n");
    layer.text("/etc/group", "root:x:0:\nnogroup:x:65534:\n");
    layer.text("/etc/nsswitch.conf", "hosts: files dns\n");
    layer.file(executable, Path::new("/gatelab"))?;
    add_libraries(&mut layer, executable, &[])?;
    Ok(layer)
}

/// The gateway at the place that its agent is told ([`GatewayBuild::agent_arguments`]), with the libraries of this machine that
/// it needs.
fn gateway_layer(build: &GatewayBuild) -> Result<Layer, ImageError> {
    let mut layer = Layer::default();
    for (source, target) in build.image_mounts() {
        layer.tree(&source, &target)?;
    }
    if build.image_mounts().is_empty() {
        layer.file(&build.binary, &build.binary)?;
    }
    add_libraries(&mut layer, &build.binary, &build.library_path)?;
    Ok(layer)
}

/// Libraries inside `library_path` are in the gateway's own tree.
fn add_libraries(layer: &mut Layer, program: &Path, library_path: &[PathBuf]) -> Result<(), ImageError> {
    for library in libraries::needed(program, library_path)? {
        if !library_path.iter().any(|folder| library.starts_with(folder)) {
            layer.file(&library, &library)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_starts_from_the_lab_s_own_layer() {
        let executable = std::env::current_exe().unwrap();
        let root = tempfile::tempdir().unwrap();
        let binary = root.path().join("usr/sbin/nginx");
        std::fs::create_dir_all(binary.parent().unwrap()).unwrap();
        std::fs::copy(&executable, &binary).unwrap();
        let build = GatewayBuild {
            kind: "nginx".parse().unwrap(),
            version: "1.2.3".into(),
            binary,
            root: Some(root.path().to_owned()),
            library_path: Vec::new(),
            origin: gateways::fetch::Origin::Cache,
        };
        let (layers, images) = lab_images(&executable, &[build]).unwrap();
        let named: Vec<_> = images.iter().map(|image| (image.name.as_str(), image.layers.as_slice())).collect();
        let expected: [(&str, &[usize]); 3] =
            [("docker.io/gatelab/lab:dev", &[0]), ("docker.io/gatelab/nginx:1.2.3", &[0, 1]), ("docker.io/gatelab/nginx:latest", &[0, 1])];
        assert_eq!(named, expected);
        let names = |layer: &Layer| {
            let mut bytes = Vec::new();
            layer.write(&mut bytes, Path::new("memory")).unwrap();
            let mut archive = tar::Archive::new(bytes.as_slice());
            archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect::<Vec<_>>()
        };
        assert!(names(&layers[0]).iter().any(|name| name == "gatelab"));
        let gateway = names(&layers[1]);
        assert!(gateway.iter().any(|name| name == "opt/gateway/usr/sbin/nginx"), "{gateway:?}");
        assert!(!gateway.iter().any(|name| name.contains("libc.so")), "the common layer has it already: {gateway:?}");
    }
}
