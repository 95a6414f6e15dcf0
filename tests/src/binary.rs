//! The binary under test, built once per test process with the profile that the tests were built with.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Path of an up-to-date `gatelab`.
///
/// `CARGO_BIN_EXE_gatelab` exists only for tests of the package that holds the binary, so this asks cargo itself: a
/// guard against testing yesterday's binary when only this package was built. It asks for a test of the whole workspace,
/// because cargo builds the binary for those and chooses features by what is built together: after `cargo test` there is
/// nothing left to do.
///
/// # Panics
/// When cargo fails: nothing can be tested then.
pub fn gatelab_path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let test_executable = std::env::current_exe().expect("the path of this test");
        let profile_folder =
            test_executable.ancestors().find(|folder| folder.join("deps").is_dir()).expect("tests run from cargo's target folder");
        let target = profile_folder.parent().expect("target folder");
        let release = profile_folder.ends_with("release").then_some("--release");
        let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["test", "--quiet", "--locked", "--workspace", "--no-run", "--test", "check"])
            .args(release)
            .arg("--manifest-path")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
            .env("CARGO_TARGET_DIR", target)
            .stdout(Stdio::null())
            .status()
            .expect("cargo");
        assert!(status.success(), "gatelab does not build");
        profile_folder.join("gatelab")
    })
}
