//! A container's file system: a fresh tmpfs with the system folders of this machine bound into it read-only.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::order::{Bind, Failure, RootOrder};
use crate::runtime::images::LAB_EXECUTABLE;

/// Where programs and their libraries are, on the distributions we know of; those missing are left out.
const SYSTEM: [&str; 9] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/gnu"];

/// Of /etc, what programs of those folders cannot do without. Never the machine's accounts, keys or network set-up.
const ETC: [&str; 15] = [
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "gai.conf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "pki",
    "protocols",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
];

const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n";

/// Builds the file system and makes it the root of this mount namespace; the host's is gone from it afterwards. Must
/// run in the container's own mount and pid namespace.
pub(super) fn enter(order: &RootOrder) -> Result<(), Failure> {
    build(order).map_err(|failure| match failure {
        // People know their paths as they are in the container.
        Failure::System { action, detail } => Failure::system(action.replace(&*order.at.to_string_lossy(), ""), detail),
        failure => failure,
    })?;
    become_root(&order.at)
}

fn build(order: &RootOrder) -> Result<(), Failure> {
    // Nothing mounted here may propagate to the lab's own mount namespace, nor the other way round.
    mount_at(None::<&str>, Path::new("/"), None, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None)?;
    let root = &order.at;
    mount_at(Some("tmpfs"), root, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=755"))?;
    let inside = |path: &str| root.join(path.trim_start_matches('/'));

    for (folder, mode) in [
        ("etc/ssl", 0o755),
        ("proc", 0o555),
        ("sys", 0o555),
        ("dev/pts", 0o755),
        ("dev/shm", 0o1777),
        ("tmp", 0o1777),
        ("run", 0o755),
        ("root", 0o700),
        ("home", 0o755),
        ("opt", 0o755),
        ("srv", 0o755),
        ("mnt", 0o755),
        ("var/lib", 0o755),
        ("var/log", 0o755),
        ("var/cache", 0o755),
        ("var/spool", 0o755),
        ("var/tmp", 0o1777),
    ] {
        make_dir(&inside(folder), mode)?;
    }
    // Relative: the way through it must end in this file system even while it is not yet the root.
    link("../run", &inside("var/run"))?;

    for folder in SYSTEM {
        match fs::symlink_metadata(folder) {
            // Merged /usr: /bin is a link to usr/bin.
            Ok(meta) if meta.is_symlink() => {
                let target = fs::read_link(folder).map_err(|e| Failure::system(format!("read link {folder}"), e))?;
                link(target, &inside(folder))?;
            }
            Ok(meta) if meta.is_dir() => {
                make_dir(&inside(folder), 0o755)?;
                bind(Path::new(folder), &inside(folder), true)?;
            }
            _ => {}
        }
    }
    for entry in ETC {
        let source = Path::new("/etc").join(entry);
        match fs::symlink_metadata(&source) {
            Ok(meta) if meta.is_symlink() => {
                let target = fs::read_link(&source).map_err(|e| Failure::system(format!("read link {}", source.display()), e))?;
                link(target, &inside("etc").join(entry))?;
            }
            Ok(_) => bind_over_new(&source, &inside("etc").join(entry), true)?,
            Err(_) => {}
        }
    }
    write(&inside("etc/passwd"), PASSWD)?;
    write(&inside("etc/group"), GROUP)?;
    // The machine's own may send look-ups to services that a container cannot reach.
    write(&inside("etc/nsswitch.conf"), "passwd: files\ngroup: files\nhosts: files dns\n")?;
    write(&inside("etc/os-release"), "ID=gatelab\nNAME=gatelab\nPRETTY_NAME=\"gatelab\"\n")?;
    for (path, content) in &order.files {
        write(&root.join(relative(path)), content)?;
    }

    devices(root)?;
    kernel_views(root)?;

    bind_over_new(&order.executable, &inside(LAB_EXECUTABLE), true)?;
    for Bind { source, target, read_only } in &order.binds {
        bind_over_new(source, &root.join(relative(target)), *read_only)?;
    }
    Ok(())
}

fn devices(root: &Path) -> Result<(), Failure> {
    let dev = root.join("dev");
    for name in DEVICES {
        // Device nodes cannot be made in a user namespace, but those of the host can be bound.
        bind_over_new(&Path::new("/dev").join(name), &dev.join(name), false)?;
    }
    // A terminal allocator of its own; gid 5 (tty) does not exist in a user namespace with one mapping.
    let options = Some("newinstance,ptmxmode=0666,mode=0620");
    mount_at(Some("devpts"), &dev.join("pts"), Some("devpts"), MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, options)?;
    mount_at(Some("shm"), &dev.join("shm"), Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=1777,size=64m"))?;
    for (target, name) in [
        ("pts/ptmx", "ptmx"),
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
    ] {
        link(target, &dev.join(name))?;
    }
    Ok(())
}

/// /proc and /sys of the container's namespaces.
fn kernel_views(root: &Path) -> Result<(), Failure> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let proc = root.join("proc");
    if mount(Some("proc"), &proc, Some("proc"), flags, None::<&str>).is_err() {
        // Inside a container whose own /proc is masked the kernel refuses a fresh one (mount_too_revealing); the outer
        // one shows foreign numbers, but /proc/self, which is what programs need, is right in it too.
        bind(Path::new("/proc"), &proc, false)?;
    }
    // Nothing here needs /sys: a refusal (same rule) costs nothing but itself.
    let _ = mount(Some("sysfs"), &root.join("sys"), Some("sysfs"), flags | MsFlags::MS_RDONLY, None::<&str>);
    Ok(())
}

fn become_root(root: &Path) -> Result<(), Failure> {
    let change = |action: &str, result: Result<(), Errno>| result.map_err(|errno| Failure::system(action, errno.desc()));
    change("chdir to the container's root", nix::unistd::chdir(root))?;
    // pivot_root(2): with both arguments "." the old root is stacked on the new one and can be unmounted from there.
    change("pivot_root", nix::unistd::pivot_root(".", "."))?;
    change("detach the host's file systems", umount2(".", MntFlags::MNT_DETACH))?;
    change("chdir to /", nix::unistd::chdir("/"))
}

/// Binds over a mount point that is made for it: a folder for a folder, a file for all else.
fn bind_over_new(source: &Path, target: &Path, read_only: bool) -> Result<(), Failure> {
    let meta = fs::metadata(source).map_err(|e| Failure::system(format!("mount {}", source.display()), e))?;
    if meta.is_dir() {
        make_dir(target, 0o755)?;
    } else {
        if let Some(parent) = target.parent() {
            make_dir(parent, 0o755)?;
        }
        if !target.exists() {
            File::create(target).map_err(|e| Failure::system(format!("make the mount point {}", target.display()), e))?;
        }
    }
    bind(source, target, read_only)
}

fn bind(source: &Path, target: &Path, read_only: bool) -> Result<(), Failure> {
    mount_at(Some(source), target, None, MsFlags::MS_BIND | MsFlags::MS_REC, None)?;
    if read_only {
        set_read_only(target).map_err(|errno| Failure::system(format!("make {} read-only", source.display()), errno.desc()))?;
    }
    Ok(())
}

/// `struct mount_attr` of <linux/mount.h>.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

const MOUNT_ATTR_RDONLY: u64 = 1;
const AT_RECURSIVE: libc::c_uint = 0x8000;

fn set_read_only(target: &Path) -> Result<(), Errno> {
    let path = std::ffi::CString::new(target.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let attr = MountAttr { attr_set: MOUNT_ATTR_RDONLY, ..MountAttr::default() };
    // SAFETY: path and attr outlive the call, and the size is that of attr. Unlike a remount this adds one flag and
    // leaves those alone that a user namespace may not clear (nosuid, nodev, …), for the whole tree at once.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            AT_RECURSIVE,
            std::ptr::from_ref(&attr),
            size_of::<MountAttr>(),
        )
    };
    match Errno::result(result) {
        // Linux before 5.12: the top mount alone, with the flags it has; those below keep the owner's rights only.
        Err(Errno::ENOSYS) => {
            let kept = MsFlags::from_bits_truncate(nix::sys::statvfs::statvfs(target)?.flags().bits());
            let none = None::<&str>;
            mount(none, target, none, kept | MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none)
        }
        result => result.map(drop),
    }
}

fn mount_at<S: nix::NixPath + ?Sized>(
    source: Option<&S>,
    target: &Path,
    kind: Option<&str>,
    flags: MsFlags,
    options: Option<&str>,
) -> Result<(), Failure> {
    mount(source, target, kind, flags, options)
        .map_err(|errno| Failure::system(format!("mount {} on {}", kind.unwrap_or("(bind)"), target.display()), errno.desc()))
}

fn make_dir(path: &Path, mode: u32) -> Result<(), Failure> {
    let failed = |e: io::Error| Failure::system(format!("make the folder {}", path.display()), e);
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(failed)?;
    if mode == 0o755 { Ok(()) } else { fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed) }
}

fn link(target: impl AsRef<Path>, at: &Path) -> Result<(), Failure> {
    symlink(target, at).map_err(|e| Failure::system(format!("make the link {}", at.display()), e))
}

fn write(path: &Path, content: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let opened = OpenOptions::new().write(true).create(true).truncate(true).open(path);
    opened.and_then(|mut file| file.write_all(content.as_bytes())).map_err(|e| Failure::system(format!("write {}", path.display()), e))
}

/// A path in the container as one below its root; `..` cannot lead out of it.
fn relative(path: &Path) -> PathBuf {
    path.components().filter(|c| matches!(c, std::path::Component::Normal(_))).collect()
}
