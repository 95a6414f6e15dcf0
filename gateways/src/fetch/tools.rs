//! Tools for containers that the machine may lack: what people type into a pod to look around. busybox with all its applets
//! (nslookup, wget, ps, …), and OpenBSD's nc, because Debian's busybox is built without `nc -vz`.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use super::{FetchError, Progress, Search, cache::Locked, debian};

/// Folder in the cache; another one whenever what is in it changes.
const NAME: &str = "tools";
const LAYOUT: &str = "2";

/// Not linked to busybox: its shell runs its own applets whatever PATH says (`nc` among them).
const NOT_BUSYBOX: [&str; 5] = ["busybox", "nc", "sh", "ash", ""];

/// Finds its libraries beside itself wherever the folder is mounted.
const NC: &str = "#!/bin/sh\nhere=$(dirname \"$(dirname \"$0\")\")\nLD_LIBRARY_PATH=\"$here/lib\" exec \"$here/libexec/nc\" \"$@\"\n";

/// The folder with the tools (executables in `bin`), if they were fetched; without fetching anything.
pub fn find_tools(search: &Search) -> Option<PathBuf> {
    let folder = search.cache.join(NAME).join(LAYOUT);
    folder.join("bin/busybox").is_file().then_some(folder)
}

/// Finds the tools, or fetches them into the cache. Blocks; safe to call from several processes at once.
///
/// # Errors
/// Everything that can keep packages from being fetched, each with what to do. A lab works without.
pub fn install_tools(search: &Search, progress: &(dyn Fn(Progress) + Sync)) -> Result<PathBuf, FetchError> {
    if let Some(folder) = find_tools(search) {
        return Ok(folder);
    }
    let locked = Locked::acquire(&search.cache, NAME)?;
    if let Some(folder) = find_tools(search) {
        return Ok(folder);
    }
    let staging = locked.stage()?;
    let tree = staging.tree();
    debian::unpack_packages(&["busybox-static", "netcat-openbsd", "libbsd0", "libmd0"], &staging, progress)?;
    let made = staging.path().join("tools");
    arrange(&tree, &made)?;
    let place = search.cache.join(NAME).join(LAYOUT);
    fs::rename(&made, &place).map_err(FetchError::file("rename", &made))?;
    Ok(place)
}

/// From unpacked packages to a folder with `bin`, `lib` and `libexec`.
fn arrange(tree: &Path, made: &Path) -> Result<(), FetchError> {
    let (bin, lib, libexec) = (made.join("bin"), made.join("lib"), made.join("libexec"));
    for folder in [&bin, &lib, &libexec] {
        fs::create_dir_all(folder).map_err(FetchError::file("create", folder))?;
    }
    let copy = |from: &Path, to: &Path| fs::copy(from, to).map(drop).map_err(FetchError::file("copy", from));
    let busybox = bin.join("busybox");
    // /usr/bin on distributions with merged folders.
    let found = ["bin/busybox", "usr/bin/busybox"].map(|path| tree.join(path)).into_iter().find(|path| path.is_file());
    copy(&found.unwrap_or_else(|| tree.join("bin/busybox")), &busybox)?;
    let listed = Command::new(&busybox).arg("--list").output().map_err(FetchError::file("run", &busybox))?;
    for applet in String::from_utf8_lossy(&listed.stdout).lines().filter(|applet| !NOT_BUSYBOX.contains(applet)) {
        let link = bin.join(applet);
        symlink("busybox", &link).map_err(FetchError::file("create", &link))?;
    }
    let found = ["bin/nc.openbsd", "usr/bin/nc.openbsd"].map(|path| tree.join(path)).into_iter().find(|path| path.is_file());
    copy(&found.unwrap_or_else(|| tree.join("bin/nc.openbsd")), &libexec.join("nc"))?;
    for folder in debian::library_folders(tree) {
        let folder = tree.join(folder);
        for entry in fs::read_dir(&folder).map_err(FetchError::file("read", &folder))?.flatten() {
            // Links among them become files of their own: the names are what the linker asks for.
            if entry.path().is_file() {
                copy(&entry.path(), &lib.join(entry.file_name()))?;
            }
        }
    }
    let nc = bin.join("nc");
    fs::write(&nc, NC).and_then(|()| fs::set_permissions(&nc, fs::Permissions::from_mode(0o755))).map_err(FetchError::file("write", &nc))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_found_in_an_empty_cache_nor_in_half_a_one() {
        let cache = tempfile::tempdir().unwrap();
        let search = Search { given: None, path: false, version: None, cache: cache.path().to_owned() };
        assert_eq!(find_tools(&search), None);
        fs::create_dir_all(cache.path().join("tools/2/bin")).unwrap();
        assert_eq!(find_tools(&search), None);
        fs::write(cache.path().join("tools/2/bin/busybox"), "").unwrap();
        assert_eq!(find_tools(&search), Some(cache.path().join("tools/2")));
    }

    #[test]
    fn packages_become_a_folder_that_can_be_mounted_anywhere() {
        let folder = tempfile::tempdir().unwrap();
        let (tree, made) = (folder.path().join("tree"), folder.path().join("made"));
        for (path, text) in [
            ("bin/busybox", "#!/bin/sh\nprintf 'nc\\nsh\\nnslookup\\nwget\\nbusybox\\n'\n"),
            ("bin/nc.openbsd", "#!/bin/sh\necho nc $LD_LIBRARY_PATH $*\n"),
            ("usr/lib/x86_64-linux-gnu/libbsd.so.0", "a library"),
        ] {
            let file = tree.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        arrange(&tree, &made).unwrap();
        assert_eq!(fs::read_link(made.join("bin/nslookup")).unwrap(), Path::new("busybox"));
        assert!(!made.join("bin/sh").exists(), "a shell that would run its own nc");
        let moved = folder.path().join("moved");
        fs::rename(&made, &moved).unwrap();
        let output = Command::new(moved.join("bin/nc")).args(["-vz", "host", "80"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("nc {} -vz host 80\n", moved.join("lib").display()));
        assert!(moved.join("lib/libbsd.so.0").is_file());
    }
}
