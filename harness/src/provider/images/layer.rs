//! One layer of an image: the entries of a tar file, each path once.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use tar::{Builder, EntryType, Header};

use super::ImageError;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Folder { mode: u32 },
    Bytes { content: Vec<u8> },
    File { source: PathBuf, executable: bool },
    Link { target: PathBuf },
}

/// Paths in the image are absolute; entries are kept in the order of their paths, so folders come before what is in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Layer {
    pub fn folder(&mut self, path: &str, mode: u32) {
        self.put(Path::new(path), Entry::Folder { mode });
    }

    pub fn text(&mut self, path: &str, text: &str) {
        self.put(Path::new(path), Entry::Bytes { content: text.as_bytes().to_vec() });
    }

    /// The content of a file of this machine (of what it points to, if it is a symbolic link), read when the layer is written.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn file(&mut self, source: &Path, target: &Path) -> Result<(), ImageError> {
        let source = fs::canonicalize(source).map_err(|error| unreadable(source, error))?;
        let metadata = fs::metadata(&source).map_err(|error| unreadable(&source, error))?;
        let executable = metadata.permissions().mode() & 0o111 != 0;
        self.put(target, Entry::File { source, executable });
        Ok(())
    }

    /// A folder with everything in it; symbolic links stay what they are.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub fn tree(&mut self, source: &Path, target: &Path) -> Result<(), ImageError> {
        for entry in fs::read_dir(source).map_err(|error| unreadable(source, error))? {
            let entry = entry.map_err(|error| unreadable(source, error))?;
            let (from, to) = (entry.path(), target.join(entry.file_name()));
            let kind = entry.file_type().map_err(|error| unreadable(&from, error))?;
            if kind.is_dir() {
                self.put(&to, Entry::Folder { mode: 0o755 });
                self.tree(&from, &to)?;
            } else if kind.is_symlink() {
                let target = fs::read_link(&from).map_err(|error| unreadable(&from, error))?;
                self.put(&to, Entry::Link { target });
            } else if kind.is_file() {
                self.file(&from, &to)?;
            }
        }
        Ok(())
    }

    /// Takes out what is in another layer already.
    pub fn without(mut self, other: &Layer) -> Self {
        self.entries.retain(|path, entry| other.entries.get(path) != Some(entry));
        self
    }

    fn put(&mut self, path: &Path, entry: Entry) {
        let inside: PathBuf = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
        for parent in inside.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
            self.entries.entry(parent.to_owned()).or_insert(Entry::Folder { mode: 0o755 });
        }
        self.entries.insert(inside, entry);
    }

    /// Writes the layer as a tar file.
    ///
    /// # Errors
    /// When a file cannot be read or the tar file cannot be written; `to` names the latter.
    pub fn write(&self, writer: impl Write, to: &Path) -> Result<(), ImageError> {
        let unwritable = |source| ImageError::Write { path: to.to_owned(), source };
        let mut tar = Builder::new(writer);
        for (path, entry) in &self.entries {
            let mut header = header(entry);
            match entry {
                Entry::Folder { .. } => tar.append_data(&mut header, path, std::io::empty()).map_err(unwritable)?,
                Entry::Link { target } => tar.append_link(&mut header, path, target).map_err(unwritable)?,
                Entry::Bytes { content } => tar.append_data(&mut header, path, content.as_slice()).map_err(unwritable)?,
                Entry::File { source, .. } => {
                    let mut file = File::open(source).map_err(|error| unreadable(source, error))?;
                    header.set_size(file.metadata().map_err(|error| unreadable(source, error))?.len());
                    tar.append_data(&mut header, path, &mut file).map_err(unwritable)?;
                }
            }
        }
        tar.into_inner().and_then(|mut writer| writer.flush()).map_err(unwritable)
    }
}

/// Without time and owner. The mode of a file depends on its being executable alone, not on the umask it was unpacked with.
fn header(entry: &Entry) -> Header {
    let (kind, mode, size) = match entry {
        Entry::Folder { mode } => (EntryType::Directory, *mode, 0),
        Entry::Link { .. } => (EntryType::Symlink, 0o777, 0),
        Entry::Bytes { content } => (EntryType::Regular, 0o644, content.len() as u64),
        Entry::File { executable, .. } => (EntryType::Regular, if *executable { 0o755 } else { 0o644 }, 0),
    };
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn unreadable(path: &Path, source: std::io::Error) -> ImageError {
    ImageError::Read { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// Path, mode, modification time, content or link target.
    fn listed(bytes: &[u8]) -> Vec<(String, u32, u64, String)> {
        let mut archive = tar::Archive::new(bytes);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let (mode, time) = (entry.header().mode().unwrap(), entry.header().mtime().unwrap());
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            if let Some(target) = entry.link_name().unwrap() {
                text = target.display().to_string();
            }
            (path, mode, time, text)
        });
        entries.collect()
    }

    #[test]
    fn a_layer_holds_what_was_put_in_without_a_trace_of_when_and_by_whom() {
        let root = tempfile::tempdir().unwrap();
        let long = "a-name-longer-than-the-hundred-bytes-that-the-oldest-tar-header-has-room-for-which-gateways-do-have-in-their-trees";
        let make = |name: &str| {
            let tree = root.path().join(name);
            fs::create_dir_all(tree.join("usr/sbin")).unwrap();
            fs::write(tree.join("usr/sbin/gateway"), "program").unwrap();
            fs::set_permissions(tree.join("usr/sbin/gateway"), fs::Permissions::from_mode(0o700)).unwrap();
            fs::write(tree.join(long), "long").unwrap();
            std::os::unix::fs::symlink("gateway", tree.join("usr/sbin/alias")).unwrap();
            let mut layer = Layer::default();
            layer.tree(&tree, Path::new("/opt/gateway")).unwrap();
            layer.folder("/tmp", 0o1777);
            layer.text("/etc/passwd", "root");
            let mut bytes = Vec::new();
            layer.write(&mut bytes, Path::new("memory")).unwrap();
            bytes
        };
        let first = make("first");
        let entries = listed(&first);
        let entry = |path: &str| {
            entries.iter().find(|entry| entry.0.trim_end_matches('/') == path).cloned().unwrap_or_else(|| panic!("{path} of {entries:?}"))
        };
        assert_eq!(entry("opt/gateway/usr/sbin/gateway"), ("opt/gateway/usr/sbin/gateway".into(), 0o755, 0, "program".into()));
        assert_eq!(entry("opt/gateway/usr/sbin/alias").3, "gateway");
        assert_eq!(entry(&format!("opt/gateway/{long}")).3, "long");
        assert_eq!((entry("tmp").1, entry("etc/passwd").3), (0o1777, "root".into()));
        let position = |path: &str| entries.iter().position(|entry| entry.0.trim_end_matches('/') == path);
        assert!(position("opt/gateway") < position("opt/gateway/usr"), "folders come before their content");
        assert_eq!(first, make("second"), "another time and another folder make the same bytes");
    }

    #[test]
    fn a_missing_file_is_told_by_its_name() {
        let error = Layer::default().file(Path::new("/no/such/file"), Path::new("/x")).unwrap_err();
        assert!(error.to_string().contains("/no/such/file"), "{error}");
    }
}
