//! The binary under test, built once per test process with the profile that the tests were built with.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Path of an up-to-date `gatelab`.
///
/// `CARGO_BIN_EXE_gatelab` exists only for tests of the package that holds the binary, so this asks cargo itself: a
/// no-op when `cargo test` has built it already, and a guard against testing yesterday's binary when only this package
/// was built.
///
/// # Panics
/// When cargo fails: nothing can be tested then.
pub fn gatelab_path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let test_executable = std::env::current_exe().expect("the path of this test");
        let profile_folder =
            test_executable.ancestors().find(|folder| folder.join("deps").is_dir()).expect("tests run from cargo's target folder");
        let profile = match profile_folder.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(other) => other,
        };
        let target = profile_folder.parent().expect("target folder");
        let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["build", "--quiet", "--locked", "--package", "harness", "--bin", "gatelab", "--profile", profile])
            .arg("--manifest-path")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
            .env("CARGO_TARGET_DIR", target)
            .status()
            .expect("cargo");
        assert!(status.success(), "gatelab does not build");
        profile_folder.join("gatelab")
    })
}
