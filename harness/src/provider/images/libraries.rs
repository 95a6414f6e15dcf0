//! The shared libraries of a program, as its own loader finds them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::ImageError;

/// Every file that the program needs beside itself, its loader included; none when it is linked statically. Files are named as
/// the loader looks them up, which may be through symbolic links.
///
/// # Errors
/// When `ldd` cannot be asked, or a library is nowhere.
pub fn needed(program: &Path, library_path: &[PathBuf]) -> Result<Vec<PathBuf>, ImageError> {
    let failed = |detail: String| ImageError::Libraries { program: program.to_owned(), detail };
    let mut command = Command::new("ldd");
    // In one language: the answer is read.
    command.arg(program).env("LC_ALL", "C").stdin(Stdio::null());
    match std::env::join_paths(library_path) {
        Ok(path) if !library_path.is_empty() => command.env("LD_LIBRARY_PATH", path),
        _ => command.env_remove("LD_LIBRARY_PATH"),
    };
    let output = command.output().map_err(|error| failed(error.to_string()))?;
    let (answer, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        let is_static = [&answer, &complaint].iter().any(|text| text.contains("not a dynamic executable"));
        return if is_static { Ok(Vec::new()) } else { Err(failed(complaint.trim().to_owned())) };
    }
    parse(&answer).map_err(|library| ImageError::LibraryMissing { program: program.to_owned(), library })
}

/// Lines are `name => path (address)`, `path (address)` for the loader, and `name (address)` for what the kernel maps by itself;
/// `Err` is the name of a library that was not found.
fn parse(answer: &str) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for line in answer.lines().map(str::trim).filter(|line| *line != "statically linked") {
        let (name, place) = line.split_once(" => ").unwrap_or((line, line));
        if place == "not found" {
            return Err(name.to_owned());
        }
        let path = place.split(" (").next().unwrap_or_default();
        if path.starts_with('/') {
            found.push(PathBuf::from(path));
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_answers_are_understood() {
        let answer = "\tlinux-vdso.so.1 (0x00007f31dd18d000)\n\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f31dce8a000)\n\
            \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f31dc81e000)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f31dd18f000)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib/x86_64-linux-gnu/libz.so.1", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(parse(answer), Ok(expected.map(PathBuf::from).to_vec()));
        assert_eq!(parse("\tstatically linked\n"), Ok(Vec::new()));
        assert_eq!(parse("\tlibpcre.so.3 => not found\n"), Err("libpcre.so.3".to_owned()));
    }

    #[test]
    fn this_very_program_can_be_packed() {
        let libraries = needed(&std::env::current_exe().unwrap(), &[]).unwrap();
        assert!(libraries.iter().all(|library| library.exists()), "{libraries:?}");
    }
}
