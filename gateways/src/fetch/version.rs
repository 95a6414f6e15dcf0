//! Asking a binary what it is.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::FetchError;
use crate::GatewayKind;

/// The oldest versions that the generated configuration works with.
const fn minimum(kind: GatewayKind) -> (u64, u64, u64) {
    match kind {
        // keepalive_requests and keepalive_timeout in upstreams (nginx 1.15.3)
        GatewayKind::Nginx => (1, 15, 3),
        // max_requests_per_connection for upstreams, %UPSTREAM_CONNECTION_ID%, generic path_config_source (Envoy 1.25)
        GatewayKind::Envoy => (1, 25, 0),
        // bc_err_str, ssl_bc_err_str (HAProxy 2.5)
        GatewayKind::Haproxy => (2, 5, 0),
        // arguments of version 3
        GatewayKind::Traefik => (3, 0, 0),
    }
}

/// Value for `LD_LIBRARY_PATH`.
pub(crate) fn library_path_value(folders: &[PathBuf]) -> Option<OsString> {
    if folders.is_empty() { None } else { std::env::join_paths(folders).ok() }
}

/// Runs the binary for its version; an error when it does not run, is another program, or is too old.
pub(crate) fn ask(kind: GatewayKind, binary: &Path, library_path: &[PathBuf]) -> Result<String, FetchError> {
    let unusable = |reason: String| FetchError::Unusable { kind, path: binary.to_owned(), reason };
    let mut command = Command::new(binary);
    command.arg(match kind {
        GatewayKind::Nginx | GatewayKind::Haproxy => "-v",
        GatewayKind::Envoy => "--version",
        GatewayKind::Traefik => "version",
    });
    if let Some(value) = library_path_value(library_path) {
        command.env("LD_LIBRARY_PATH", value);
    }
    let output = command.stdin(Stdio::null()).output().map_err(|error| unusable(error.to_string()))?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        return Err(unusable(format!("it ended with {}: {}", output.status, text.trim())));
    }
    let version = read(kind, &text).ok_or_else(|| unusable(format!("it does not say its version as {kind} does: {}", text.trim())))?;
    let least = minimum(kind);
    if numbers(&version) < Some(least) {
        let minimum = format!("{}.{}.{}", least.0, least.1, least.2);
        return Err(FetchError::TooOld { kind, path: binary.to_owned(), version, minimum });
    }
    Ok(version)
}

/// Major, minor and patch number.
pub(crate) fn numbers(version: &str) -> Option<(u64, u64, u64)> {
    let mut parts = version.splitn(3, '.').map(|part| {
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..digits].parse::<u64>().ok()
    });
    Some((parts.next()??, parts.next()??, parts.next()??))
}

/// Whether a version (of a program or a package) is the wanted one: the same, or a longer one that begins with it.
pub(crate) fn fits(version: &str, wanted: &str) -> bool {
    // An epoch is the packager's (deb-version(7)); in the cache's folder names its colon is a dash.
    let upstream = version.split_once(':').map_or(version, |(_, upstream)| upstream);
    upstream.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-', '+', '~']))
}

fn read(kind: GatewayKind, text: &str) -> Option<String> {
    let version = match kind {
        // nginx version: nginx/1.22.1
        GatewayKind::Nginx => text.split_once("nginx/")?.1.split_whitespace().next()?,
        // envoy  version: 9e55…/1.40.0/Clean/RELEASE/BoringSSL
        GatewayKind::Envoy => text.split_once("version:")?.1.trim().split('/').nth(1)?,
        // HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/
        // Version:      3.7.15
        GatewayKind::Traefik => text.split_once("Codename:")?.0.split_once("Version:")?.1.trim(),
        GatewayKind::Haproxy => text.split_once("HAProxy version ")?.1.split([' ', '-', '+']).next()?,
    };
    numbers(version).map(|_| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_binaries_say_them() {
        let nginx = read(GatewayKind::Nginx, "nginx version: nginx/1.18.0 (Ubuntu)\n");
        assert_eq!(nginx.as_deref(), Some("1.18.0"));
        let envoy = read(GatewayKind::Envoy, "\n/usr/bin/envoy  version: 9e5580933739775e8bce/1.40.0/Clean/RELEASE/BoringSSL\n\n");
        assert_eq!(envoy.as_deref(), Some("1.40.0"));
        assert_eq!(read(GatewayKind::Envoy, "envoy 1.2"), None);
        assert!(numbers("1.9.15") < numbers("1.10.0"));
        assert_eq!(numbers("1.29.0-dev"), Some((1, 29, 0)));
    }

    #[test]
    fn a_version_fits_by_whole_numbers() {
        for (version, wanted) in
            [("1.37.0", "1.37"), ("1.37.0", "1.37.0"), ("1.22.1-9+deb12u4", "1.22.1"), ("1:2.6.12-1", "2.6"), ("3", "3")]
        {
            assert!(fits(version, wanted), "{version} {wanted}");
        }
        for (version, wanted) in [("1.37.0", "1.3"), ("1.3", "1.37"), ("2.1.37", "1.37")] {
            assert!(!fits(version, wanted), "{version} {wanted}");
        }
    }

    #[test]
    fn another_program_is_refused() {
        let error = ask(GatewayKind::Nginx, Path::new("/bin/true"), &[]).unwrap_err();
        assert!(matches!(error, FetchError::Unusable { .. }), "{error}");
        let error = ask(GatewayKind::Envoy, Path::new("/nowhere/envoy"), &[]).unwrap_err();
        assert!(error.to_string().contains("/nowhere/envoy cannot be run as envoy"), "{error}");
    }
}
