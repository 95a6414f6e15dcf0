//! A gateway is one folder and one line: nothing else names one.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use gateways::GatewayKind;

/// Where gateways are registered, one line each: `haproxy::Haproxy,`.
const REGISTRY: &str = "gateways/src/lib.rs";
/// The way to the sidecar, which is an Envoy whichever gateway is in front of it.
const SIDECAR: &str = "pub use envoy::sidecar;";

/// Its folder is a Rust module, whose name has no hyphens.
fn folder(kind: GatewayKind) -> String {
    kind.name().replace('-', "_")
}

fn is_registration(line: &str, kind: GatewayKind) -> bool {
    line.strip_prefix(&folder(kind)).and_then(|rest| rest.strip_prefix("::")?.strip_suffix(',')).is_some_and(|rest| !rest.contains(':'))
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every Rust file that is built into the product, by its path within the workspace.
fn sources() -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let is_test = name.ends_with("tests.rs") || name.ends_with("tests");
            if entry.file_type().unwrap().is_dir() && !is_test {
                walk(&path, found);
            } else if name.ends_with(".rs") && !is_test {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    for member in fs::read_dir(workspace()).unwrap().flatten() {
        // tests/ is the crate of end-to-end tests, and has sources of its own for them.
        if member.file_name() != "tests" && member.path().join("Cargo.toml").is_file() {
            walk(&member.path().join("src"), &mut found);
        }
    }
    found.iter().map(|path| path.strip_prefix(workspace()).unwrap().to_string_lossy().into_owned()).collect()
}

/// The code without comments and without the tests at its end.
fn code(text: &str) -> String {
    let text = text.find("#[cfg(test)]\nmod tests {").map_or(text, |end| &text[..end]);
    let mut code = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let length = if rest.starts_with("//") {
            rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
            continue;
        } else if rest.starts_with("/*") {
            rest = &rest[rest.find("*/").map_or(rest.len(), |end| end + 2)..];
            continue;
        } else if let Some(hashes) = rest.strip_prefix('r').map(|raw| raw.chars().take_while(|letter| *letter == '#').count())
            && rest[1 + hashes..].starts_with('"')
        {
            let end = format!("\"{}", "#".repeat(hashes));
            2 + hashes + rest[2 + hashes..].find(&end).unwrap() + end.len()
        } else if rest.starts_with("'\"'") {
            3
        } else if let Some(string) = rest.strip_prefix('"') {
            let mut escaped = false;
            let end = string.find(|letter: char| {
                let ends = letter == '"' && !escaped;
                escaped = letter == '\\' && !escaped;
                ends
            });
            end.unwrap() + 2
        } else {
            rest.chars().next().unwrap().len_utf8()
        };
        code.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    code
}

#[test]
fn nothing_but_its_folder_and_its_line_names_a_gateway() {
    let sources = sources();
    assert!(sources.len() > 300, "{} sources: they have gone elsewhere", sources.len());
    let mut named = Vec::new();
    for path in &sources {
        // What a folder says of other gateways, such as their controllers' annotations, is its own business.
        if GatewayKind::ALL.iter().any(|kind| path.starts_with(&format!("gateways/src/{}/", folder(*kind)))) {
            continue;
        }
        for line in code(&fs::read_to_string(workspace().join(path)).unwrap()).lines().map(str::trim) {
            let allowed = path == REGISTRY && (line == SIDECAR || GatewayKind::ALL.iter().any(|kind| is_registration(line, *kind)));
            if GatewayKind::names().iter().any(|name| line.to_lowercase().contains(name)) && !allowed {
                named.push(format!("{path}: {line}"));
            }
        }
    }
    assert!(named.is_empty(), "what is one gateway's own belongs into its folder:\n{}", named.join("\n"));
}

#[test]
fn every_gateway_has_its_folder_and_its_line() {
    let registry = fs::read_to_string(workspace().join(REGISTRY)).unwrap();
    for kind in GatewayKind::ALL {
        assert!(workspace().join(format!("gateways/src/{}/adapter.rs", folder(*kind))).is_file(), "{kind}");
        assert_eq!(registry.lines().filter(|line| is_registration(line.trim(), *kind)).count(), 1, "{kind}");
    }
}

#[test]
fn strings_are_code_and_comments_are_not() {
    let text = "a \"nginx // x\" // nginx\n/* nginx */ r#\"b \"nginx\" \"# 'c' '\"' \"\\\"\"\n#[cfg(test)]\nmod tests {\n nginx";
    assert_eq!(code(text), "a \"nginx // x\" \n r#\"b \"nginx\" \"# 'c' '\"' \"\\\"\"\n");
}
