//! The little of ELF that the hooks need, read from files that may say anything: 64-bit, little-endian.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// What can be read at any place: a file, or bytes in a test.
pub(crate) trait ReadAt {
    /// Fills the whole buffer.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let start = usize::try_from(offset).map_err(|_| end())?;
        let part = start
            .checked_add(buffer.len())
            .and_then(|stop| self.get(start..stop));
        buffer.copy_from_slice(part.ok_or_else(end)?);
        Ok(())
    }
}

/// Sections or segments at most, and bytes of a table of names or a note.
const MOST_ENTRIES: u16 = 4096;
const MOST_BYTES: u64 = 1 << 20;
const SHT_NOTE: u32 = 7;
const PT_INTERP: u32 = 3;

/// Whether it is a program that the kernel starts without a loader.
pub(crate) fn is_static_program(file: &(impl ReadAt + ?Sized)) -> bool {
    let Some(header) = header(file) else { return false };
    let (offset, size, count) = (u64_at(&header, 32), u16_at(&header, 54), u16_at(&header, 56));
    // Executable, or a position-independent one.
    let is_program = matches!(u16_at(&header, 16), 2 | 3);
    is_program
        && size >= 56
        && (1..=MOST_ENTRIES).contains(&count)
        && (0..count).all(|index| {
            let segment = entry::<56>(file, offset, size, index);
            segment.is_some_and(|segment| u32_at(&segment, 0) != PT_INTERP)
        })
}

/// The note section of this name: its bytes, and its alignment.
pub(crate) fn note_section(file: &(impl ReadAt + ?Sized), name: &str) -> Option<(Vec<u8>, u64)> {
    let header = header(file)?;
    let (offset, size, count) = (u64_at(&header, 40), u16_at(&header, 58), u16_at(&header, 60));
    if size < 64 || count > MOST_ENTRIES {
        return None;
    }
    let names = content(file, &entry::<64>(file, offset, size, u16_at(&header, 62))?)?;
    for index in 0..count {
        let section = entry::<64>(file, offset, size, index)?;
        let start = usize::try_from(u32_at(&section, 0)).ok()?;
        let rest = names.get(start..).unwrap_or_default();
        let found = rest.split(|&byte| byte == 0).next().unwrap_or_default();
        if u32_at(&section, 4) == SHT_NOTE && found == name.as_bytes() {
            return Some((content(file, &section)?, u64_at(&section, 48)));
        }
    }
    None
}

/// Name and description of the first note of a section.
pub(crate) fn note(section: &[u8], alignment: u64) -> Option<(&[u8], &[u8])> {
    let alignment = usize::try_from(alignment.clamp(1, 4096)).ok()?;
    let sizes = section.get(..12)?;
    let (name, size) = (u32_at(sizes, 0) as usize, u32_at(sizes, 4) as usize);
    let rest = section.get(12..)?;
    let begin = name.checked_next_multiple_of(alignment)?;
    // The last part's padding may be missing, and some libraries say a size with padding that isn't there.
    let description = rest.get(begin..)?;
    let description = description.get(..size).unwrap_or(description);
    Some((trimmed(rest.get(..name)?), trimmed(description)))
}

fn trimmed(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|&byte| byte != 0).unwrap_or(bytes.len());
    let stop = bytes
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(start, |last| last + 1);
    bytes.get(start..stop).unwrap_or_default()
}

fn header(file: &(impl ReadAt + ?Sized)) -> Option<[u8; 64]> {
    let mut header = [0; 64];
    file.read_at(&mut header, 0).ok()?;
    header.starts_with(b"\x7fELF\x02\x01").then_some(header)
}

fn entry<const SIZE: usize>(
    file: &(impl ReadAt + ?Sized),
    table: u64,
    size: u16,
    index: u16,
) -> Option<[u8; SIZE]> {
    let mut entry = [0; SIZE];
    let offset = table.checked_add(u64::from(size) * u64::from(index))?;
    file.read_at(&mut entry, offset).ok()?;
    Some(entry)
}

fn content(file: &(impl ReadAt + ?Sized), section: &[u8; 64]) -> Option<Vec<u8>> {
    let (offset, size) = (u64_at(section, 24), u64_at(section, 32));
    if size > MOST_BYTES {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(size).ok()?];
    file.read_at(&mut bytes, offset).ok()?;
    Some(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes
        .get(at..at + 2)
        .and_then(|part| part.try_into().ok())
        .map_or(0, u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|part| part.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 8)
        .and_then(|part| part.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A library with one note section.
    pub(crate) fn library(section: &str, name: &[u8], description: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        note.extend(u32::try_from(name.len()).unwrap().to_le_bytes());
        note.extend(u32::try_from(description.len()).unwrap().to_le_bytes());
        note.extend(1_u32.to_le_bytes());
        note.extend(name);
        note.resize(note.len().next_multiple_of(4), 0);
        note.extend(description);
        let names = format!("\0{section}\0");
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(64, 0);
        file[16] = 3;
        file.extend(&note);
        let names_at = file.len();
        file.extend(names.as_bytes());
        let table_at = file.len() as u64;
        for (name, kind, at, size, alignment) in [
            (0, 0, 0, 0, 0),
            (1, SHT_NOTE, 64, note.len(), 4_u64),
            (0, 3, names_at, names.len(), 1),
        ] {
            let mut section = [0; 64];
            section[0..4].copy_from_slice(&u32::to_le_bytes(name));
            section[4..8].copy_from_slice(&kind.to_le_bytes());
            section[24..32].copy_from_slice(&(at as u64).to_le_bytes());
            section[32..40].copy_from_slice(&(size as u64).to_le_bytes());
            section[48..56].copy_from_slice(&alignment.to_le_bytes());
            file.extend(section);
        }
        file[40..48].copy_from_slice(&table_at.to_le_bytes());
        file[58] = 64;
        file[60] = 3;
        file[62] = 2;
        file
    }

    #[test]
    fn a_note_is_found_by_its_section_and_read_without_padding() {
        let file = library(".note.test", b"Somebody\0", b"{}\0\0");
        let (section, alignment) = note_section(file.as_slice(), ".note.test").unwrap();
        assert_eq!(
            note(&section, alignment),
            Some((b"Somebody".as_slice(), b"{}".as_slice()))
        );
        assert_eq!(note_section(file.as_slice(), ".note"), None);
    }

    #[test]
    fn a_program_with_a_loader_is_not_static() {
        let ourselves = File::open(std::env::current_exe().unwrap()).unwrap();
        assert!(!is_static_program(&ourselves), "a test is linked dynamically");
        assert!(!is_static_program(b"#!/bin/sh".as_slice()));
        if let Ok(ldconfig) = File::open("/sbin/ldconfig") {
            assert!(is_static_program(&ldconfig));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..512), aligned: u64) {
            let _ = note(&bytes, aligned);
            for (at, byte) in b"\x7fELF\x02\x01".iter().enumerate() {
                if let Some(place) = bytes.get_mut(at) {
                    *place = *byte;
                }
            }
            let _ = is_static_program(bytes.as_slice());
            let _ = note_section(bytes.as_slice(), ".note.test");
        }

        #[test]
        fn a_changed_library_is_read_or_refused(at in 0_usize..400, byte: u8) {
            let mut file = library(".note.test", b"Somebody\0", b"{}");
            if let Some(place) = file.get_mut(at) {
                *place = byte;
            }
            if let Some((section, alignment)) = note_section(file.as_slice(), ".note.test") {
                let _ = note(&section, alignment);
            }
        }
    }
}
