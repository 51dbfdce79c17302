//! The name that a library calls itself by, `DT_SONAME`, read as the loader does.

use std::path::Path;

use pitcrew_core::ports::HostFs;

const PROGRAM_HEADER: usize = 56;
const MOST_HEADERS: usize = 128;
const MOST_DYNAMIC: u64 = 64 * 1024;
/// Longest name that is read.
const LONGEST: usize = 256;

const PT_LOAD: u64 = 1;
const PT_DYNAMIC: u64 = 2;
const DT_NULL: u64 = 0;
const DT_STRTAB: u64 = 5;
const DT_SONAME: u64 = 14;

/// What a file says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Soname {
    /// It is no 64-bit library that could be read.
    NoLibrary,
    /// It has no name of its own.
    None,
    /// Its name.
    Name(String),
}

pub(super) fn soname(fs: &dyn HostFs, path: &Path) -> Soname {
    read(fs, path).unwrap_or(Soname::NoLibrary)
}

fn read(fs: &dyn HostFs, path: &Path) -> Option<Soname> {
    let header = fs.read_part(path, 0, 64).ok()?;
    // 64 bits, little endian: every machine that NVIDIA's driver runs on.
    if header.len() < 64 || !header.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let count = usize::try_from(number(&header, 56, 2)?).ok()?.min(MOST_HEADERS);
    let table = fs
        .read_part(path, number(&header, 32, 8)?, count * PROGRAM_HEADER)
        .ok()?;
    let mut loads = Vec::new();
    let mut dynamic = None;
    for entry in table.chunks_exact(PROGRAM_HEADER) {
        let (offset, address, size) = (number(entry, 8, 8)?, number(entry, 16, 8)?, number(entry, 32, 8)?);
        match number(entry, 0, 4)? {
            PT_LOAD => loads.push((offset, address, size)),
            PT_DYNAMIC => dynamic = Some((offset, size)),
            _ => {}
        }
    }
    let Some((offset, size)) = dynamic else {
        return Some(Soname::None);
    };
    let most = usize::try_from(size.min(MOST_DYNAMIC)).ok()?;
    let (mut strings, mut name) = (None, None);
    for entry in fs.read_part(path, offset, most).ok()?.chunks_exact(16) {
        let value = number(entry, 8, 8)?;
        match number(entry, 0, 8)? {
            DT_NULL => break,
            DT_STRTAB => strings = Some(value),
            DT_SONAME => name = Some(value),
            _ => {}
        }
    }
    let Some(name) = name else {
        return Some(Soname::None);
    };
    let strings = strings?;
    let (offset, address, _) = loads
        .into_iter()
        .find(|(_, address, size)| *address <= strings && strings - address < *size)?;
    let at = (strings - address).checked_add(offset)?.checked_add(name)?;
    let bytes = fs.read_part(path, at, LONGEST).ok()?;
    let end = bytes.iter().position(|&byte| byte == 0)?;
    Some(Soname::Name(String::from_utf8(bytes[..end].to_vec()).ok()?))
}

/// The number at a place, of 2, 4 or 8 bytes.
fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let mut wide = [0; 8];
    wide.get_mut(..length)?
        .copy_from_slice(bytes.get(at..at + length)?);
    Some(u64::from_le_bytes(wide))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pitcrew_host::{HostRoots, Roots};

    #[test]
    fn a_library_of_this_machine_says_its_name_and_other_files_none() {
        let fs = HostRoots::new(Roots::under("/"));
        let own = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libc = own.lines().find_map(|line| {
            line.split_whitespace()
                .last()
                .filter(|path| path.contains("libc.so"))
        });
        if let Some(path) = libc {
            assert_eq!(soname(&fs, Path::new(path)), Soname::Name("libc.so.6".to_owned()));
        }
        assert_eq!(soname(&fs, Path::new("/proc/self/status")), Soname::NoLibrary);
        assert_eq!(soname(&fs, Path::new("/nowhere")), Soname::NoLibrary);
    }
}
