//! Which loader a program names, and naming another one (System V ABI, "Program Header": `PT_INTERP`).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Program header of the loader's name.
const INTERPRETER: u32 = 3;

/// Where a program file names its loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    offset: u64,
    size: usize,
}

/// The loader that a program wants; `None` for one that is linked statically.
///
/// # Errors
/// When the file is no 64-bit little-endian ELF, or cannot be read.
pub fn loader(file: &File) -> io::Result<Option<String>> {
    let Some(place) = place(file)? else { return Ok(None) };
    let mut name = vec![0; place.size];
    file.read_exact_at(&mut name, place.offset)?;
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    Ok(Some(String::from_utf8_lossy(&name[..end]).into_owned()))
}

/// Has a program started by another loader. Its name takes the old one's place in the file, so it must not be longer.
///
/// # Errors
/// When the name is too long, the program has no loader, or the file cannot be written.
pub fn set_loader(file: &File, loader: &str) -> io::Result<()> {
    let place = place(file)?.ok_or_else(|| invalid("it is linked statically"))?;
    // The kernel wants the segment's last byte to be NUL.
    if loader.len() >= place.size {
        return Err(invalid("the loader's name has no room"));
    }
    let mut name = loader.as_bytes().to_vec();
    name.resize(place.size, 0);
    file.write_all_at(&name, place.offset)
}

fn place(file: &File) -> io::Result<Option<Place>> {
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0)?;
    // Magic, ELFCLASS64, ELFDATA2LSB.
    if header[..6] != *b"\x7fELF\x02\x01" {
        return Err(invalid("it is no 64-bit little-endian ELF file"));
    }
    let (first, size, count) = (u64_at(&header, 0x20), u16_at(&header, 0x36), u16_at(&header, 0x38));
    for index in 0..u64::from(count) {
        let mut entry = [0; 56];
        file.read_exact_at(&mut entry, first + index * u64::from(size))?;
        if u32_at(&entry, 0) == INTERPRETER {
            let size = usize::try_from(u64_at(&entry, 0x20)).ok().filter(|size| *size <= 4096);
            return Ok(Some(Place { offset: u64_at(&entry, 8), size: size.ok_or_else(|| invalid("its loader's name is too long"))? }));
        }
    }
    Ok(None)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    (0..8).fold(0, |value, index| value | u64::from(bytes[at + index]) << (8 * index))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    (0..4).fold(0, |value, index| value | u32::from(bytes[at + index]) << (8 * index))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from(bytes[at]) | u16::from(bytes[at + 1]) << 8
}

fn invalid(detail: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy_of_this_program() -> (tempfile::TempDir, File) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("copy");
        std::fs::copy(std::env::current_exe().unwrap(), &path).unwrap();
        (folder, File::options().read(true).write(true).open(path).unwrap())
    }

    #[test]
    fn the_loader_is_read_and_set_in_place() {
        let (folder, file) = copy_of_this_program();
        let size = file.metadata().unwrap().len();
        let before = loader(&file).unwrap().unwrap();
        assert!(std::path::Path::new(&before).exists(), "{before}");
        set_loader(&file, "/x/ld.so").unwrap();
        assert_eq!(loader(&file).unwrap().as_deref(), Some("/x/ld.so"));
        assert_eq!(file.metadata().unwrap().len(), size);
        let copy = || std::process::Command::new(folder.path().join("copy")).arg("--list").output();
        set_loader(&file, &before).unwrap();
        drop(file);
        assert!(copy().unwrap().status.success(), "as it was, it runs");
        let file = File::options().read(true).write(true).open(folder.path().join("copy")).unwrap();
        set_loader(&file, "/no/loader").unwrap();
        drop(file);
        assert_eq!(copy().unwrap_err().kind(), io::ErrorKind::NotFound, "the kernel looks for the named loader");
    }

    #[test]
    fn what_has_no_room_or_is_no_program_is_refused() {
        let (_folder, file) = copy_of_this_program();
        assert!(set_loader(&file, &"/long".repeat(20)).is_err());
        let mut other = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut other, &[b'#'; 100]).unwrap();
        assert!(loader(&other).is_err());
    }
}
