//! Asking a binary what it is.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::FetchError;
use crate::GatewayKind;

/// Value for `LD_LIBRARY_PATH`.
pub(crate) fn library_path_value(folders: &[PathBuf]) -> Option<OsString> {
    if folders.is_empty() { None } else { std::env::join_paths(folders).ok() }
}

/// Runs the binary for its version; an error when it does not run, is another program, or is too old.
pub(crate) fn ask(kind: GatewayKind, binary: &Path, library_path: &[PathBuf]) -> Result<String, FetchError> {
    let unusable = |reason: String| FetchError::Unusable { kind, path: binary.to_owned(), reason };
    let mut command = Command::new(binary);
    let banner = &kind.adapter().facts().banner;
    command.arg(banner.argument);
    if let Some(value) = library_path_value(library_path) {
        command.env("LD_LIBRARY_PATH", value);
    }
    let output = command.stdin(Stdio::null()).output().map_err(|error| unusable(error.to_string()))?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        return Err(unusable(format!("it ended with {}: {}", output.status, text.trim())));
    }
    let version = (banner.read)(&text).filter(|version| numbers(version).is_some()).map(str::to_owned);
    let version = version.ok_or_else(|| unusable(format!("it does not say its version as {kind} does: {}", text.trim())))?;
    let least = banner.least;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
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
        let error = ask(GatewayKind::ALL[0], Path::new("/bin/true"), &[]).unwrap_err();
        assert!(matches!(error, FetchError::Unusable { .. }), "{error}");
        let error = ask(GatewayKind::ALL[0], Path::new("/nowhere/gateway"), &[]).unwrap_err();
        assert!(error.to_string().contains(&format!("/nowhere/gateway cannot be run as {}", GatewayKind::ALL[0])), "{error}");
    }
}
