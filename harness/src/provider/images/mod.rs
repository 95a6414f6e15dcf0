//! Container images made from files of this machine, without a build tool and without a registry: OCI archives that
//! `kind load image-archive` takes.
//!
//! * [`layer`] is one file system layer, [`libraries`] finds what a program needs to be started, [`content`] says what the lab's
//!   images hold, [`archive`] writes them.
//!
//! The same files make the same bytes: entries are sorted, and have no times and no owners.

pub mod archive;
pub mod content;
pub mod layer;
pub mod libraries;

use std::path::PathBuf;

pub use archive::{Image, write};
pub use content::lab_images;

/// Why an image could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("packing images: {}: {source}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("packing images: writing {}: {source}", .path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("packing images: {} needs the shared library {library}, which this machine does not have", .program.display())]
    LibraryMissing { program: PathBuf, library: String },
    #[error("packing images: asking `ldd` for the libraries of {}: {detail}", .program.display())]
    Libraries { program: PathBuf, detail: String },
}
