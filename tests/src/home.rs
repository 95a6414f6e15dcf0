//! A home of its own for each test: state, output and temporary files lie in one folder that goes with the test. Only
//! the gateway cache is the user's own, so that a test run fetches each gateway at most once.

use std::path::Path;
use std::process::Command;

use crate::gatelab_path;

pub struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    /// # Panics
    /// When the temporary folder cannot be made.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { folder: tempfile::Builder::new().prefix("gatelab-test-").tempdir().expect("a temporary folder") }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// `gatelab` with this home, run from the workspace's root, where the catalogue is.
    pub fn gatelab(&self) -> Command {
        let mut command = Command::new(gatelab_path());
        command
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .env("XDG_RUNTIME_DIR", self.path())
            .env("TMPDIR", self.path())
            .env("NO_COLOR", "1")
            // `down --all` would take away the user's clusters of kind, which no folder of a test can hide.
            .env("GATELAB_KIND", self.path().join("no-kind"))
            .env_remove("KUBECONFIG");
        command
    }
}
