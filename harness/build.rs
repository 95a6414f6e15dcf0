//! Puts the files of `scenarios/` into the program, so that an installed `gatelab` works anywhere.
#![allow(clippy::print_stdout, clippy::expect_used, reason = "a build script speaks to cargo by standard output and fails by panicking")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() {
    // Where `gatelab guest move-in` puts its libraries (provider/named_image): a search path in the program itself reaches nothing that
    // the program starts, as LD_LIBRARY_PATH would.
    println!("cargo::rustc-link-arg-bins=-Wl,-rpath,/gatelab.d");
    // Every container starts it twice. At a fixed address there is nothing to relocate, which is two megabytes of pages to copy at each
    // start. Elsewhere (musl) the start files are rustc's own and fit position-independent programs only.
    if std::env::var("CARGO_CFG_TARGET_ENV").as_deref() == Ok("gnu") {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
    let root = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../scenarios");
    println!("cargo::rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    let mut code = String::from("pub static FILES: &[(&str, &[u8])] = &[\n");
    for file in &files {
        println!("cargo::rerun-if-changed={}", file.display());
        let name = file.strip_prefix(&root).expect("collected below it").to_str().expect("names of scenarios are ASCII");
        let path = file.canonicalize().expect("just listed");
        writeln!(code, "    ({name:?}, include_bytes!({path:?})),").expect("writing to a string");
    }
    code.push_str("];\n");
    let out = PathBuf::from(std::env::var("OUT_DIR").expect("cargo sets it")).join("scenarios.rs");
    std::fs::write(out, code).expect("OUT_DIR is writable");
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            println!("cargo::rerun-if-changed={}", path.display());
            collect(&path, files);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "pem" || extension == "md")
        {
            files.push(path);
        }
    }
}
