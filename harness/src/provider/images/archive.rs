//! An OCI image layout in a tar file (image-spec, image-layout.md), with any number of images that share layers.

use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::ImageError;
use super::layer::Layer;

/// One image: its full name and the layers it is made of, as places in the list given to [`write`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub name: String,
    pub layers: Vec<usize>,
    pub entrypoint: Vec<String>,
}

/// Something that the archive holds under the hash of its content.
struct Blob {
    digest: String,
    size: u64,
}

impl Blob {
    fn described(&self, media_type: &str) -> Value {
        json!({ "mediaType": format!("application/vnd.oci.image.{media_type}"), "digest": format!("sha256:{}", self.digest), "size": self.size })
    }
}

/// Writes images into one archive.
///
/// # Errors
/// When a file of a layer cannot be read, or the archive cannot be written, as on a full disk.
pub fn write(path: &Path, layers: &[Layer], images: &[Image]) -> Result<(), ImageError> {
    let unwritable = |source| ImageError::Write { path: path.to_owned(), source };
    let mut archive = Builder::new(BufWriter::new(File::create(path).map_err(unwritable)?));
    let mut written = Vec::new();
    for layer in layers {
        // A tar header names the size ahead of the content, and the path is its hash: the layer is written aside first.
        let folder = path.parent().unwrap_or(Path::new("."));
        let aside = tempfile::tempfile_in(folder).map_err(unwritable)?;
        let mut hashing = Hashing { inner: BufWriter::new(aside), hash: Sha256::new(), size: 0 };
        layer.write(&mut hashing, path)?;
        let (digest, size) = (hex(&hashing.hash.finalize()), hashing.size);
        let mut aside = hashing.inner.into_inner().map_err(|error| unwritable(error.into_error()))?;
        aside.rewind().map_err(unwritable)?;
        append(&mut archive, &format!("blobs/sha256/{digest}"), size, aside).map_err(unwritable)?;
        written.push(Blob { digest, size });
    }
    let mut small = |content: &Value| -> io::Result<Blob> {
        let bytes = content.to_string().into_bytes();
        let blob = Blob { digest: hex(&Sha256::digest(&bytes)), size: bytes.len() as u64 };
        append(&mut archive, &format!("blobs/sha256/{}", blob.digest), blob.size, bytes.as_slice())?;
        Ok(blob)
    };
    let mut manifests = Vec::new();
    for image in images {
        let own: Vec<&Blob> = image.layers.iter().filter_map(|index| written.get(*index)).collect();
        // Layers are not compressed, so the hash of what is stored is also the hash of the content (`diff_ids`).
        let diff_ids: Vec<String> = own.iter().map(|blob| format!("sha256:{}", blob.digest)).collect();
        let config = small(&json!({
            "architecture": architecture(), "os": "linux",
            "config": { "Entrypoint": image.entrypoint, "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "WorkingDir": "/" },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        }))
        .map_err(unwritable)?;
        let layers: Vec<Value> = own.iter().map(|blob| blob.described("layer.v1.tar")).collect();
        let manifest = small(&json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.described("config.v1+json"), "layers": layers,
        }))
        .map_err(unwritable)?;
        let mut entry = manifest.described("manifest.v1+json");
        // containerd takes the name from its own annotation first; the OCI one may hold a bare tag.
        entry["annotations"] = json!({ "io.containerd.image.name": image.name });
        manifests.push(entry);
    }
    let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests }).to_string();
    let layout = json!({ "imageLayoutVersion": "1.0.0" }).to_string();
    for (name, text) in [("index.json", index), ("oci-layout", layout)] {
        append(&mut archive, name, text.len() as u64, text.as_bytes()).map_err(unwritable)?;
    }
    archive.into_inner().and_then(|mut file| file.flush()).map_err(unwritable)
}

fn append(archive: &mut Builder<impl Write>, name: &str, size: u64, content: impl io::Read) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    archive.append_data(&mut header, name, content)
}

/// As OCI (and Go) call it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Hashing<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hash.update(&buffer[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use super::*;

    fn content(path: &Path) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(File::open(path).unwrap());
        let read = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (entry.path().unwrap().display().to_string(), bytes)
        });
        read.collect()
    }

    #[test]
    fn every_descriptor_leads_to_a_blob_of_that_hash_and_size() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("images.tar");
        let mut layers = vec![Layer::default(), Layer::default()];
        layers[0].text("/one", "1");
        layers[1].text("/two", "22");
        let image =
            |name: &str, layers: &[usize]| Image { name: name.into(), layers: layers.to_vec(), entrypoint: vec!["/gatelab".into()] };
        let images = [image("docker.io/gatelab/lab:dev", &[0]), image("docker.io/gatelab/nginx:1", &[0, 1])];
        write(&path, &layers, &images).unwrap();
        let files = content(&path);
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
            let bytes = &files[&format!("blobs/sha256/{digest}")];
            assert_eq!((hex(&Sha256::digest(bytes)), bytes.len() as u64), (digest.to_owned(), descriptor["size"].as_u64().unwrap()));
            bytes.clone()
        };
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let names: Vec<_> =
            index["manifests"].as_array().unwrap().iter().map(|one| one["annotations"]["io.containerd.image.name"].clone()).collect();
        assert_eq!(names, ["docker.io/gatelab/lab:dev", "docker.io/gatelab/nginx:1"]);
        for (entry, count) in index["manifests"].as_array().unwrap().iter().zip([1, 2]) {
            let manifest: Value = serde_json::from_slice(&blob(entry)).unwrap();
            let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
            let layers = manifest["layers"].as_array().unwrap();
            assert_eq!((layers.len(), config["rootfs"]["diff_ids"].as_array().unwrap().len()), (count, count));
            for (layer, diff_id) in layers.iter().zip(config["rootfs"]["diff_ids"].as_array().unwrap()) {
                blob(layer);
                assert_eq!(&layer["digest"], diff_id);
            }
        }
        let again = root.path().join("again.tar");
        write(&again, &layers, &images).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&again).unwrap(), "the same files make the same bytes");
    }

    #[test]
    fn an_archive_that_cannot_be_written_says_where() {
        let error = write(Path::new("/no/such/folder/images.tar"), &[], &[]).unwrap_err();
        assert!(error.to_string().contains("/no/such/folder/images.tar"), "{error}");
    }
}
