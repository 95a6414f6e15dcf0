//! What gateways that are configured by text files have in common.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::agent::Files;

/// Appends one formatted line to the `text` of a writer. Writing to a String cannot fail.
macro_rules! line {
    ($writer:expr, $($format:tt)*) => {{
        use std::fmt::Write as _;
        let _ = writeln!($writer.text, $($format)*);
    }};
}
pub(crate) use line;

/// SHA-256 in hexadecimal digits.
pub(crate) fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Adds a file whose name is made from its content, so that a renewed certificate is a change of the configuration; its path.
pub(crate) fn secret_file(files: &mut Files, state: &Path, extension: &str, pem: &str) -> PathBuf {
    let name = Path::new("tls").join(format!("{}.{extension}", &digest(pem)[..16]));
    files.insert(name.clone(), pem.to_owned());
    state.join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_content_is_another_file() {
        let mut files = Files::new();
        let mut file = |pem: &str| secret_file(&mut files, Path::new("/state"), "crt", pem);
        let (one, again, two) = (file("one"), file("one"), file("two"));
        assert!(one == again && one != two && one.starts_with("/state/tls"), "{one:?} {two:?}");
        assert_eq!(files.len(), 2);
    }
}
